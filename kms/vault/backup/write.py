"""Making a backup of a vault that others go on using."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import text

from kms.clock import rfc3339
from kms.vault import claims
from kms.vault.backup.container import Header, Sealer, Write
from kms.vault.backup.content import Check, backed_up_tables, rows_of, unsealing_tables
from kms.vault.records import moment_of
from kms.vault.schema import revision_of
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

BACKUP = "backup"
"""The task of that name (see `vault.claims`): when the last backup was made, and at which change of the vault."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was written: its header, how many rows are in it, and how many bytes long it is."""

    header: Header
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class LastBackup:
    """When the last backup was made, and how many changes the vault had then."""

    made_at: datetime
    counter: int


def back_up(vault: Vault, write: Write, entry: str, now: datetime) -> Made:
    """Write a backup of `vault` as it is at one moment, after putting the audit `entry` into it.

    Every row is held to the head as it is read: a vault that somebody altered gives no backup. The end is written
    last, so what was written before an error is no backup. Raises IntegrityFailure, Unavailable, and what `write`
    raises.
    """
    with vault.change() as change:
        # Before the snapshot: so the backup is as new as the vault, until something else is changed.
        change.record(entry)
    known = vault.host.counter
    with vault.read() as snapshot:
        snapshot.head().require_not_before(known)
        made = _written(snapshot, write, now)
    claims.note(vault, BACKUP, now, str(made.header.counter))
    return made


def last_backup(vault: Vault) -> LastBackup | None:
    """The last backup that was made of this database, None where there is none. Raises Unavailable."""
    found = claims.look(vault, BACKUP)
    return LastBackup(moment_of(found.until), int(found.position)) if found.until else None


def _written(snapshot: Snapshot, write: Write, now: datetime) -> Made:
    connection, keys = snapshot.connection, snapshot.derived_keys
    if connection.dialect.name == "postgresql":
        # Whoever takes the backup from a pipe may be slower than a node that hangs is allowed to be.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    head = snapshot.head()
    unsealing = [record for table in unsealing_tables() for record in rows_of(connection, table)]
    header = Header(
        vault_id=keys.vault_id.hex(),
        made_at=rfc3339(now),
        schema=revision_of(connection),
        counter=head.counter,
        epoch=head.epoch,
        root_key=keys.current,
        unsealing=msgspec.msgpack.encode(unsealing),
    )
    sealer, check = Sealer(write, header, keys.vault_backup_key(keys.current)), Check(keys)
    check.unsealing(unsealing)
    for table in backed_up_tables():
        for record in rows_of(connection, table):
            check.rows(table, record.rows)
            sealer.add(record)
    check.end()
    sealer.finish()
    return Made(header, check.count, sealer.size)
