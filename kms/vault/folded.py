"""How far the audit log's tree has come, as the vault's own row says it, and which entries of changes come next."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

from kms.errors import IntegrityFailure
from kms.vault import tables
from kms.vault.rows import AuditLog, FoldedSpool, OutboxEntry
from kms.vault.transaction import Snapshot

ONLY = 1
"""The primary key of the row."""
_ASKED_AT_ONCE = 500  # databases limit how many values a statement has
NOT_BEGUN = AuditLog(ONLY, "", 0, sha256(b"").digest(), "", 0, 0, datetime(1970, 1, 1, tzinfo=UTC))
"""The tree before its first entry, which has the hash of nothing for its root (RFC 6962, section 2.1)."""


def audit_log(snapshot: Snapshot) -> AuditLog:
    """The tree as the database has it. Raises IntegrityFailure where the row was altered."""
    return snapshot.find(AuditLog, ONLY) or NOT_BEGUN


def folded_spools(snapshot: Snapshot, processes: Iterable[str]) -> dict[str, int]:
    """Up to which byte of what each process has written is in the tree. Raises IntegrityFailure.

    Those of every node: a host has another id since it was restarted, and its spools are those of before.
    """
    return {each.spool: each.folded for each in folded_rows(snapshot, processes)}


def folded_rows(snapshot: Snapshot, processes: Iterable[str]) -> list[FoldedSpool]:
    """The rows of these processes. Raises IntegrityFailure."""
    named, found = list(processes), list[FoldedSpool]()  # a row stays for ever, so that no spool is folded again
    for at in range(0, len(named), _ASKED_AT_ONCE):
        found += snapshot.select(FoldedSpool, tables.audit_spools.c.spool.in_(named[at : at + _ASKED_AT_ONCE]))
    return found


def waiting_entries(snapshot: Snapshot, log: AuditLog, most: int) -> list[OutboxEntry]:
    """The entries of changes that follow those in the tree of `log`, the oldest first, at most `most`.

    None of them is missing, and none was in the tree before: their numbers go on without a gap, except for what was
    missing when an operator accepted the database. Raises IntegrityFailure where that is not so.
    """
    number = tables.audit_outbox.c.sequence
    found = snapshot.select(OutboxEntry, number > log.last_folded, order_by=number, limit=most)
    head = snapshot.head()
    last = found[-1].sequence if found else log.last_folded
    missing = last - log.last_folded - len(found)
    lost = head.lost_entries - (log.last_folded - log.entries_folded)  # and not in the tree's part already
    is_whole = missing == lost and last == head.last_entry
    if not is_whole and (len(found) < most or missing > lost):
        raise IntegrityFailure(
            "Entries of changes were removed or put back outside the service, before they were in the audit log."
        )
    return found
