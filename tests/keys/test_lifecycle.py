"""The state machine of SP 800-57 part 1 rev. 5, section 7."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.errors import KeyExpired, KeyRevoked, KeyStateConflict, Refusal
from kms.keys.lifecycle import TRANSITIONS, effective_state, move, require_usable
from kms.keys.model import KeyState, KeyVersion, RevocationReason, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)

# Written down a second time, from the standard: the pairs that its figure 3 connects.
STANDARD = {
    ("pre-activation", "destroyed"), ("pre-activation", "compromised"), ("pre-activation", "active"),
    ("active", "destroyed"), ("active", "compromised"), ("active", "suspended"), ("active", "deactivated"),
    ("suspended", "destroyed"), ("suspended", "active"), ("suspended", "compromised"), ("suspended", "deactivated"),
    ("deactivated", "destroyed"), ("deactivated", "compromised"), ("compromised", "destroyed"),
}  # fmt: skip


def version(state: KeyState = KeyState.ACTIVE, **changes: object) -> KeyVersion:
    values: dict[str, object] = {
        "key_uid": b"u" * 16,
        "version": 1,
        "type": "xaes-256-gcm",
        "state": state,
        "created_at": NOW,
        "activate_at": NOW,
        "expires_at": NOW + timedelta(days=1),
        "process_until": NOW + timedelta(days=2),
        "material": b"sealed",
        **changes,
    }
    return KeyVersion(**values)  # type: ignore[arg-type]


def test_the_table_is_that_of_the_standard() -> None:
    assert {(str(a), str(b)) for a, targets in TRANSITIONS.items() for b in targets} == STANDARD
    assert set(TRANSITIONS) == set(KeyState)


@given(st.lists(st.sampled_from(KeyState), max_size=12))
def test_only_transitions_of_the_standard_succeed(targets: list[KeyState]) -> None:
    current = version(KeyState.PRE_ACTIVATION, activate_at=NOW + timedelta(hours=1))
    for target in targets:
        before = current.state
        if (str(before), str(target)) in STANDARD:
            current = move(current, target, NOW)
            assert current.state is target
        else:
            with pytest.raises(KeyStateConflict):
                move(current, target, NOW)
    assert (current.material is None) == (current.state is KeyState.DESTROYED)


@given(
    st.sampled_from(KeyState), st.sampled_from(Usage), st.integers(-1, 3), st.sampled_from([None, *RevocationReason])
)
def test_what_may_be_used_follows_from_state_and_time(
    state: KeyState, usage: Usage, days: int, reason: RevocationReason | None
) -> None:
    now = NOW + timedelta(days=days)
    each = version(state, revocation_reason=reason)
    in_force = effective_state(each, now)
    allowed = (in_force is KeyState.ACTIVE or (in_force is KeyState.DEACTIVATED and not usage.protects)) and days < 2
    try:
        require_usable(each, usage, now)
    except Refusal:
        assert not allowed
    else:
        assert allowed


def test_the_cryptoperiod_ends_by_itself() -> None:
    each = version()
    for day, usable_to_encrypt, usable_to_decrypt in ((0, True, True), (1, False, True), (2, False, False)):
        now = NOW + timedelta(days=day)
        for usage, usable in ((Usage.ENCRYPT, usable_to_encrypt), (Usage.DECRYPT, usable_to_decrypt)):
            if usable:
                require_usable(each, usage, now)
            else:
                with pytest.raises(KeyExpired):
                    require_usable(each, usage, now)


def test_activation_dates_act_by_themselves() -> None:
    each = version(KeyState.PRE_ACTIVATION, activate_at=NOW + timedelta(hours=1))
    with pytest.raises(KeyStateConflict):
        require_usable(each, Usage.ENCRYPT, NOW)
    require_usable(each, Usage.ENCRYPT, NOW + timedelta(hours=1))


def test_a_compromised_version_is_refused_everything() -> None:
    for usage in Usage:
        with pytest.raises(KeyRevoked):
            require_usable(version(KeyState.COMPROMISED), usage, NOW)


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("unspecified", "compromised"), ("keyCompromise", "compromised"), ("cACompromise", "compromised"),
        ("aACompromise", "compromised"), ("affiliationChanged", "deactivated"), ("superseded", "deactivated"),
        ("cessationOfOperation", "deactivated"), ("privilegeWithdrawn", "deactivated"),
        ("certificateHold", "suspended"), ("removeFromCRL", "active"),
    ],
)  # fmt: skip
def test_each_reason_of_rfc_5280_has_its_effect(reason: str, state: str) -> None:
    assert RevocationReason(reason).leads_to == state
