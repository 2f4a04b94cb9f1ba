"""Deliveries of notices over REST: list them, send a test, and send failed ones again."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from datetime import datetime
from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import and_, or_

from kms.access.decision import may_see_key
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.errors import Conflict, NotFound
from kms.keys.model import Key
from kms.notices import outbox
from kms.notices.model import Delivery, DeliveryState, Event
from kms.notices.outbox import Occurrence
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, Limit
from kms.operations.system.notices import notice_of_caller, require_own
from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.transaction import Snapshot

_ID = re.compile("[0-9a-f]{32}")


class ListDeliveriesRequest(Request):
    """A page of deliveries, the newest first; `cursor` is the `next_cursor` of the page before."""

    limit: Limit = 100
    cursor: Cursor | None = None
    state: DeliveryState | None = None


class DeliveryView(Answer):
    """The delivery of one event to one subscription. `last_fault` says why the last attempt failed."""

    delivery_id: str
    event: Event
    state: DeliveryState
    data: dict[str, Any]
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | UnsetType = UNSET
    settled_at: datetime | UnsetType = UNSET
    last_fault: str | UnsetType = UNSET


class DeliveryList(Answer):
    """A page of deliveries: those that wait, those that were given up (`dead`), and recent successful ones."""

    items: list[DeliveryView]
    next_cursor: str | None


class TestedNotice(Answer):
    """Whether the test was delivered; if not, `fault` says why."""

    notice_id: str
    delivered: bool
    fault: str | UnsetType = UNSET


@operation(
    "POST",
    "/api/v1/notices/<notice_id>/test",
    permission=Permission.NOTICES_MANAGE,
    rate_class=RateClass.GENERATE,
    checked_upfront=True,
    slow=True,
)
def test_notice(service: Service, call: Call, request: EmptyRequest, notice_id: str) -> TestedNotice:
    """Send a test event (`notice.test`) once, now, and return the result."""
    with service.vault.read() as snapshot:
        found = notice_of_caller(snapshot, call, notice_id)
    now = service.clock()
    told = Occurrence(Event.TEST, now, (secrets.token_hex(8),), {"notice_id": notice_id})
    delivery = outbox.delivery_of(service.vault.derived_keys, found, told)
    outcome = service.notice_targets.send(service.vault.derived_keys, found, [delivery], now)
    return TestedNotice(notice_id=notice_id, delivered=outcome.delivered, fault=outcome.fault or UNSET)


@operation(
    "GET",
    "/api/v1/notices/<notice_id>/deliveries",
    permission=Permission.NOTICES_MANAGE,
    request=ListDeliveriesRequest,
    checked_upfront=True,
)
def list_deliveries(service: Service, call: Call, request: ListDeliveriesRequest, notice_id: str) -> DeliveryList:
    """List the deliveries of a subscription: waiting, given up, and delivered in the last days."""
    column = tables.notice_outbox.c
    with service.vault.read() as snapshot:
        found = notice_of_caller(snapshot, call, notice_id)
        require_own(call.known_caller, found)
        wanted = [column.notice_id == notice_id]
        if request.state is not None:
            wanted.append(column.state == request.state)
        if request.cursor is not None:
            moment, _, last = request.cursor.partition(" ")
            earlier = column.created_at < int(moment)
            wanted.append(or_(earlier, and_(column.created_at == int(moment), column.delivery_id < last)))
        order = (column.created_at.desc(), column.delivery_id.desc())
        rows = snapshot.select(Delivery, *wanted, order_by=order, limit=request.limit + 1)
        page = rows[: request.limit]
        known = [each for each in page if _may_know(service, snapshot, call, each)]
    end = f"{microseconds(page[-1].created_at)} {page[-1].delivery_id}" if len(rows) > len(page) else None
    return DeliveryList(items=[_delivery_view(each) for each in known], next_cursor=end)


@operation(
    "POST",
    "/api/v1/notices/<notice_id>/deliveries/<delivery_id>/retry",
    permission=Permission.NOTICES_MANAGE,
    checked_upfront=True,
)
def retry_delivery(
    service: Service, call: Call, request: EmptyRequest, notice_id: str, delivery_id: str
) -> DeliveryView:
    """Send a delivery again now that was given up or waits for its next attempt; its `webhook-id` stays the same."""
    with service.change(call) as change:
        found = notice_of_caller(change, call, notice_id)
        require_own(call.known_caller, found)
        before = change.find(Delivery, delivery_id) if _ID.fullmatch(delivery_id) else None
        if before is None or before.notice_id != notice_id:
            raise NotFound("There is no such delivery of this notice.")
        if before.state is DeliveryState.DELIVERED:
            raise Conflict("This was delivered.")
        attempts = 0 if before.state is DeliveryState.DEAD else before.attempts
        after = replace(
            before,
            state=DeliveryState.WAITING,
            attempts=attempts,
            next_attempt_at=service.clock(),
            settled_at=None,
        )
        change.replace(before, after)
    return _delivery_view(after)


def _may_know(service: Service, snapshot: Snapshot, call: Call, delivery: Delivery) -> bool:
    """Whether the caller may (still) know of the key that the delivery is about; as is asked when it is sent."""
    key = snapshot.find(Key, delivery.key_uid) if delivery.key_uid is not None else None
    return key is None or may_see_key(call.known_caller, key, service.circumstances(call))


def _delivery_view(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        delivery_id=delivery.delivery_id,
        event=delivery.event,
        state=delivery.state,
        data=delivery.data,
        created_at=delivery.created_at,
        attempts=delivery.attempts,
        next_attempt_at=delivery.next_attempt_at or UNSET,
        settled_at=delivery.settled_at or UNSET,
        last_fault=delivery.last_fault or UNSET,
    )
