"""Lockout: failed log-ins block further log-ins of the client from the same network, each time for longer.

The count is kept in the database, so it is exact over workers and nodes. It exists alike for clients that do
not exist. A lock stops logins only: sessions that the client has go on, and other clients are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from sqlalchemy import ColumnElement

from kms.errors import RateLimited
from kms.vault.change import Change
from kms.vault.records import microseconds, stored_in
from kms.vault.tables import login_failures
from kms.vault.transaction import Snapshot

LockedOut = Callable[[str, str, datetime], None]
"""Told of the client, the source address, and until when that is locked out."""

_FORGOTTEN_AFTER = timedelta(hours=1)
_LIFTED_AT_ONCE = 500
_TOO_MANY = "Too many failed attempts. Wait before the next one."


@dataclass(frozen=True)
class _Scope:
    """`free` failures cost nothing; each further one doubles the lock, from a second up to `longest`."""

    free: int
    longest: int

    def lock_seconds(self, failures: int) -> int:
        over = failures - self.free
        return 0 if over <= 0 else min(2 ** min(over - 1, 30), self.longest)


# From one place guessing stops soon. Over all places together a thief of the secret is held to one guess of
# the code a minute, and a stranger who only wants to lock the client out keeps it waiting no longer than that.
_FROM_ONE_SOURCE = _Scope(free=5, longest=900)
_FROM_EVERYWHERE = _Scope(free=50, longest=60)


@stored_in(login_failures)
@dataclass(frozen=True, slots=True)
class LoginFailures:
    """Failed attempts of one subject: a keyed hash of a client id and, in one of the two counts, a place."""

    subject: bytes
    failures: int
    last_at: datetime
    locked_until: datetime


def require_unlocked(change: Change, client_id: str, source: str, now: datetime) -> RateLimited | None:
    """Raise RateLimited while `client_id` is locked for `source`.

    A lock that ends later than it could if it had begun now was made by a clock that was ahead: it begins now. Then
    the refusal is given back, to be raised once the change is kept.
    """
    wait, is_changed = timedelta(), False
    for subject, scope in _subjects(change, client_id, source):
        count = change.find(LoginFailures, subject)
        if count is None:
            continue
        latest = now + timedelta(seconds=scope.longest)
        if count.locked_until > latest or count.last_at > latest:
            until = min(count.locked_until, latest)
            count = change.replace(count, replace(count, last_at=min(count.last_at, now), locked_until=until))
            is_changed = True
        wait = max(wait, count.locked_until - now)
    if wait <= timedelta():
        return None
    seconds = ceil(wait.total_seconds())
    refusal = RateLimited(_TOO_MANY, retry_after=seconds)
    if not is_changed:
        raise refusal
    return refusal


def require_not_locked(snapshot: Snapshot, subject: str, source: str, now: datetime) -> None:
    """As `require_unlocked`, for proofs that nobody can guess: nothing is written, and many may be tried at once."""
    for hashed, scope in _subjects(snapshot, subject, source):
        count = snapshot.find(LoginFailures, hashed)
        if count is None:
            continue
        wait = min(count.locked_until, now + timedelta(seconds=scope.longest)) - now
        if wait > timedelta():
            raise RateLimited(_TOO_MANY, retry_after=ceil(wait.total_seconds()))


def count_failure(change: Change, client_id: str, source: str, now: datetime) -> datetime | None:
    """Count one failed attempt, and give until when that locks the client out, if it does."""
    locked = now
    for subject, scope in _subjects(change, client_id, source):
        before = change.find(LoginFailures, subject)
        recent = before is not None and before.last_at > now - _FORGOTTEN_AFTER
        failures = before.failures + 1 if before is not None and recent else 1
        locked_until = now + timedelta(seconds=scope.lock_seconds(failures))
        locked = max(locked, locked_until)
        after = LoginFailures(subject, failures, now, locked_until)
        if before is None:
            change.insert(after)
        else:
            change.replace(before, after)
    return locked if locked > now else None


def forgive(change: Change, client_id: str, source: str) -> None:
    """Forget the failures from `source` after a success there."""
    subject, _ = _subjects(change, client_id, source)[0]
    found = change.find(LoginFailures, subject)
    if found is not None:
        change.delete(found)


def lift_all(change: Change, now: datetime) -> None:
    """Forget every count that locks somebody out at `now`.

    A count has only a keyed hash of its client and place, so those of one client cannot be told from the others.
    """
    while found := change.select(LoginFailures, locked_at(now), limit=_LIFTED_AT_ONCE):
        change.delete(*found)


def locked_at(now: datetime) -> ColumnElement[bool]:
    """Which counts lock somebody out at `now`, as a criterion."""
    return login_failures.c.locked_until > microseconds(now)


def forgotten(change: Change, now: datetime, limit: int) -> list[LoginFailures]:
    """Up to `limit` counts that no longer matter: made-up names must not fill the table."""
    old = login_failures.c.last_at < microseconds(now - _FORGOTTEN_AFTER)
    return change.select(LoginFailures, old, limit=limit)


def network_of(source: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 host can choose addresses from."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return source


def _subjects(snapshot: Snapshot, client_id: str, source: str) -> list[tuple[bytes, _Scope]]:
    def hashed(*parts: str) -> bytes:
        return snapshot.derived_keys.credential_hash(
            "login", *(part.encode("utf-8", "surrogateescape") for part in parts)
        )

    return [
        (hashed(client_id, network_of(source)), _FROM_ONE_SOURCE),
        (hashed(client_id), _FROM_EVERYWHERE),
    ]
