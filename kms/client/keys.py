"""Keys as the service shows them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a key; `public_key` is PEM. After `expires_at` it no longer protects."""

    version: int
    type: str
    state: str
    created_at: datetime
    activate_at: datetime
    expires_at: datetime
    process_until: datetime
    revocation_reason: str | None = None
    public_key: str | None = None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key; state and `expires_at` are those of the latest version. A list shows it without its versions."""

    key_id: str
    type: str
    owner: str
    state: str
    usages: list[str]
    exportable: bool
    latest_version: int
    created_at: datetime
    expires_at: datetime
    rotation_period: timedelta | None = None
    next_rotation_at: datetime | None = None
    deletion_at: datetime | None = None
    labels: dict[str, str] = {}
    description: str = ""
    aliases: list[str] = []
    versions: list[Version] = []
