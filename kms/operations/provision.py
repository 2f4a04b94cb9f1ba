"""Making key versions: the first of a key, the next by generating again, by rotation, or by the schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kms.crypto.registry import KeyType
from kms.errors import KeyRevoked, KeyStateConflict
from kms.keys.cryptoperiod import Cryptoperiods
from kms.keys.ids import is_session_key_id, new_key_uid
from kms.keys.lifecycle import effective_state, move
from kms.keys.model import Key, KeyState, KeyVersion
from kms.vault.store import Change


def new_key(
    change: Change,
    periods: Cryptoperiods,
    key_id: str,
    owner: str,
    key_type: KeyType,
    material: bytes,
    now: datetime,
) -> tuple[Key, KeyVersion]:
    """A key with its first version."""
    rotation_period = None if is_session_key_id(key_id) else periods.rotation
    key = Key(
        uid=new_key_uid(),
        key_id=key_id,
        type=key_type.name,
        owner=owner,
        usages=key_type.usages,
        exportable=False,
        cryptoperiod=periods.of(key_type.name),
        rotation_period=rotation_period,
        next_rotation_at=now + rotation_period if rotation_period else None,
        latest_version=1,
        created_at=now,
    )
    version = _version(change, key, 1, key_type, material, now, periods)
    change.insert(key, version)
    return key, version


def next_version(
    change: Change, periods: Cryptoperiods, key: Key, key_type: KeyType, material: bytes, now: datetime
) -> tuple[Key, KeyVersion]:
    """The next version of `key`; the one before it is deactivated and only decrypts and verifies.

    Raises KeyStateConflict while the key is suspended.
    """
    before = change.find(KeyVersion, key.uid, key.latest_version)
    assert before is not None
    state = effective_state(before, now)
    if state is KeyState.SUSPENDED:
        raise KeyStateConflict(f"{key.key_id} is suspended. Resume or revoke it before making a new version.")
    if state is KeyState.ACTIVE:
        change.replace(before, move(before, KeyState.DEACTIVATED, now))
    after = replace(
        key,
        type=key_type.name,
        usages=key_type.usages if key_type.name != key.type else key.usages,
        latest_version=key.latest_version + 1,
        next_rotation_at=now + key.rotation_period if key.rotation_period else None,
    )
    change.replace(key, after)
    version = _version(change, after, after.latest_version, key_type, material, now, periods)
    change.insert(version)
    change.outdates = True
    return after, version


def require_rotatable(change: Change, key: Key) -> None:
    """Raise KeyRevoked for a key whose latest version was revoked: rotating would quietly bring it back."""
    latest = change.find(KeyVersion, key.uid, key.latest_version)
    if latest is not None and latest.revocation_reason is not None and latest.state is not KeyState.SUSPENDED:
        raise KeyRevoked(f"{key.key_id} was revoked ({latest.revocation_reason}). Generate it anew instead.")


def _version(
    change: Change,
    key: Key,
    number: int,
    key_type: KeyType,
    material: bytes,
    now: datetime,
    periods: Cryptoperiods,
) -> KeyVersion:
    expires_at = now + key.cryptoperiod
    return KeyVersion(
        key_uid=key.uid,
        version=number,
        type=key_type.name,
        state=KeyState.ACTIVE,
        created_at=now,
        activate_at=now,
        expires_at=expires_at,
        process_until=expires_at + periods.process_after,
        material=change.seal_material(key, number, key_type.name, material),
        public_key=key_type.public_key(material),
    )
