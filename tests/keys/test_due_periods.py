"""What is due of a version, by the two periods of SP 800-57 part 1, section 5.3."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kms.keys.due_periods import Period, due_periods
from kms.keys.lifecycle import move
from kms.keys.model import Key, KeyState, KeyVersion, RevocationReason, Usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROTATE, DESTROY = Period.ORIGINATOR_USAGE, Period.RECIPIENT_USAGE
KEY = Key(
    uid=b"u" * 16,
    key_id="orders",
    type="xaes-256-gcm",
    owner="shop",
    usages=frozenset({Usage.ENCRYPT}),
    exportable=False,
    cryptoperiod=365 * DAY,
    rotation_period=None,
    next_rotation_at=None,
    latest_version=2,
    created_at=NOW,
)
VERSION = KeyVersion(
    key_uid=KEY.uid,
    version=2,
    type=KEY.type,
    state=KeyState.ACTIVE,
    created_at=NOW,
    activate_at=NOW,
    expires_at=NOW + 100 * DAY,
    process_until=NOW + 200 * DAY,
    material=b"sealed",
)


def due(at: int, key: Key = KEY, version: KeyVersion = VERSION, within: int = 30) -> dict[Period, bool]:
    """What is due on that day, and whether it is over."""
    found = due_periods(key, version, NOW + at * DAY, within * DAY)
    return {each.period: each.is_over for each in found}


def test_the_periods_of_a_latest_version() -> None:
    assert due(0) == {}
    assert due(69) == {}
    assert due(70) == due(99) == {ROTATE: False}
    assert due(100) == due(169) == {ROTATE: True}
    assert due(170) == {ROTATE: True, DESTROY: False}
    assert due(200) == due(5000) == {ROTATE: True, DESTROY: True}
    assert due(99, within=0) == {}
    assert due(100, within=0) == {ROTATE: True}


def test_who_rotates_by_itself_is_not_due() -> None:
    rotating = replace(KEY, next_rotation_at=NOW + 90 * DAY)
    assert due(80, rotating) == {}
    assert due(95, rotating) == {ROTATE: False}, "it should have rotated five days ago"
    assert due(80, replace(KEY, next_rotation_at=NOW + 101 * DAY)) == {ROTATE: False}, "a day too late"


def test_a_version_that_was_rotated_away_is_due_only_to_be_destroyed() -> None:
    older = replace(KEY, latest_version=3)
    rotated = replace(VERSION, state=KeyState.DEACTIVATED, changed_at=NOW)
    assert due(150, older, rotated) == {}
    assert due(170, older, rotated) == {DESTROY: False}
    assert due(200, older, rotated) == {DESTROY: True}
    assert due(200, older, replace(rotated, material=None)) == {}, "nothing is held"
    assert due(200, older, replace(rotated, material=None, public_key=b"der")) == {DESTROY: True}


@pytest.mark.parametrize(
    ("reason", "on_day_150", "on_day_200"),
    [
        (RevocationReason.SUPERSEDED, {}, {DESTROY: True}),
        (RevocationReason.KEY_COMPROMISE, {}, {DESTROY: True}),
        (RevocationReason.CERTIFICATE_HOLD, {ROTATE: True}, {ROTATE: True, DESTROY: True}),
    ],
)
def test_a_revoked_version_is_not_to_be_rotated(reason: RevocationReason, on_day_150: Any, on_day_200: Any) -> None:
    revoked = move(VERSION, reason.leads_to, NOW, None if reason is RevocationReason.CERTIFICATE_HOLD else reason)
    assert due(150, version=revoked) == on_day_150
    assert due(200, version=revoked) == on_day_200


def test_what_is_destroyed_or_will_be_deleted_is_not_due() -> None:
    assert due(200, version=move(VERSION, KeyState.DESTROYED, NOW)) == {}
    assert due(200, replace(KEY, deletion_at=NOW + 300 * DAY)) == {}


def test_each_advice_is_one_of_its_own() -> None:
    said = {each.advice for at in (70, 100, 170, 200) for each in due_periods(KEY, VERSION, NOW + at * DAY, 30 * DAY)}
    assert len(said) == 4
