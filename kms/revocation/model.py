"""Revocations as they are stored: an append-only list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kms.keys.model import RevocationReason
from kms.vault import tables
from kms.vault.records import stored_in


@stored_in(tables.revocations)
@dataclass(frozen=True, slots=True)
class Revocation:
    """An entry: all versions up to `up_to_version` were revoked; with `removeFromCRL`, their hold was lifted."""

    serial: int
    key_uid: bytes
    key_id: str
    up_to_version: int
    reason: RevocationReason
    revoked_at: datetime
    compromised_at: datetime | None
