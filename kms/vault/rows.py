"""Rows that are the vault's own."""

from __future__ import annotations

from dataclasses import dataclass

from kms.vault import tables
from kms.vault.records import stored_in


@stored_in(tables.epoch)
@dataclass(frozen=True, slots=True)
class Epoch:
    """How many changes have made cached answers wrong."""

    id: int
    epoch: int


@stored_in(tables.audit_outbox)
@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """The audit entry of a change."""

    sequence: int
    entry: str
