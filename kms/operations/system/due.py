"""Which keys the schedule has to act on by themselves, as criteria of a query."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, not_, or_

from kms.keys.model import KeyState
from kms.vault import tables
from kms.vault.records import microseconds


def due_for_rotation(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Keys whose rotation period is over at `now`, with their latest versions; not those that have to wait."""
    keys, versions = tables.keys.c, tables.key_versions.c
    waits = or_(versions.state == KeyState.SUSPENDED, versions.activate_at > microseconds(now))
    return keys.next_rotation_at <= microseconds(now), not_(waits), keys.deletion_at.is_(None)


def due_for_deletion(now: datetime) -> ColumnElement[bool]:
    """Keys whose waiting period before their deletion is over at `now`."""
    return tables.keys.c.deletion_at <= microseconds(now)
