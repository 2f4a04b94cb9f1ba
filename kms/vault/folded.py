"""How far the audit log's tree has come, as the vault's own row says it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256

from kms.vault import tables
from kms.vault.rows import AuditLog, FoldedSpool
from kms.vault.transaction import Snapshot

ONLY = 1
"""The primary key of the row."""
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
    named = list(processes)  # a row stays for ever, so that no spool that was folded is folded again
    return snapshot.select(FoldedSpool, tables.audit_spools.c.spool.in_(named)) if named else []
