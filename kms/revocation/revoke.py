"""What a revocation does to a key (RFC 5280, section 5.3.1 for the reasons; SP 800-57 for the effects)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kms.errors import KeyStateConflict
from kms.keys.lifecycle import effective_state, move
from kms.keys.model import Key, KeyState, KeyVersion, RevocationReason
from kms.notices import events, outbox
from kms.revocation.leaves import enter, enter_copy
from kms.revocation.model import Revocation
from kms.revocation.published import in_force
from kms.revocation.times import begins_at
from kms.vault.change import Change, next_serial
from kms.vault.tables import revocations


def revoke(
    change: Change, key: Key, reason: RevocationReason, now: datetime, compromised_at: datetime | None = None
) -> Key:
    """Revoke every version of `key` there is, or lift a hold on it with `removeFromCRL`.

    Gives the key as it is now. Revoking again for a reason that changes nothing leaves everything as it is.
    Raises KeyStateConflict where there is nothing to hold or to lift.
    """
    changed = False
    for version in change.versions(key):
        after = _revoked(version, reason, now, is_latest=version.version == key.latest_version)
        if after is not version:
            change.replace(version, after)
            changed = True
    if not changed:
        return key
    made = Revocation(
        serial=next_serial(change, revocations.c.serial),
        key_uid=key.uid,
        key_id=key.key_id,
        up_to_version=key.latest_version,
        reason=reason,
        revoked_at=begins_at(change, now),
        compromised_at=compromised_at,
    )
    enter(change, made)
    if key.former_id:  # what it has signed goes by that id, and so does whoever asks the list about it
        enter(change, replace(made, serial=next_serial(change, revocations.c.serial), key_id=key.former_id))
    outbox.emit(change, events.key_revoked(key, made))
    if reason.leads_to in {KeyState.COMPROMISED, KeyState.DEACTIVATED} and key.next_rotation_at is not None:
        key = change.replace(key, replace(key, next_rotation_at=None))
    return key


def revoke_again(change: Change, key: Key, now: datetime) -> None:
    """Apply to a key that was restored from a backup the revocations that were made after that backup."""
    made = change.select(Revocation, revocations.c.key_uid == key.uid, order_by=revocations.c.serial)
    entries = in_force(made)
    if any(entry.reason is not RevocationReason.CERTIFICATE_HOLD for entry in entries):
        key = change.replace(key, replace(key, next_rotation_at=None))
    for entry in entries:
        covers_latest = entry.up_to_version >= key.latest_version  # and with it what waits to come after that
        for version in change.versions(key):
            if version.version <= entry.up_to_version or (covers_latest and version.version > key.latest_version):
                after = _revoked(version, entry.reason, now, is_latest=version.version == key.latest_version)
                if after is not version:
                    change.replace(version, after)


def publish_under_its_id(change: Change, key: Key) -> None:
    """Repeat entries of `key` that are listed under another id only under its current id, so that they are found."""
    made = change.select(Revocation, revocations.c.key_uid == key.uid, order_by=revocations.c.serial)
    entries = in_force(made)
    listed = {_without_id(entry) for entry in entries if entry.key_id == key.key_id}
    for entry in entries:
        if _without_id(entry) not in listed:
            listed.add(_without_id(entry))
            serial = next_serial(change, revocations.c.serial)
            enter_copy(change, replace(entry, serial=serial, key_id=key.key_id), of=entry)


def _without_id(entry: Revocation) -> tuple[int, RevocationReason, datetime]:
    return entry.up_to_version, entry.reason, entry.revoked_at


def highest_revoked(change: Change, uid: bytes) -> int:
    """The highest version of the key `uid` that is revoked, 0 if none is."""
    made = change.select(Revocation, revocations.c.key_uid == uid, order_by=revocations.c.serial)
    return max((entry.up_to_version for entry in in_force(made)), default=0)


def _revoked(version: KeyVersion, reason: RevocationReason, now: datetime, *, is_latest: bool) -> KeyVersion:
    """`version` after a revocation, the same object where it changes nothing."""
    state, goal = effective_state(version, now), reason.leads_to
    if goal is KeyState.COMPROMISED:
        settled = state in {KeyState.COMPROMISED, KeyState.DESTROYED}
        return version if settled else move(version, goal, now, reason)
    if goal is KeyState.DEACTIVATED:
        if state is KeyState.PRE_ACTIVATION:
            version = move(version, KeyState.ACTIVE, now)
        if state in {KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED}:
            return move(version, goal, now, reason)
        if state is KeyState.DEACTIVATED and version.revocation_reason is None:
            return replace(version, state=goal, revocation_reason=reason, changed_at=now)
        return version
    if not is_latest or state is goal is KeyState.SUSPENDED:
        return version  # older versions follow the latest: a key on hold is refused as a whole
    if goal is KeyState.ACTIVE:
        if state is not KeyState.SUSPENDED:
            raise KeyStateConflict(f"The key is {state}, not on hold; there is nothing to lift.")
        return move(version, goal, now)
    return move(version, goal, now, reason)
