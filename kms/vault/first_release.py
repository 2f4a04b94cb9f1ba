"""The head of a vault that an earlier schema kept: an epoch, and a tally for each table sealed for itself."""

from __future__ import annotations

import hmac

import msgspec
from sqlalchemy import Connection, text

from kms.errors import IntegrityFailure
from kms.vault.head import Head, TableDigest
from kms.vault.sealing import DerivedKeys, SealBroken


def head(connection: Connection, keys: DerivedKeys) -> Head:
    """What the old rows say, as a head; a tally that does not open is left out and so fits no rows.

    Raises IntegrityFailure for an epoch that was altered.
    """
    identity, epoch, code = connection.execute(text("SELECT id, epoch, mac FROM epoch")).one()
    expected = keys.row_mac(msgspec.msgpack.encode(["epoch", identity, epoch]))
    if not hmac.compare_digest(bytes(code), expected):
        raise IntegrityFailure("The epoch was altered outside the service.")
    digests = {}
    for name, sealed in connection.execute(text("SELECT table_name, sealed FROM tallies")):
        try:
            plain = keys.open(bytes(sealed), ("tally", name))
        except SealBroken:
            continue
        digests[name] = TableDigest(int.from_bytes(plain[:8]), int.from_bytes(plain[8:]))
    digests.pop("epoch", None)
    outbox = digests.pop("audit_outbox", TableDigest())
    return Head(1, epoch, outbox.count, digests)


def drop(connection: Connection) -> None:
    """Remove the tables that the head took the place of."""
    for name in ("epoch", "tallies"):
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))  # the two names above
