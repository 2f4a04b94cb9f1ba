"""Learning a root key that another process has made: it is in the database, sealed under the one before."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from kms.vault import tables
from kms.vault.keyset import Keyset
from kms.vault.sealing import DerivedKeys, UnknownRootKey


def learned(connection: Connection, keys: DerivedKeys, number: int) -> Keyset:
    """The keyset of `keys` with the root key of that number, and those between. Raises SealBroken."""
    found = connection.execute(select(tables.root_keys.c.number, tables.root_keys.c.wrapped)).all()
    return learned_from([(row.number, bytes(row.wrapped)) for row in found], keys, number)


def learned_from(wrapped: Iterable[tuple[int, bytes]], keys: DerivedKeys, number: int) -> Keyset:
    """As `learned`, from pairs of a number and the wrapped root key."""
    keyset = keys.keyset
    for each, sealed in sorted(wrapped):
        if each == keyset.newest + 1 and sealed:  # it is left out where nobody else serves
            keyset = keyset.plus(each, keys.open_root_key(each, sealed))
    if number not in keyset.root_keys:
        raise UnknownRootKey(f"made under root key {number}, which this process has not got")
    return keyset
