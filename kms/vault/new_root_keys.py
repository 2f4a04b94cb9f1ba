"""Learning a root key that another process has made: it is in the database, sealed under the one before."""

from __future__ import annotations

from sqlalchemy import Connection, select

from kms.vault import tables
from kms.vault.keyset import Keyset
from kms.vault.sealing import DerivedKeys, UnknownRootKey


def learned(connection: Connection, keys: DerivedKeys, number: int) -> Keyset:
    """The keyset of `keys` with the root key of that number, and those between. Raises SealBroken."""
    keyset = keys.keyset
    rows = connection.execute(select(tables.root_keys).order_by(tables.root_keys.c.number)).all()
    for row in rows:
        if row.number == keyset.newest + 1 and row.wrapped:  # it is left out where nobody else serves
            keyset = keyset.plus(row.number, keys.open_root_key(row.number, bytes(row.wrapped)))
    if number not in keyset.root_keys:
        raise UnknownRootKey(f"made under root key {number}, which this process has not got")
    return keyset
