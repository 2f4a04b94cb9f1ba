"""Nobody who can only write to the database can change what a key may do.

Two measures. Each row carries an HMAC over all its columns: an altered row is refused when it is read and the
others go on working. That alone would let an old copy of a row be put back, or a row be removed; so each
table has a tally, a keyed multiset hash of all its rows (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003):
the sum of `HMAC(row)` modulo 2^256, kept up in the transaction that changes a row, and sealed, because the
sums of known rows would let an attacker choose others. Tallies are checked at start and again and again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Table

from kms.errors import IntegrityFailure
from kms.vault.records import Row
from kms.vault.sealing import RootKeyring, SealBroken

_MODULUS = 1 << 256


def canonical(table: Table, row: Mapping[Any, Any]) -> bytes:
    """The bytes that stand for a row: MessagePack of the table's name and every column but `mac`, in order.

    Columns that a later schema added follow as a map, of those only that do not hold their default. So a
    migration, which has no key to authenticate with, leaves the codes of old rows as they were.
    """
    values: list[Any] = [str(table.name)]
    later = {}
    for column in table.columns:
        value = row[column.name] if column.name != "mac" else None
        if "default" in column.info:
            if value != column.info["default"]:
                later[column.name] = value
        elif column.name != "mac":
            values.append(bytes(value) if isinstance(value, memoryview) else value)
    return msgspec.msgpack.encode([*values, later] if later else values)


def authenticated(keyring: RootKeyring, table: Table, row: Row) -> Row:
    """`row` with its authentication code."""
    return {**row, "mac": keyring.row_mac(canonical(table, row))}


def check_row(keyring: RootKeyring, table: Table, row: Mapping[Any, Any]) -> None:
    """Raise IntegrityFailure unless `row` carries its code."""
    if not hmac.compare_digest(bytes(row["mac"]), keyring.row_mac(canonical(table, row))):
        raise IntegrityFailure(f"A row of {table.name} was altered outside the service; it is not used.")


@dataclass(frozen=True)
class Tally:
    """How many rows a table has and the sum of their terms."""

    count: int = 0
    total: int = 0

    def plus(self, term: int) -> Tally:
        """With one more row."""
        return Tally(self.count + 1, (self.total + term) % _MODULUS)

    def minus(self, term: int) -> Tally:
        """With one row less."""
        return Tally(self.count - 1, (self.total - term) % _MODULUS)

    def sealed(self, keyring: RootKeyring, table: str) -> bytes:
        """For the table `tallies`; a fresh nonce hides what changed."""
        return keyring.seal(self.count.to_bytes(8) + self.total.to_bytes(32), ("tally", table))

    @staticmethod
    def unsealed(keyring: RootKeyring, table: str, sealed: bytes) -> Tally:
        """The tally in `sealed`. Raises IntegrityFailure."""
        try:
            plain = keyring.open(sealed, ("tally", table))
        except SealBroken:
            raise IntegrityFailure(f"The tally of {table} was altered outside the service.") from None
        return Tally(int.from_bytes(plain[:8]), int.from_bytes(plain[8:]))


def tally_of(keyring: RootKeyring, table: Table, rows: Iterable[Mapping[Any, Any]]) -> Tally:
    """The tally that `rows`, all of `table`, give."""
    tally = Tally()
    for row in rows:
        tally = tally.plus(keyring.tally_term(canonical(table, row)))
    return tally
