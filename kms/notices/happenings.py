"""Events that are not changes of the vault, such as a refused use: kept in memory, and written to the outbox soon.

Noting one costs only a look-up in memory. The same event is reported at most once an hour.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from kms.access import clients
from kms.access.model import ClientStatus
from kms.clock import Clock
from kms.errors import IntegrityFailure, Refusal
from kms.keys.model import KeyState, KeyVersion
from kms.notices import events
from kms.notices.deliver import PAUSES, Deliveries
from kms.notices.model import Event, Notice
from kms.notices.outbox import Occurrence, delivery_of, emit, is_for, subscribed
from kms.vault import tables
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_MOST_WAITING = 1000
_MOST_REMEMBERED = 10_000
_ATTEMPTS = 5  # the pauses after them add up to more than an hour

Look = Callable[[Snapshot], Occurrence | None]
"""Says what is to be told; None where that is nothing after all."""


@dataclass(frozen=True)
class _Alarm:
    """An event that is sent even if the database cannot be written. `told` are the subscriptions that received it."""

    occurrence: Occurrence
    next_attempt_at: datetime
    attempts: int = 0
    told: frozenset[str] = frozenset()


class Happenings:
    """What this worker has seen and not told yet. `node` is what this host is called."""

    def __init__(self, vault: Vault, clock: Clock, deliveries: Deliveries, node: str) -> None:
        self._vault = vault
        self._clock = clock
        self._deliveries = deliveries
        self._node = node
        self._waiting: dict[tuple[Event, str], Look] = {}
        self._seen: OrderedDict[tuple[Event, str], int] = OrderedDict()
        self._alarms: deque[_Alarm] = deque()

    def refused_as_revoked(self, key_id: str, version: int | None, client_id: str, operation: str) -> None:
        """The use of a revoked key was refused; it is told where that was revoked for compromise."""
        now = self._clock()

        def look(snapshot: Snapshot) -> Occurrence | None:
            key = snapshot.key_by_id(key_id)
            found = snapshot.find(KeyVersion, key.uid, version or key.latest_version) if key is not None else None
            if key is None or found is None or found.state is not KeyState.COMPROMISED:
                return None
            return events.key_used_after_compromise(key, found.version, client_id, operation, now)

        self._note((Event.KEY_USED_AFTER_COMPROMISE, key_id), look, now)

    def locked_out(self, client_id: str, source: str, until: datetime) -> None:
        """Failed log-ins have locked somebody out; it is told where there is such a client."""
        now = self._clock()

        def look(snapshot: Snapshot) -> Occurrence | None:
            client = clients.find(snapshot, client_id)
            if client is None or client.status is ClientStatus.DELETED:
                return None
            return events.login_locked(client_id, source, until, now)

        self._note((Event.LOGIN_LOCKED, client_id), look, now)

    def distrusted(self, reason: str) -> None:
        """The database is not what the service wrote."""
        now = self._clock()
        self._alarms.append(_Alarm(events.vault_integrity(self._node, reason, now), now))

    def stalled(self, reason: str) -> None:
        """The audit log cannot be written."""
        now = self._clock()
        self._alarms.append(_Alarm(events.audit_stalled(self._node, reason, now), now))

    def _note(self, what: tuple[Event, str], look: Look, now: datetime) -> None:
        hour = events.hour_of(now)
        if self._seen.get(what) == hour or len(self._waiting) >= _MOST_WAITING:
            return
        self._seen[what] = hour
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        self._waiting[what] = look

    def write(self) -> None:
        """Write what was seen into the outbox. Raises Refusal, and then keeps it."""
        taken = dict(self._waiting)  # others add to it meanwhile
        if not taken:
            return
        with self._vault.read() as snapshot:
            found = [occurrence for look in taken.values() if (occurrence := look(snapshot)) is not None]
            found = [occurrence for occurrence in found if subscribed(snapshot, occurrence)]
        if found:
            with self._vault.change() as change:
                for occurrence in found:
                    emit(change, occurrence)
        for what in taken:
            del self._waiting[what]

    def sound_alarms(self) -> None:
        """Tell what says that the service does not work: by the outbox, and where that cannot be written directly.

        Without the outbox it is tried for about an hour, by this process alone. Raises Unavailable where not even
        subscriptions can be read.
        """
        for _ in range(len(self._alarms)):  # others add to it meanwhile
            left = self._sounded(self._alarms[0])
            self._alarms.popleft()
            if left is not None:
                self._alarms.append(left)

    def _sounded(self, alarm: _Alarm) -> _Alarm | None:
        """What is left of an alarm after another attempt."""
        now = self._clock()
        if alarm.attempts == 0 and self._is_written(alarm.occurrence):
            return None
        if timedelta() < alarm.next_attempt_at - now <= PAUSES[_ATTEMPTS - 1]:  # a clock can be set back
            return alarm
        with self._vault.read() as snapshot:
            found = _subscribed_of_those_left(snapshot, alarm.occurrence)
        missing = [notice for notice in found if notice.notice_id not in alarm.told]
        told = alarm.told | {each.notice_id for each in missing if self._is_sent(each, alarm.occurrence)}
        if len(told) == len(alarm.told) + len(missing) or alarm.attempts >= _ATTEMPTS:
            return None
        pause = PAUSES[alarm.attempts]
        return replace(alarm, next_attempt_at=now + pause, attempts=alarm.attempts + 1, told=told)

    def _is_sent(self, notice: Notice, occurrence: Occurrence) -> bool:
        """Whether the receiver has it now."""
        delivery = delivery_of(self._vault.derived_keys, notice, occurrence)
        try:
            fault = self._deliveries.send_directly(notice, delivery).fault
        except Refusal as refusal:
            fault = refusal.detail
        if fault:
            structlog.get_logger().warning("an alarm was not delivered", notice_id=notice.notice_id, reason=fault)
        return not fault

    def _is_written(self, occurrence: Occurrence) -> bool:
        """Whether the outbox has it now."""
        try:
            with self._vault.change() as change:
                emit(change, occurrence)
        except Refusal:
            return False
        return True


def _subscribed_of_those_left(snapshot: Snapshot, occurrence: Occurrence) -> list[Notice]:
    """As `subscribed`, passing over rows that were altered: others are still to be told of just that."""
    try:
        return subscribed(snapshot, occurrence)
    except IntegrityFailure:
        found = []
        for (notice_id,) in snapshot.connection.execute(select(tables.notices.c.notice_id)).all():
            with suppress(IntegrityFailure):
                notice = snapshot.find(Notice, notice_id)
                if notice is not None and notice.every_owner and is_for(notice, occurrence):
                    found.append(notice)
        return found
