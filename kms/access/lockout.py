"""Failed logins lock a client out, from the place they came from, for longer and longer.

The count is kept in the database, so it is exact over workers and nodes. It exists alike for clients that do
not exist. A lock stops logins only: sessions that the client has go on, and other clients are not touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from sqlalchemy import delete, insert, select, update

from kms.errors import RateLimited
from kms.vault.records import microseconds
from kms.vault.store import Change
from kms.vault.tables import login_failures

_FORGOTTEN_AFTER = timedelta(hours=1)
_MICROSECONDS = 1_000_000


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


def require_unlocked(change: Change, client_id: str, source: str, now: datetime) -> None:
    """Raise RateLimited while `client_id` is locked for `source`."""
    moment = microseconds(now)
    locked_until = 0
    for subject, _ in _subjects(change, client_id, source):
        query = select(login_failures.c.locked_until).where(login_failures.c.subject == subject)
        locked_until = max(locked_until, change.connection.execute(query).scalar() or 0)
    if locked_until > moment:
        seconds = -((moment - locked_until) // _MICROSECONDS)
        raise RateLimited("Too many failed attempts. Wait before the next one.", retry_after=seconds)


def count_failure(change: Change, client_id: str, source: str, now: datetime) -> None:
    """Count one failed attempt."""
    moment = microseconds(now)
    for subject, scope in _subjects(change, client_id, source):
        row = change.connection.execute(
            select(login_failures.c.failures, login_failures.c.last_at).where(login_failures.c.subject == subject)
        ).first()
        recent = row is not None and row.last_at > microseconds(now - _FORGOTTEN_AFTER)
        failures = row.failures + 1 if row is not None and recent else 1
        values = {
            "failures": failures,
            "last_at": moment,
            "locked_until": moment + scope.lock_seconds(failures) * _MICROSECONDS,
        }
        if row is None:
            change.connection.execute(insert(login_failures).values(subject=subject, **values))
        else:
            change.connection.execute(
                update(login_failures).where(login_failures.c.subject == subject).values(values)
            )


def forgive(change: Change, client_id: str, source: str) -> None:
    """Forget the failures from `source` after a success there."""
    subject, _ = _subjects(change, client_id, source)[0]
    change.connection.execute(delete(login_failures).where(login_failures.c.subject == subject))


def forget_old(change: Change, now: datetime) -> None:
    """Remove counts that no longer matter, so that made-up names do not fill the table."""
    change.connection.execute(
        delete(login_failures).where(login_failures.c.last_at < microseconds(now - _FORGOTTEN_AFTER))
    )


def network_of(source: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 that one IPv6 host can choose addresses from."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, 64), strict=False))
    return source


def _subjects(change: Change, client_id: str, source: str) -> list[tuple[bytes, _Scope]]:
    def hashed(*parts: str) -> bytes:
        return change.keyring.credential_hash("login", *(part.encode("utf-8", "surrogateescape") for part in parts))

    return [
        (hashed(client_id, network_of(source)), _FROM_ONE_SOURCE),
        (hashed(client_id), _FROM_EVERYWHERE),
    ]
