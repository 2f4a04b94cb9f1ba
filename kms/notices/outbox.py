"""What happened becomes deliveries, one for each subscription that it is for, in the change that made it happen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import not_, select

from kms.access import scope
from kms.keys.model import Key
from kms.notices.model import Delivery, DeliveryState, Event, Notice, NoticeStatus
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.sealing import DerivedKeys
from kms.vault.transaction import Snapshot

_FORGOTTEN_AT_ONCE = 500
_KEPT = {DeliveryState.DELIVERED: timedelta(days=3), DeliveryState.DEAD: timedelta(days=30)}


@dataclass(frozen=True)
class Occurrence:
    """Something that happened `at` a moment, to `key` where it is about one.

    `identity` tells it from all others of its kind: what happens again with the same identity is the same, and is
    told once. `data` is what is told: no secrets, and times as RFC 3339.
    """

    event: Event
    at: datetime
    identity: tuple[str | int | bytes, ...]
    data: dict[str, Any]
    key: Key | None = None

    @property
    def owner(self) -> str:
        """Whose key it is about; empty where it is about none."""
        return self.key.owner if self.key is not None else ""


def emit(change: Change, occurrence: Occurrence) -> int:
    """Insert a delivery for every subscription to the event; they are sent once the change is committed.

    Returns the number of deliveries. If nobody subscribed, it costs two short reads per change and owner of keys.
    """
    made = []
    for notice in subscribed(change, occurrence):
        delivery = delivery_of(change.derived_keys, notice, occurrence)
        if change.find(Delivery, delivery.delivery_id) is None:
            made.append(delivery)
    change.insert(*made)
    return len(made)


def subscribed(snapshot: Snapshot, occurrence: Occurrence) -> list[Notice]:
    """The enabled subscriptions that this is for."""
    return [notice for notice in _of_owner(snapshot, occurrence.owner) if is_for(notice, occurrence)]


def is_for(notice: Notice, occurrence: Occurrence) -> bool:
    """Whether a subscription, of somebody whom it may concern, asks for that."""
    is_wanted = occurrence.event in notice.events and notice.status is NoticeStatus.ENABLED
    key = occurrence.key
    return is_wanted and (key is None or scope.matches(notice.key_pattern, key.key_id))


def _of_owner(snapshot: Snapshot, owner: str) -> list[Notice]:
    """The subscriptions that may be about keys of `owner`, or where that is empty about the service."""
    memo = snapshot.memo if isinstance(snapshot, Change) else {}
    asked = Notice, owner
    if asked not in memo:
        every = snapshot.matching(Notice, every_owner=True)
        own = snapshot.matching(Notice, client_id=owner) if owner else []
        memo[asked] = every + [each for each in own if not each.every_owner]
    found: list[Notice] = memo[asked]
    return found


def delivery_of(keys: DerivedKeys, notice: Notice, occurrence: Occurrence) -> Delivery:
    """The delivery of an event to a subscription, due at once. Its id is the same whoever makes it."""
    parts = (notice.notice_id, occurrence.event, *map(_text, occurrence.identity))
    return Delivery(
        delivery_id=keys.credential_hash("notice", *(part.encode() for part in parts))[:16].hex(),
        notice_id=notice.notice_id,
        event=occurrence.event,
        key_uid=occurrence.key.uid if occurrence.key is not None else None,
        owner=occurrence.owner,
        data=occurrence.data,
        created_at=occurrence.at,
        state=DeliveryState.WAITING,
        attempts=0,
        next_attempt_at=occurrence.at,
        last_fault="",
        settled_at=None,
    )


def _text(part: str | int | bytes) -> str:
    return part.hex() if isinstance(part, bytes) else str(part)


def forgotten(change: Change, now: datetime, limit: int) -> list[Delivery]:
    """Up to `limit` deliveries that nobody will ask about any more: delivered days ago, dead for a month, and those
    of subscriptions that there are no more.
    """
    column = tables.notice_outbox.c
    orphaned = column.notice_id.not_in(select(tables.notices.c.notice_id))
    found = change.select(Delivery, orphaned, limit=limit)
    for state, kept in _KEPT.items():
        old = column.state == state, column.settled_at < microseconds(now - kept), not_(orphaned)
        found += change.select(Delivery, *old, limit=limit - len(found))
    return found


def forget(change: Change, notice: Notice) -> None:
    """Remove a subscription, so that nothing more is sent to it, and so much of what was as one change should.

    The rest is for `forget_more`, or for whoever removes what is old.
    """
    change.delete(*change.matching(Delivery, notice_id=notice.notice_id, limit=_FORGOTTEN_AT_ONCE), notice)


def forget_more(change: Change, notice_id: str) -> bool:
    """Remove more of what was to be sent to a subscription that is no more; whether there may be still more."""
    found = change.matching(Delivery, notice_id=notice_id, limit=_FORGOTTEN_AT_ONCE)
    change.delete(*found)
    return len(found) == _FORGOTTEN_AT_ONCE


def forget_client(change: Change, client_id: str) -> None:
    """Remove every subscription of a client."""
    for notice in change.matching(Notice, client_id=client_id):
        forget(change, notice)
