"""Subscriptions, and what is sent to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kms.enums import TextEnum
from kms.vault import tables
from kms.vault.records import stored_in


class Event(TextEnum):
    """What somebody can be told of."""

    KEY_EXPIRING = "key.expiring"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    KEY_USED_AFTER_COMPROMISE = "key.used_after_compromise"
    LOGIN_LOCKED = "login.locked"
    CLIENT_RECOVERED = "client.recovered"
    APPROVAL_PENDING = "approval.pending"
    APPROVAL_RULE_LIFTED = "approval.rule_lifted"
    VAULT_INTEGRITY = "vault.integrity"
    AUDIT_STALLED = "audit.stalled"
    TEST = "notice.test"


SUBSCRIBABLE = frozenset(Event) - {Event.TEST}
"""What one can subscribe to. A test is sent to whoever asks for it."""

OF_THE_SERVICE = frozenset(
    {
        Event.LOGIN_LOCKED,
        Event.CLIENT_RECOVERED,
        Event.APPROVAL_PENDING,
        Event.APPROVAL_RULE_LIFTED,
        Event.VAULT_INTEGRITY,
        Event.AUDIT_STALLED,
    }
)
"""What belongs to nobody: only who looks after everybody's notices is told of it."""


class Channel(TextEnum):
    """How a notice reaches somebody."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class NoticeStatus(TextEnum):
    """Whether anything is sent."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class DeliveryState(TextEnum):
    """How far a delivery came; a dead one is not tried again unless somebody asks for it."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@stored_in(tables.notices)
@dataclass(frozen=True, slots=True)
class Notice:
    """A subscription of a client to events about its own keys whose ids fit `key_pattern`.

    With `every_owner` it is about everybody's keys, and may be about the service. `target` is the sealed URL or
    address, and `secret` what webhooks are signed with, sealed (empty for mail). `reason` says why it is disabled.
    """

    notice_id: str
    client_id: str
    every_owner: bool
    channel: Channel
    target: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    events: frozenset[Event]
    key_pattern: str
    status: NoticeStatus
    reason: str
    created_at: datetime


@stored_in(tables.notice_outbox)
@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one subscription. `delivery_id` is the same for every attempt.

    `owner` is whose key it is about (empty: nobody's). While it waits it is due at `next_attempt_at`, which a worker
    that sends it moves ahead; `last_fault` says why the last attempt failed.
    """

    delivery_id: str
    notice_id: str
    event: Event
    key_uid: bytes | None
    owner: str
    data: dict[str, Any]
    created_at: datetime
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    last_fault: str
    settled_at: datetime | None


@stored_in(tables.notice_marks)
@dataclass(frozen=True, slots=True)
class ExpiryMark:
    """How far expiring keys were announced, for one number of days ahead: all that expire before `until`.

    Of the keys that expire exactly at `until`, those up to `key_uid` were announced, too.
    """

    days: int
    until: datetime
    key_uid: bytes
