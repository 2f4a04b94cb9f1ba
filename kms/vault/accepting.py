"""Accepting the database as it is, after it was found not to be what the service wrote."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import delete, func, select

from kms.errors import IntegrityFailure
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.folded import NOT_BEGUN, audit_log
from kms.vault.head import ACCEPTED_BEYOND, Head, digest_of, require_not_retired
from kms.vault.host import EPOCH
from kms.vault.rows import AuditLog
from kms.vault.store import Vault

_BEYOND_EVERY_VAULT = 1 << 47  # the host's file keeps 48 bits


def accept(vault: Vault, entry: str) -> None:
    """Write a new head for the current rows, together with the audit `entry`, and trust the database again.

    The counter of the new head tells other nodes that the database was accepted. It keeps no switches of its history:
    the next change notes the timeline, beyond everything that was seen. Rows with a wrong authentication
    code are still refused; audit entries that are in the tree of the log already, and were put back, are removed.
    Raises Unavailable.
    """
    with vault.untrusted() as change:
        head = _head_of_rows(vault, change).numbered_beyond()
        remembered = vault.host.remembered
        change.write_entries([entry], head.last_entry)
        after = replace(head, last_entry=head.last_entry + 1)
        change.connection.execute(delete(tables.changes))  # whoever sees the new epoch forgets everything
        change.put_head(after.sealed(vault.derived_keys))
        change.connection.commit()
        vault.host.begin_anew(after.seen, after.epoch, remembered)


def _plausible(number: int) -> int:
    """What the file of the host says; 0 where that is beyond what any vault comes to, since the file is damaged then.

    The database could not store what follows such a number.
    """
    return number if number < _BEYOND_EVERY_VAULT else 0


def _readable_log(change: Change) -> AuditLog:
    """The row of the audit log's tree; one that was altered is refused wherever it is used."""
    try:
        return audit_log(change)
    except IntegrityFailure:
        return NOT_BEGUN


def _head_of_rows(vault: Vault, change: Change) -> Head:
    try:
        sealed = change.locked_head()[0]
        require_not_retired(sealed, vault.derived_keys.oldest)
        before = Head.unsealed(vault.derived_keys, sealed)
    except IntegrityFailure:
        before = Head(0, 0, 0)
    rows = ((table, change.connection.execute(select(table))) for table in tables.digested_tables())
    number = tables.audit_outbox.c.sequence
    log = _readable_log(change)
    change.delete_entries(log.last_folded)
    count, last = change.connection.execute(select(func.count(), func.coalesce(func.max(number), 0))).one()
    count, last = count + log.entries_folded, max(last, log.last_folded)
    named = change.connection.execute(select(func.coalesce(func.max(tables.changes.c.epoch), 0))).scalar_one()
    counter = max(before.counter, _plausible(vault.host.counter))
    # An acceptance may be lost in a failover, and its epoch be known here only by the counter, which is no lower.
    epoch = max(before.epoch, _plausible(vault.host.words[EPOCH]), named, counter)
    return Head(
        counter=counter + ACCEPTED_BEYOND,
        epoch=epoch + ACCEPTED_BEYOND,
        last_entry=last,
        digests={str(table.name): digest_of(vault.derived_keys, table, found) for table, found in rows},
        lost_entries=last - count,
    )
