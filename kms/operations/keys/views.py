"""How keys are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from msgspec import UNSET, UnsetType

from kms.crypto.pkcs8 import public_pem
from kms.keys.lifecycle import awaits_material, effective_state, external_material
from kms.keys.model import (
    Alias,
    ExternalMaterial,
    Key,
    KeyState,
    KeyVersion,
    Origin,
    ShownState,
    Usage,
)
from kms.operations.core.declare import Answer
from kms.operations.core.service import Call, Service
from kms.operations.keys.key_factory import pending_rotation
from kms.vault.transaction import Snapshot

VERSIONS_SHOWN = 100


class VersionView(Answer):
    """One key version; `public_key` is PEM.

    After `expires_at` it can no longer encrypt or sign; after `process_until` it cannot be used at all. For imported
    material that may be withdrawn, `external_material` says whether it is present, and `material_expires_at` when
    the service will forget it.
    """

    version: int
    type: str
    state: ShownState
    created_at: datetime
    activate_at: datetime
    expires_at: datetime
    process_until: datetime
    revocation_reason: str | UnsetType = UNSET
    external_material: ExternalMaterial | UnsetType = UNSET
    material_expires_at: datetime | UnsetType = UNSET
    public_key: str | UnsetType = UNSET


class KeySummary(Answer):
    """A key without its versions. `state`, `expires_at` and `pending_import` are those of the latest version.

    During the waiting period of a deletion, `state` is `pending-deletion`. `former_key_id` is the id that such a key
    had before its deletion released the name. `pending_import` says that the latest version waits for its external
    material.
    """

    key_id: str
    type: str
    owner: str
    state: ShownState
    usages: list[Usage]
    exportable: bool
    exportable_later: bool
    origin: Origin
    pending_import: bool
    latest_version: int
    oldest_version: int
    min_protect_version: int
    min_process_version: int
    created_at: datetime
    expires_at: datetime
    cryptoperiod: timedelta
    rotation_period: timedelta | None
    next_rotation_at: datetime | None
    deletion_at: datetime | None
    former_key_id: str | None
    labels: dict[str, str]
    description: str
    region: str
    replicas: list[str]


_OF_THE_KEY = tuple(name for name in KeySummary.__struct_fields__ if name in {each.name for each in fields(Key)})
_from_the_key = attrgetter(*_OF_THE_KEY)


class KeyView(KeySummary):
    """A key with its aliases and its newest versions (at most 100), the oldest of them first.

    `replica_descriptions` and `replica_labels` are those of its replicas, by region. `pending_rotation` is a version
    of imported material that comes into force at the next rotation.
    """

    aliases: list[str]
    versions: list[VersionView]
    replica_descriptions: dict[str, str]
    replica_labels: dict[str, dict[str, str]]
    pending_rotation: VersionView | UnsetType = UNSET


def shown(service: Service, snapshot: Snapshot, key: Key) -> KeyView:
    """`key` in full."""
    now, versions = service.clock(), snapshot.latest_versions(key, VERSIONS_SHOWN)
    view = view_of(key, versions, snapshot.matching(Alias, key_uid=key.uid, order_by="alias"), now)
    pending = pending_rotation(snapshot, key, now)
    if pending is not None:
        view.pending_rotation = version_view(key, pending, now)
    return view


def view_of(key: Key, versions: Sequence[KeyVersion], aliases: Sequence[Alias], now: datetime) -> KeyView:
    """`key` in full, with the newest of its versions, the oldest of them first."""
    return KeyView(
        **summary_members(key, versions[-1], now),
        aliases=[each.alias for each in aliases],
        versions=[version_view(key, each, now) for each in versions],
        replica_descriptions=key.replica_descriptions,
        replica_labels=key.replica_labels,
    )


def shown_now(service: Service, call: Call) -> KeyView:
    """The key that the call was about, as it is after its change."""
    with service.vault.read() as snapshot:
        key = snapshot.key_by_id(call.key_id or "")
        assert key is not None
        return shown(service, snapshot, key)


def summary_members(key: Key, latest: KeyVersion, now: datetime) -> dict[str, Any]:
    """The members of a `KeySummary`."""
    return {
        **dict(zip(_OF_THE_KEY, _from_the_key(key), strict=True)),
        "state": _shown_state(key, latest, now),
        "former_key_id": key.former_id or None,
        "usages": sorted(key.usages),
        "replicas": sorted(key.replicas),
        "expires_at": latest.expires_at,
        "pending_import": awaits_material(latest, now),
    }


def version_view(key: Key, version: KeyVersion, now: datetime) -> VersionView:
    """One version of `key` as it is at `now`."""
    state = effective_state(version, now)
    is_over = state in {KeyState.COMPROMISED, KeyState.DESTROYED}
    return VersionView(
        version=version.version,
        type=version.type,
        state=ShownState(state) if is_over else _shown_state(key, version, now),
        created_at=version.created_at,
        activate_at=version.activate_at,
        expires_at=version.expires_at,
        process_until=version.process_until,
        revocation_reason=version.revocation_reason or UNSET,
        external_material=external_material(version, now) or UNSET,
        material_expires_at=version.material_until or UNSET,
        public_key=public_pem(version.public_key) if version.public_key else UNSET,
    )


def _shown_state(key: Key, version: KeyVersion, now: datetime) -> ShownState:
    return ShownState.PENDING_DELETION if key.deletion_at is not None else ShownState(effective_state(version, now))
