"""Notices that a key expires soon: 30, 7 and 1 days before, each once, over all workers and nodes.

For each number of days a mark stores up to which time of expiry the notices were written. It moves in the same
transaction that writes them, so that none is sent twice or left out, even after the service was down. A version that
was made later than, say, 30 days before its expiry gets only the later notices.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, func, or_, select

from kms.keys.model import KeyState
from kms.notices import events, outbox
from kms.notices.model import ExpiryMark
from kms.operations.core.service import Service
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.transaction import Snapshot

_AHEAD = ((1, 0), (7, 1), (30, 7))
"""How many days ahead, and how many the next notice is: who is late is told the latter alone."""
_KEYS_AT_ONCE = 200
_PAUSE_SECONDS = 0.01
_BEHIND_AT_MOST = timedelta(minutes=10)
_CLOCK_AHEAD = timedelta(days=1)
_LAST = b"\xff" * 16
_IN_USE = (KeyState.PRE_ACTIVATION, KeyState.ACTIVE, KeyState.SUSPENDED)


def announce_expiring_keys(service: Service, now: datetime) -> None:
    """Write what is to be told about keys that expire soon. Raises Refusal."""
    with service.vault.read() as snapshot:
        due = [(days, closer) for days, closer in _AHEAD if _is_due(snapshot, days, closer, now)]
    for days, closer in due:
        while _announce_some(service, days, closer, now):
            time.sleep(_PAUSE_SECONDS)


def _is_due(snapshot: Snapshot, days: int, closer: int, now: datetime) -> bool:
    """Whether there is anything to tell, or the mark is so far behind that it has to move on anyway."""
    mark = snapshot.find(ExpiryMark, days)
    found = snapshot.connection.execute(_expiring(_begin(mark, days, closer, now), days, now).limit(1))
    # At different times, so that the workers do not all do it at once.
    behind = _BEHIND_AT_MOST * random.uniform(1, 2)  # noqa: S311
    end = now + timedelta(days=days)
    return found.first() is not None or mark is None or not end - behind < mark.until <= end + _CLOCK_AHEAD


def _announce_some(service: Service, days: int, closer: int, now: datetime) -> bool:
    """Tell of the next few keys, and say whether there may be more."""
    with service.vault.change() as change:
        before = change.find(ExpiryMark, days)
        begin = _begin(before, days, closer, now)
        rows = change.connection.execute(_expiring(begin, days, now).limit(_KEYS_AT_ONCE)).all()
        _tell(change, [bytes(row[0]) for row in rows], days, now)
        is_all = len(rows) < _KEYS_AT_ONCE
        after = ExpiryMark(days, now + timedelta(days=days), _LAST)
        if not is_all:
            uid, expires_at = rows[-1]
            after = ExpiryMark(days, datetime.fromtimestamp(0, UTC) + timedelta(microseconds=expires_at), bytes(uid))
        if before is None:
            change.insert(after)
        else:
            change.replace(before, after)
    return not is_all


def _tell(change: Change, uids: Sequence[bytes], days: int, now: datetime) -> None:
    if uids:
        found = {key.uid: (key, version) for key, version in change.keys_with_latest(tables.keys.c.uid.in_(uids))}
        for uid in uids:
            outbox.emit(change, events.key_expiring(*found[uid], days, now))


def _begin(mark: ExpiryMark | None, days: int, closer: int, now: datetime) -> ExpiryMark:
    """From where on keys are to be told of."""
    nearest = ExpiryMark(days, now + timedelta(days=closer), _LAST)
    end = now + timedelta(days=days)
    if mark is None or mark.until > end + _CLOCK_AHEAD:  # a clock moved it that was ahead
        return nearest if mark is None else ExpiryMark(days, end, _LAST)
    return max(mark, nearest, key=lambda each: each.until)


def _expiring(begin: ExpiryMark, days: int, now: datetime) -> Select[Any]:
    """Keys whose latest version expires after `begin` and within so many days, in that order.

    Not those that will be rotated before, by themselves; nor those that were made with fewer days.
    """
    keys, versions = tables.keys.c, tables.key_versions.c
    latest = and_(versions.key_uid == keys.uid, versions.version == keys.latest_version)
    rotates_at = func.coalesce(keys.next_rotation_at, 0)
    after, end = microseconds(begin.until), microseconds(now + timedelta(days=days))
    return (
        select(versions.key_uid, versions.expires_at)
        .select_from(tables.key_versions.join(tables.keys, latest))
        .where(
            versions.expires_at.between(after, end),
            or_(versions.expires_at > after, versions.key_uid > begin.key_uid),
            versions.created_at < versions.expires_at - days * 86_400_000_000,
            versions.state.in_(_IN_USE),
            # By functions, so that nobody takes the indexes of these columns, which most keys are in.
            func.coalesce(keys.deletion_at, 0) == 0,
            or_(rotates_at <= microseconds(now), rotates_at > versions.expires_at),
        )
        .order_by(versions.expires_at, versions.key_uid)
    )
