"""Nobody who can only write to the database can change what a key may do.

Two measures. Each row carries an HMAC over all its columns: an altered row is refused when it is read and the
others go on working. That alone would let an old copy of a row be put back, or a row be removed; so each
table has a tally, a keyed multiset hash of all its rows (MSet-Add-Hash of Clarke et al., ASIACRYPT 2003):
the sum of `HMAC(row)` modulo 2^256, kept up in the transaction that changes a row, and sealed, because the
sums of known rows would let an attacker choose others. Tallies are checked at start and again and again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Table

from kms.errors import IntegrityFailure
from kms.vault.records import Row
from kms.vault.sealing import RootKeyring, SealBroken

_MODULUS = 1 << 256


@dataclass(frozen=True)
class _Layout:
    """How the columns of a table lie: the first ones, those that later schemas added, and last the code."""

    name: str
    first: int
    added: tuple[tuple[str, Any], ...]


@cache
def _layout(table: Table) -> _Layout:
    columns = list(table.columns)
    added = tuple((column.name, column.info["default"]) for column in columns if "default" in column.info)
    first = len(columns) - len(added) - 1
    if any("default" in column.info for column in columns[:first]) or columns[-1].name != "mac":
        raise TypeError(f"the columns of {table.name} do not lie as they must")
    return _Layout(str(table.name), first, added)


def in_order(table: Table, row: Row) -> list[Any]:
    """The values of `row` in the order of the table's columns."""
    return [row.get(column.name) for column in table.columns]


def canonical(table: Table, values: Sequence[Any]) -> bytes:
    """The bytes that stand for a row: MessagePack of the table's name and every column but `mac`, in order.

    Columns that a later schema added follow as a map, of those only that do not hold their default. So a
    migration, which has no key to authenticate with, leaves the codes of old rows as they were.
    """
    layout = _layout(table)
    stood: list[Any] = [layout.name, *values[: layout.first]]
    if layout.added:
        added = zip(layout.added, values[layout.first : -1], strict=True)
        later = {name: value for (name, default), value in added if value != default}
        if later:
            stood.append(later)
    return msgspec.msgpack.encode(stood)


def authenticated(keyring: RootKeyring, table: Table, row: Row) -> Row:
    """`row` with its authentication code."""
    return {**row, "mac": keyring.row_mac(canonical(table, in_order(table, row)))}


def check_row(keyring: RootKeyring, table: Table, values: Sequence[Any]) -> None:
    """Raise IntegrityFailure unless a row, its values in the order of the columns, carries its code."""
    code = values[-1]
    if not isinstance(code, bytes) or not hmac.compare_digest(code, keyring.row_mac(canonical(table, values))):
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


def tally_of(keyring: RootKeyring, table: Table, rows: Iterable[Sequence[Any]]) -> Tally:
    """The tally that `rows`, all of `table`, give."""
    tally = Tally()
    for row in rows:
        tally = tally.plus(keyring.tally_term(canonical(table, row)))
    return tally
