"""Which periods of a key version are over, or soon will be, and were not answered by a rotation or a destruction.

SP 800-57 part 1 rev. 5, section 5.3: a cryptoperiod is the originator-usage period, in which a key protects data, and
the recipient-usage period, in which what it protected is processed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kms.enums import TextEnum
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyState, KeyVersion


class Period(TextEnum):
    """The two parts of a cryptoperiod."""

    ORIGINATOR_USAGE = "originator-usage"
    RECIPIENT_USAGE = "recipient-usage"


@dataclass(frozen=True, slots=True)
class DuePeriod:
    """A period that ended at `ends_at`, or will soon, and what SP 800-57 wants done then."""

    period: Period
    ends_at: datetime
    is_over: bool
    advice: str


_ROTATE = {
    False: "It will protect nothing after that. Rotate the key before, or give it a rotation period.",
    True: "It protects nothing any more, and no version took its place. Rotate the key, or delete it.",
}
_DESTROY = {
    False: "What it protected cannot be processed after that. Protect it again with the latest version before.",
    True: "Nothing can be processed with it any more, but its material is still held. Destroy it (section 8.3.4).",
}


def due_periods(key: Key, version: KeyVersion, now: datetime, within: timedelta) -> tuple[DuePeriod, ...]:
    """What is due of `version` at `now`, or will be `within` that time; nothing of a key that will be deleted."""
    return () if key.deletion_at is not None else tuple(_due(key, version, now, now + within))


def _due(key: Key, version: KeyVersion, now: datetime, end: datetime) -> Iterator[DuePeriod]:
    state = effective_state(version, now)
    if state is KeyState.DESTROYED:
        return
    is_latest = version.version == key.latest_version
    ended_by_itself = state is KeyState.DEACTIVATED and version.revocation_reason is None
    protects = state in {KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED} or ended_by_itself
    if is_latest and protects and version.expires_at <= end and not _rotates_before(key, version, now):
        is_over = version.expires_at <= now
        yield DuePeriod(Period.ORIGINATOR_USAGE, version.expires_at, is_over, _ROTATE[is_over])
    is_over = version.process_until <= now
    is_held = version.material is not None or version.public_key is not None
    is_used = state is not KeyState.COMPROMISED
    if is_held and version.process_until <= end and (is_over or is_used):
        yield DuePeriod(Period.RECIPIENT_USAGE, version.process_until, is_over, _DESTROY[is_over])


def _rotates_before(key: Key, version: KeyVersion, now: datetime) -> bool:
    """Whether the key will rotate by itself before that version expires; not if it should have done so already."""
    return key.next_rotation_at is not None and now < key.next_rotation_at <= version.expires_at
