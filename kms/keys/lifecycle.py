"""The state machine of SP 800-57 part 1 rev. 5, section 7, and what each state allows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kms.clock import rfc3339
from kms.errors import KeyExpired, KeyRevoked, KeyStateConflict, OperationNotSupported, ValidationFailed
from kms.keys.model import ExternalMaterial, Key, KeyState, KeyVersion, RevocationReason, Usage

TRANSITIONS: dict[KeyState, frozenset[KeyState]] = {
    KeyState.PRE_ACTIVATION: frozenset({KeyState.ACTIVE, KeyState.DESTROYED, KeyState.COMPROMISED}),  # 2 3 4
    KeyState.ACTIVE: frozenset(
        {KeyState.DESTROYED, KeyState.COMPROMISED, KeyState.SUSPENDED, KeyState.DEACTIVATED}  # 5 6 7 8
    ),
    KeyState.SUSPENDED: frozenset(
        {KeyState.DESTROYED, KeyState.ACTIVE, KeyState.COMPROMISED, KeyState.DEACTIVATED}  # 9 10 11 12
    ),
    KeyState.DEACTIVATED: frozenset({KeyState.DESTROYED, KeyState.COMPROMISED}),  # 13 14
    KeyState.COMPROMISED: frozenset({KeyState.DESTROYED}),  # 15
    KeyState.DESTROYED: frozenset(),
}
"""From each state to each state it may become; the numbers are those of the standard's transitions."""


def move(version: KeyVersion, to: KeyState, at: datetime, reason: RevocationReason | None = None) -> KeyVersion:
    """`version` in state `to`, entered at `at`; destroying it drops its material.

    Raises KeyStateConflict where the standard's table has no such transition.
    """
    now_in = effective_state(version, at)
    if to not in TRANSITIONS[now_in]:
        raise KeyStateConflict(f"Version {version.version} is {now_in} and cannot become {to}.")
    return replace(
        version,
        state=to,
        changed_at=at,
        revocation_reason=reason,
        material=None if to is KeyState.DESTROYED else version.material,
    )


def effective_state(version: KeyVersion, now: datetime) -> KeyState:
    """The state of `version` at `now`, after its activation date and the end of its originator-usage period.

    A version whose external material is missing is not active.
    """
    state = version.state
    if awaits_material(version, now) and state in {KeyState.PRE_ACTIVATION, KeyState.ACTIVE}:
        return KeyState.PRE_ACTIVATION
    if state is KeyState.PRE_ACTIVATION and version.activate_at <= now:
        state = KeyState.ACTIVE
    if state is KeyState.ACTIVE and version.expires_at <= now:
        state = KeyState.DEACTIVATED
    return state


def awaits_material(version: KeyVersion, now: datetime) -> bool:
    """Whether `version` has external material that was not imported yet, was removed, or has expired."""
    if version.material_until is not None and version.material_until <= now:
        return True
    return version.material is None and version.public_key is None and version.state is not KeyState.DESTROYED


def external_material(version: KeyVersion, now: datetime) -> ExternalMaterial | None:
    """Whether the external material of `version` is present; None for a version without external material."""
    if version.fingerprint is None:
        return ExternalMaterial.AWAITED if awaits_material(version, now) else None
    return ExternalMaterial.GONE if awaits_material(version, now) else ExternalMaterial.PRESENT


def in_force_until(version: KeyVersion, now: datetime) -> datetime:
    """Until when the uses of `version` that are allowed at `now` stay the same, if nobody changes anything."""
    until = version.process_until
    if effective_state(version, now) is KeyState.ACTIVE:
        until = min(version.expires_at, until)
    return until if version.material_until is None else min(until, version.material_until)


def require_usage(key: Key, usage: Usage) -> None:
    """Raise OperationNotSupported unless `key` was made for `usage`."""
    if usage not in key.usages:
        made_for = ", ".join(sorted(key.usages))
        raise OperationNotSupported(f"{key.key_id} is a key of type {key.type} for {made_for}, not for {usage}.")


def require_in_range(key: Key, version: int, usage: Usage) -> None:
    """Return if the key as a whole allows version number `version` for `usage`; the version itself is not looked at.

    Raises ValidationFailed if there never was such a version, and KeyStateConflict if the key is about to be deleted,
    or the version was trimmed or is below the key's lowest version for the usage.
    """
    if key.deletion_at is not None:
        raise KeyStateConflict(f"{key.key_id} will be deleted at {rfc3339(key.deletion_at)}. Cancel that first.")
    if not 1 <= version <= key.latest_version:
        raise ValidationFailed(f"version: {key.key_id} has versions 1 to {key.latest_version}.")
    if version < key.oldest_version:
        raise KeyStateConflict(f"Version {version} of {key.key_id} was trimmed away.")
    lowest = key.min_protect_version if usage.protects else key.min_process_version
    if version < lowest:
        raise KeyStateConflict(f"{key.key_id} allows this from version {lowest} on, not with version {version}.")


def require_in_force(
    key: Key, version: KeyVersion, latest: KeyVersion, usage: Usage, now: datetime, *, recovering: bool = False
) -> None:
    """Return if `version` of `key` may be used for `usage` at `now`; `latest` is the key's latest version.

    `require_in_range` is checked separately. If the latest version is suspended, the whole key is. Raises what
    `require_usable` raises.
    """
    if version.version != latest.version and effective_state(latest, now) is KeyState.SUSPENDED:
        raise KeyStateConflict(f"{key.key_id} is suspended. Resume it first.")
    require_usable(version, usage, now, recovering=recovering)


def require_usable(version: KeyVersion, usage: Usage, now: datetime, *, recovering: bool = False) -> None:
    """Return if `version` may be used for `usage` at `now`.

    With `recovering` a compromised version may be used for processing; the caller must have checked the permission.
    Raises KeyRevoked, KeyExpired or KeyStateConflict; the detail says what to do.
    """
    state = effective_state(version, now)
    name = f"Version {version.version} of this key"
    if recovering and state is KeyState.COMPROMISED and not usage.protects:
        return
    if state is KeyState.COMPROMISED:
        raise KeyRevoked(f"{name} was revoked ({version.revocation_reason}). Generate a new version.")
    if awaits_material(version, now):
        raise KeyStateConflict(f"{name} waits for its material. Import that first.")
    if state not in {KeyState.ACTIVE, KeyState.DEACTIVATED}:
        advice = {
            KeyState.SUSPENDED: " Resume it first.",
            KeyState.PRE_ACTIVATION: f" It becomes active at {rfc3339(version.activate_at)}.",
        }
        raise KeyStateConflict(f"{name} is {state}.{advice.get(state, '')}")
    if now >= version.process_until:
        raise KeyExpired(f"The recipient-usage period of version {version.version} has ended.")
    if usage.protects and state is KeyState.DEACTIVATED:
        if version.revocation_reason is not None:
            raise KeyRevoked(f"{name} was revoked ({version.revocation_reason}); it only decrypts and verifies.")
        if now >= version.expires_at:
            raise KeyExpired(f"The cryptoperiod of version {version.version} has ended. Rotate the key.")
        raise KeyStateConflict(f"{name} is deactivated; it only decrypts and verifies.")
