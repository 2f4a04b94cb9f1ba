"""The times of revocations and of lists, where the clocks of nodes differ.

A list that was made at some time says that it has every revocation that began before. Two rules keep that true where
clocks differ by less than CLOCKS_DIFFER_BY: an entry never begins before those that the list has already, and a full
hour is signed only once it is over on each of the clocks. A time that lies further ahead was made by a clock that was
wrong, and is nothing to go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from kms.revocation.model import Revocation
from kms.vault.change import Change
from kms.vault.tables import revocations

CLOCKS_DIFFER_BY = timedelta(minutes=1)
PERIOD = timedelta(hours=1)
NEWEST = 16
"""So many entries are looked at, since a copy or what a restore puts in force again has the time of its first."""


def begins_at(change: Change, now: datetime) -> datetime:
    """When a revocation that is made in `change` at `now` begins."""
    if _known not in change.memo:
        change.memo[_known] = change.select(Revocation, order_by=revocations.c.serial.desc(), limit=NEWEST)
    return max([now, *_before(change.memo[_known], now)])


def last_hour(now: datetime) -> datetime:
    """The newest full hour that is over on each of the clocks."""
    seconds = int(PERIOD.total_seconds())
    return datetime.fromtimestamp(int((now - CLOCKS_DIFFER_BY).timestamp()) // seconds * seconds, UTC)


def issued_at(newest: Sequence[Revocation], now: datetime) -> datetime:
    """The time up to which a list with these `newest` entries, made at `now`, has every revocation."""
    return max([last_hour(now), *_before(newest, now)])


def _before(entries: Sequence[Revocation], now: datetime) -> list[datetime]:
    return [entry.revoked_at for entry in entries if entry.revoked_at <= now + CLOCKS_DIFFER_BY]


_known = object()
