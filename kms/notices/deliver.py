"""Sends the deliveries in the outbox, and repeats them on failure: at least once, by one worker at a time.

A worker claims a delivery by moving its due time ahead; if that worker dies, the delivery becomes due again. No
transaction is open during network access. Each subscription is served by one thread, so that a slow receiver delays
only its own notices.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from threading import Event as Flag
from threading import Lock, Thread

import structlog
from sqlalchemy import ColumnElement, func, or_, select

from kms.access import callers
from kms.access.circumstances import Circumstances
from kms.access.decision import may_see_key
from kms.access.model import Caller
from kms.access.policy import Permission, by_role
from kms.clock import Clock, steady_seconds
from kms.errors import AuthenticationFailed, Refusal
from kms.keys.model import Key
from kms.notices.model import Channel, Delivery, DeliveryState, Notice, NoticeStatus
from kms.notices.targets import Targets
from kms.notices.webhook import Outcome
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

PAUSES = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=12),
    timedelta(hours=24),
    timedelta(hours=24),
)
"""How long to wait after each failure; after one more a delivery is dead."""

LEASE = timedelta(seconds=90)
"""For how long a claim holds: longer than everything takes that is claimed at once."""

_WEBHOOKS_AT_ONCE = 5  # each takes ten seconds at the most
_MAILED_AT_ONCE = 500
_DROPPED_AT_ONCE = 500
_THREADS = 8
_SECONDS_TO_END = 2.0
_JITTER = 0.2
_REST, _LONGEST_REST = timedelta(seconds=5), timedelta(minutes=1)
_NO_DUE_DATE_AFTER = PAUSES[-1] * (1 + _JITTER) + LEASE
_DISABLED = "the subscription is disabled"
_GONE = "its receiver has answered 410 Gone"
_outbox = tables.notice_outbox.c


class Deliveries:
    """Sends what is due, for one worker. `count` is told of each delivery how it came on."""

    def __init__(
        self, vault: Vault, clock: Clock, targets: Targets, account: str, count: Callable[[str], None]
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._targets = targets
        self._account = account
        self._count = count
        self._stopping = Flag()
        self._lock = Lock()
        self._waiting: list[str] = []  # subscriptions that no thread has taken up yet
        self._active: set[str] = set()
        self._threads: list[Thread] = []
        self._paused: dict[str, tuple[datetime, int]] = {}

    def stop(self) -> None:
        """Begin nothing more, and wait a while for what is being sent."""
        self._stopping.set()
        ends = steady_seconds() + _SECONDS_TO_END
        for thread in self._threads:
            thread.join(timeout=max(0.0, ends - steady_seconds()))

    def deliver_due(self, *, and_wait: bool = False) -> None:
        """Begin to send everything that is due, and with `and_wait` return when that is done. Raises Refusal."""
        due = self._due(self._clock())
        with self._lock:
            self._waiting = [notice_id for notice_id in due if notice_id not in self._active]
            wanted = len(self._waiting)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(min(wanted, _THREADS - len(self._threads))):
            thread = Thread(target=self._send_waiting, name="notices", daemon=True)  # what it leaves is due again
            thread.start()
            self._threads.append(thread)
        if and_wait:
            for thread in self._threads:
                thread.join()

    def _send_waiting(self) -> None:
        """Take up one subscription after the other until none waits."""
        while not self._stopping.is_set():
            with self._lock:
                if not self._waiting:
                    return
                notice_id = self._waiting.pop()
                self._active.add(notice_id)
            try:
                self._send_all(notice_id)
            finally:
                with self._lock:
                    self._active.discard(notice_id)

    def send_directly(self, notice: Notice, delivery: Delivery) -> Outcome:
        """Send what is not in the outbox, if the holder of the subscription may know it."""
        with self._vault.read() as snapshot:
            if not self._may_know(_holder(snapshot, notice), delivery, None):
                return Outcome("its holder may not know this")
        return self._targets.send(self._vault.derived_keys, notice, [delivery], self._clock())

    def _due(self, now: datetime) -> list[str]:
        """The subscriptions to which something is due and that are not paused here."""
        query = select(_outbox.notice_id, func.min(_outbox.next_attempt_at)).where(or_(*_due_dates(now)))
        with self._vault.read() as snapshot:
            found = [row[0] for row in snapshot.connection.execute(query.group_by(_outbox.notice_id))]
        random.shuffle(found)
        return [notice_id for notice_id in found if not self._is_paused(notice_id, now)]

    def _is_paused(self, notice_id: str, now: datetime) -> bool:
        until, _ = self._paused.get(notice_id, (now, 0))
        return now < until <= now + _LONGEST_REST

    def _send_all(self, notice_id: str) -> None:
        """Send everything that is due to one subscription, up to the first failure."""
        try:
            while not self._stopping.is_set():
                notice, claimed = self._claim(notice_id)
                if notice is None:
                    return
                if claimed and not self._send_some(notice, claimed):
                    return
        except Refusal as refusal:
            structlog.get_logger().warning("notices put off", notice_id=notice_id, reason=refusal.detail)
        except Exception:  # noqa: BLE001  # nobody looks at the end of a thread
            structlog.get_logger().exception("notices not sent", notice_id=notice_id)
            self._pause(notice_id, self._clock())

    def _claim(self, notice_id: str) -> tuple[Notice | None, list[Delivery]]:
        """The subscription and what is due to it, claimed; None where nothing is. What may not be sent is removed."""
        now = self._clock()
        with self._vault.change() as change:
            notice = change.find(Notice, notice_id)
            limit = _DROPPED_AT_ONCE if notice is None else _at_once(notice)
            due: list[Delivery] = []
            for each in _due_dates(now):  # one after the other: together they would miss the index
                own = _outbox.notice_id == notice_id
                due = due or change.select(Delivery, own, each, order_by=_outbox.next_attempt_at, limit=limit)
            if notice is None or not due:
                change.delete(*due)
                return None, []
            if notice.status is NoticeStatus.DISABLED:
                change.replace_all([(each, _settled(each, DeliveryState.DEAD, _DISABLED, now)) for each in due])
                return notice, []
            holder = _holder(change, notice)
            told = [(each, self._may_know(holder, each, _key_of(change, each))) for each in due]
            change.delete(*(each for each, may in told if not may))
            ahead = [(each, replace(each, next_attempt_at=now + LEASE)) for each, may in told if may]
            change.replace_all(ahead)
            return notice, [after for _, after in ahead]

    def _may_know(self, holder: Caller | None, delivery: Delivery, key: Key | None) -> bool:
        """Whether the holder of a subscription may (still) be told this: not once disabled, or kept from the key."""
        if holder is None or not by_role(holder, Permission.NOTICES_MANAGE, delivery.owner):
            return False
        at = Circumstances("", self._clock(), "DescribeKey", self._account)
        return key is None or may_see_key(holder, key, at)

    def _send_some(self, notice: Notice, claimed: Sequence[Delivery]) -> bool:
        """Send what is claimed and write down how that ended; False where it is better to wait."""
        results: list[tuple[Delivery, Outcome | None]] = [(each, None) for each in claimed]
        if notice.channel is Channel.EMAIL:
            outcome = self._attempt(notice, claimed)
            results = [(each, outcome) for each in claimed]
        else:
            for number, delivery in enumerate(claimed):
                outcome = self._attempt(notice, [delivery])
                results[number] = delivery, outcome
                if not outcome.delivered or self._stopping.is_set():
                    break
        self._write_down(notice, results)
        if not outcome.delivered:
            self._pause(notice.notice_id, self._clock())
        else:
            self._paused.pop(notice.notice_id, None)
        return outcome.delivered

    def _attempt(self, notice: Notice, deliveries: Sequence[Delivery]) -> Outcome:
        return self._targets.send(self._vault.derived_keys, notice, deliveries, self._clock())

    def _pause(self, notice_id: str, now: datetime) -> None:
        """Send nothing more there for a while: all of it would wait for the same receiver."""
        _, failures = self._paused.get(notice_id, (now, 0))
        pause = min(_REST * 2 ** min(failures, 10), _LONGEST_REST)
        self._paused[notice_id] = now + pause, failures + 1

    def _write_down(self, notice: Notice, results: Sequence[tuple[Delivery, Outcome | None]]) -> None:
        """Write down how attempts ended (None: there was none). What another worker has claimed meanwhile is its."""
        now = self._clock()
        settled: list[tuple[Delivery, Delivery]] = []
        with self._vault.change() as change:
            for claimed, outcome in results:
                current = change.find(Delivery, claimed.delivery_id)
                if current is None or (current != claimed and not (outcome and outcome.delivered)):
                    continue
                settled.append((current, _after(current, outcome, now)))
            change.replace_all(settled)
            gone = any(outcome is not None and outcome.is_gone for _, outcome in results)
            current_notice = change.find(Notice, notice.notice_id) if gone else None
            if current_notice is not None:
                change.replace(current_notice, replace(current_notice, status=NoticeStatus.DISABLED, reason=_GONE))
        self._tell(notice, settled)

    def _tell(self, notice: Notice, settled: Sequence[tuple[Delivery, Delivery]]) -> None:
        log = structlog.get_logger()
        for before, after in settled:
            if after.attempts == before.attempts:
                continue
            outcome = "failed" if after.state is DeliveryState.WAITING else str(after.state)
            self._count(outcome)
            if outcome != DeliveryState.DELIVERED:
                log.warning(
                    "a notice is given up" if after.state is DeliveryState.DEAD else "a notice was not delivered",
                    notice_id=notice.notice_id,
                    webhook_id=after.delivery_id,
                    notice_event=str(after.event),
                    attempts=after.attempts,
                    reason=after.last_fault,
                )


def _due_dates(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """What is due, and what lies further ahead than anything is ever put, which a clock did that was ahead."""
    moment, never = microseconds(now), microseconds(now + _NO_DUE_DATE_AFTER)
    return _outbox.next_attempt_at <= moment, _outbox.next_attempt_at > never


def _at_once(notice: Notice) -> int:
    if notice.status is NoticeStatus.DISABLED:
        return _DROPPED_AT_ONCE
    return _MAILED_AT_ONCE if notice.channel is Channel.EMAIL else _WEBHOOKS_AT_ONCE


def _holder(snapshot: Snapshot, notice: Notice) -> Caller | None:
    """Whose subscription it is; None where that client is disabled or deleted."""
    try:
        return callers.enabled(snapshot, notice.client_id)
    except AuthenticationFailed:
        return None


def _key_of(change: Change, delivery: Delivery) -> Key | None:
    return change.find(Key, delivery.key_uid) if delivery.key_uid is not None else None


def _after(delivery: Delivery, outcome: Outcome | None, now: datetime) -> Delivery:
    """A delivery after an attempt, or after it was claimed and not tried."""
    if outcome is None:
        return replace(delivery, next_attempt_at=now)
    delivery = replace(delivery, attempts=delivery.attempts + 1)
    if outcome.delivered:
        return _settled(delivery, DeliveryState.DELIVERED, "", now)
    if outcome.is_gone or delivery.attempts > len(PAUSES):
        return _settled(delivery, DeliveryState.DEAD, outcome.fault, now)
    pause = PAUSES[delivery.attempts - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
    return replace(delivery, next_attempt_at=now + pause, last_fault=outcome.fault)


def _settled(delivery: Delivery, state: DeliveryState, fault: str, now: datetime) -> Delivery:
    return replace(delivery, state=state, next_attempt_at=None, last_fault=fault, settled_at=now)
