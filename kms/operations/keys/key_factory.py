"""Makes key versions: the first one of a new key, and the next one when a key is generated again or rotated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from kms.access import clients
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.crypto.registry import key_type
from kms.errors import AlreadyExists, Conflict, KeyRevoked, KeyStateConflict, ValidationFailed
from kms.keys.cryptoperiod import Cryptoperiods, next_rotation
from kms.keys.ids import is_key_id, is_session_key_id, new_key_id, new_key_uid, reserved_for
from kms.keys.lifecycle import awaits_material, effective_state, move
from kms.keys.model import Alias, Key, KeyState, KeyVersion, Origin, Usage
from kms.notices import events, outbox
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

_NOT_BY_ITSELF = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class KeySpec:
    """The properties of a new key; for those that are None the settings or the key type give a default."""

    type: KeyType
    owner: str
    key_id: str | None = None
    usages: frozenset[Usage] | None = None
    exportable: bool = False
    exportable_later: bool = False
    cryptoperiod: timedelta | None = None
    rotation_period: timedelta | None = None
    activate_at: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    description: str = ""
    origin: Origin = Origin.GENERATED
    region: str = ""
    policy: str = ""


def new_key(
    change: Change, periods: Cryptoperiods, spec: KeySpec, material: KeyMaterial, now: datetime
) -> tuple[Key, KeyVersion]:
    """Insert a new key with its first version, and return both.

    Raises AlreadyExists if the id is taken, NotFound if there is no such owner, and ValidationFailed.
    """
    clients.get(change, spec.owner)
    key_id = spec.key_id
    if key_id is None:
        key_id = new_key_id()  # drawn at random, so that nobody has it
    else:
        require_free_name(change, key_id, spec.owner)
    kind = spec.type
    is_renewable = spec.origin.is_renewable and material.private is not None and not is_session_key_id(key_id)
    rotation_period = spec.rotation_period or (periods.rotation if is_renewable else None)
    if rotation_period and not is_renewable:
        raise ValidationFailed("rotation_period: the service cannot make the next version of this key by itself.")
    key = Key(
        uid=new_key_uid(),
        key_id=key_id,
        type=kind.name,
        owner=spec.owner,
        usages=usages_of(kind, spec.usages, material),
        exportable=spec.exportable,
        exportable_later=spec.exportable_later,
        cryptoperiod=spec.cryptoperiod or periods.of(kind.name),
        rotation_period=rotation_period,
        next_rotation_at=next_rotation(spec.activate_at or now, rotation_period),
        latest_version=1,
        created_at=now,
        labels=spec.labels,
        description=spec.description,
        origin=spec.origin,
        region=spec.region,
        policy=spec.policy,
    )
    version = _version(change, key, 1, material, now, spec.activate_at or now, periods)
    change.insert(key, version)
    return key, version


def next_version(
    change: Change,
    periods: Cryptoperiods,
    key: Key,
    kind: KeyType,
    material: KeyMaterial,
    now: datetime,
    *,
    keep_schedule: bool = False,
) -> tuple[Key, KeyVersion]:
    """Insert the next version of `key`, made of `material`, and return the changed key and that version.

    The version before is deactivated: from then on it only decrypts and verifies. With `keep_schedule` the date of
    the next rotation does not move. Raises KeyStateConflict if the key is suspended, not active yet or about to be
    deleted, and Conflict if a key of type `kind` cannot have the usages of `key`.
    """
    waiting = _beyond_latest(change, key)
    after = _succeeded(change, key, kind, now, keep_schedule=keep_schedule)
    version = _version(change, after, after.latest_version, material, now, now, periods)
    _put(change, waiting, version)
    outbox.emit(change, events.key_rotated(after, version, now))
    return after, version


def pending_rotation(snapshot: Snapshot, key: Key, now: datetime) -> KeyVersion | None:
    """The version of `key` with imported material that waits for the next rotation; None if there is none."""
    found = _beyond_latest(snapshot, key)
    if found is None or found.state is not KeyState.PRE_ACTIVATION or awaits_material(found, now):
        return None
    return found


def set_pending_rotation(
    change: Change, key: Key, material: KeyMaterial, fingerprint: bytes, until: datetime | None, now: datetime
) -> KeyVersion:
    """Store imported material as the version that the next rotation of `key` puts in force, and return that version.

    It replaces material that waited there before. `until` is when the material is to be forgotten, None for never.
    """
    number = key.latest_version + 1
    assert material.private is not None
    version = KeyVersion(
        key_uid=key.uid,
        version=number,
        type=key.type,
        state=KeyState.PRE_ACTIVATION,
        created_at=now,
        activate_at=_NOT_BY_ITSELF,
        expires_at=_NOT_BY_ITSELF,
        process_until=_NOT_BY_ITSELF,
        material=change.seal_material(key, number, key.type, material.private),
        public_key=material.public,
        fingerprint=fingerprint,
        material_until=until,
    )
    _put(change, _beyond_latest(change, key), version)
    return version


def rotate_to(
    change: Change, periods: Cryptoperiods, key: Key, pending: KeyVersion, now: datetime, *, keep_schedule: bool
) -> tuple[Key, KeyVersion]:
    """As `next_version`, with `pending`, a version whose imported material waits for the rotation."""
    after = _succeeded(change, key, key_type(pending.type), now, keep_schedule=keep_schedule)
    expires_at = now + key.cryptoperiod
    version = replace(
        pending,
        state=KeyState.ACTIVE,
        created_at=now,
        activate_at=now,
        expires_at=expires_at,
        process_until=expires_at + periods.process_after,
    )
    change.replace(pending, version)
    outbox.emit(change, events.key_rotated(after, version, now))
    return after, version


def _beyond_latest(snapshot: Snapshot, key: Key) -> KeyVersion | None:
    if key.origin is not Origin.IMPORTED:
        return None
    return snapshot.find(KeyVersion, key.uid, key.latest_version + 1)


def _put(change: Change, before: KeyVersion | None, version: KeyVersion) -> None:
    """Keep `version`, in the place of what stood under its number."""
    if before is None:
        change.insert(version)
    else:
        change.replace(before, version)


def _succeeded(change: Change, key: Key, kind: KeyType, now: datetime, *, keep_schedule: bool) -> Key:
    """`key` with one version more, which is still to be made; the one before it is deactivated."""
    if not any(key.usages <= purpose for purpose in kind.purposes):
        # Usages are the key's, not the version's: they never change, so that no old version gets another.
        made_for = ", ".join(sorted(key.usages))
        raise Conflict(f"{key.key_id} is a key for {made_for}, which a key of type {kind.name} is not made for.")
    if key.deletion_at is not None:
        raise KeyStateConflict(f"{key.key_id} is to be deleted. Cancel that before making a new version.")
    before = change.find(KeyVersion, key.uid, key.latest_version)
    assert before is not None
    state = effective_state(before, now)
    if state is KeyState.SUSPENDED:
        raise KeyStateConflict(f"{key.key_id} is suspended. Resume or revoke it before making a new version.")
    if state is KeyState.PRE_ACTIVATION:
        raise KeyStateConflict(f"{key.key_id} is not active yet; its first version has protected nothing.")
    if state is KeyState.ACTIVE:
        change.replace(before, move(before, KeyState.DEACTIVATED, now))
    after = replace(
        key,
        type=kind.name,
        latest_version=key.latest_version + 1,
        next_rotation_at=key.next_rotation_at if keep_schedule else next_rotation(now, key.rotation_period),
    )
    change.replace(key, after)
    return after


def usages_of(kind: KeyType, asked: frozenset[Usage] | None, material: KeyMaterial) -> frozenset[Usage]:
    """The usages of a new key of `kind`: those `asked` for, else the default ones of the type.

    Raises ValidationFailed for usages that the type does not have.
    """
    purposes = kind.purposes
    if material.public is not None and material.private is None:
        purposes = tuple(frozenset(each for each in purpose if not each.needs_private) for purpose in purposes)
        if not any(purposes):
            raise ValidationFailed(f"public_key: a public key of type {kind.name} alone does nothing here.")
    if asked is None:
        return next(purpose for purpose in purposes if purpose)
    if not asked or not any(asked <= purpose for purpose in purposes):
        choices = "; or ".join(", ".join(sorted(purpose)) for purpose in purposes if purpose)
        raise ValidationFailed(f"usages: a key of type {kind.name} can be made for {choices}.")
    return asked


def require_free_name(change: Change, name: str, owner: str) -> None:
    """Raise AlreadyExists for a name in use, ValidationFailed for a malformed one or one reserved for a client."""
    if not is_key_id(name):  # REST has checked that; dialects take names as they come
        raise ValidationFailed("key_id: letters, digits, dots, dashes and underscores, 128 at the most.")
    if change.key_by_id(name) is not None or change.find(Alias, name) is not None:
        raise AlreadyExists(f"There is a key or an alias {name} already.")
    client_id = reserved_for(name)
    if client_id not in (None, owner):
        raise ValidationFailed(f"key_id: the name {name} is kept for keys of the client {client_id}.")


def require_not_revoked(change: Change, key: Key) -> KeyVersion | None:
    """The latest version of `key`. Raises KeyRevoked after a revocation, which a rotation would quietly undo."""
    latest = change.find(KeyVersion, key.uid, key.latest_version)
    if latest is not None and latest.revocation_reason is not None and latest.state is not KeyState.SUSPENDED:
        raise KeyRevoked(f"{key.key_id} was revoked ({latest.revocation_reason}). Generate it anew instead.")
    return latest


def require_rotatable(change: Change, key: Key) -> None:
    """Raise where the service may not make the next version of `key` by itself.

    KeyRevoked after a revocation, which a rotation would quietly undo; Conflict for what is shared with others.
    """
    if not key.origin.is_renewable or is_session_key_id(key.key_id):
        raise Conflict(f"{key.key_id} was agreed on or derived with others; do that again instead.")
    latest = require_not_revoked(change, key)
    if latest is None:
        return
    if latest.fingerprint is not None or awaits_material(latest, latest.created_at):
        raise Conflict(f"The material of {key.key_id} is kept elsewhere and comes from there.")
    if latest.material is None and latest.state is not KeyState.DESTROYED:
        raise Conflict(f"{key.key_id} is a public key whose private half is elsewhere; import the next one.")


def _version(
    change: Change,
    key: Key,
    number: int,
    material: KeyMaterial,
    now: datetime,
    activate_at: datetime,
    periods: Cryptoperiods,
) -> KeyVersion:
    expires_at = activate_at + key.cryptoperiod
    sealed = None
    if material.private is not None:
        sealed = change.seal_material(key, number, key.type, material.private)
    return KeyVersion(
        key_uid=key.uid,
        version=number,
        type=key.type,
        state=KeyState.ACTIVE if activate_at <= now else KeyState.PRE_ACTIVATION,
        created_at=now,
        activate_at=activate_at,
        expires_at=expires_at,
        process_until=expires_at + periods.process_after,
        material=sealed,
        public_key=material.public,
    )
