"""Notices over REST: who is told of which events, and where."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.model import Caller
from kms.access.policy import Permission, by_role
from kms.errors import Conflict, NotFound, OperationNotSupported, PermissionDenied, ValidationFailed
from kms.notices import outbox, targets, webhook
from kms.notices.model import (
    OF_THE_SERVICE,
    SUBSCRIBABLE,
    Channel,
    Event,
    Notice,
    NoticeStatus,
)
from kms.operations.accounts.grants import KeyPattern
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault.transaction import Snapshot

_MOST = 20
_PAUSE_SECONDS = 0.01
_SOMEBODY_ELSE = ""  # no client has this id
_EventName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": sorted(SUBSCRIBABLE)})]
_Events = Annotated[list[_EventName], msgspec.Meta(min_length=1, max_length=len(SUBSCRIBABLE))]


class CreateNoticeRequest(Request):
    """The `events` to be notified of, and the receiver: a `url` for webhooks, or an `email` address.

    Notices are about your own keys, for administrators about the keys of all clients; only about keys whose ids match
    `key_pattern`, which is a key id, or the beginning of key ids followed by `*`.
    """

    events: _Events
    url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None
    email: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    key_pattern: KeyPattern = "*"


class UpdateNoticeRequest(Request):
    """Members that are not given stay as they are. `status` disables the subscription, or enables it again.

    The service disables a subscription by itself if its receiver answers 410 Gone.
    """

    events: _Events | UnsetType = UNSET
    key_pattern: KeyPattern | UnsetType = UNSET
    status: NoticeStatus | UnsetType = UNSET


class NoticeView(Answer):
    """A subscription. For one of another client, `url` is only the host, and `email` only the domain.

    `reason` says why the service disabled it, if it did.
    """

    notice_id: str
    client_id: str
    events: list[Event]
    key_pattern: str
    status: NoticeStatus
    created_at: datetime
    url: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class CreatedNotice(NoticeView, kw_only=True):
    """A new subscription. `secret`, shown only in this answer, verifies the signatures of its webhooks."""

    secret: str | UnsetType = UNSET


class ChangedNoticeSecret(Answer):
    """Another `secret`, shown once. Until then notices are signed with the one before too."""

    notice_id: str
    secret: str
    old_secret_until: datetime


class NoticeList(Answer):
    """The caller's subscriptions; for administrators those of all clients."""

    items: list[NoticeView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/notices",
    permission=Permission.NOTICES_MANAGE,
    request=CreateNoticeRequest,
    status=201,
    checked_upfront=True,
    location="/api/v1/notices/{notice_id}",
)
def create_notice(service: Service, call: Call, request: CreateNoticeRequest) -> CreatedNotice:
    """Subscribe to events. The operator's settings `KMS_NOTICE_HOSTS` and `KMS_SMTP_URL` limit the receivers."""
    channel, target = _target(request)
    service.notice_targets.require(channel, target)
    notice_id = secrets.token_hex(12)
    secret = webhook.new_secret() if channel is Channel.WEBHOOK else ""
    with service.change(call) as change:
        caller = call.known_caller
        require_unnarrowed(caller)
        events = _events(caller, request.events)
        if len(change.matching(Notice, client_id=caller.client_id)) >= _MOST:
            raise Conflict(f"{caller.client_id} has {_MOST} notices. Delete one first.")
        sealed_target, sealed_secret = targets.sealed(change.derived_keys, notice_id, target, secret)
        made = Notice(
            notice_id=notice_id,
            client_id=caller.client_id,
            every_owner=_looks_after_all(caller),
            channel=channel,
            target=sealed_target,
            secret=sealed_secret,
            events=events,
            key_pattern=request.key_pattern,
            status=NoticeStatus.ENABLED,
            reason="",
            created_at=service.clock(),
        )
        change.insert(made)
        call.target = notice_id
    return CreatedNotice(**_members(service, call, made), secret=secret or UNSET)


@operation("GET", "/api/v1/notices", permission=Permission.NOTICES_MANAGE, checked_upfront=True)
def list_notices(service: Service, call: Call, request: EmptyRequest) -> NoticeList:
    """List your subscriptions; administrators see everybody's."""
    caller = call.known_caller
    require_unnarrowed(caller)
    with service.vault.read() as snapshot:
        found = _looked_after(snapshot, caller)
    return NoticeList(items=[NoticeView(**_members(service, call, each)) for each in found], next_cursor=None)


@operation("GET", "/api/v1/notices/<notice_id>", permission=Permission.NOTICES_MANAGE, checked_upfront=True)
def get_notice(service: Service, call: Call, request: EmptyRequest, notice_id: str) -> NoticeView:
    """Show a subscription."""
    with service.vault.read() as snapshot:
        found = notice_of_caller(snapshot, call, notice_id)
    return NoticeView(**_members(service, call, found))


@operation(
    "PATCH",
    "/api/v1/notices/<notice_id>",
    permission=Permission.NOTICES_MANAGE,
    request=UpdateNoticeRequest,
    checked_upfront=True,
)
def update_notice(service: Service, call: Call, request: UpdateNoticeRequest, notice_id: str) -> NoticeView:
    """Change the events or key pattern of a subscription, or disable or enable it. The receiver cannot be changed."""
    with service.change(call) as change:
        before = notice_of_caller(change, call, notice_id)
        require_own(call.known_caller, before)
        require_unnarrowed(call.known_caller)
        after = before
        if request.events is not UNSET:
            after = replace(after, events=_events(call.known_caller, request.events))
        if request.key_pattern is not UNSET:
            after = replace(after, key_pattern=request.key_pattern)
        if request.status is not UNSET:
            after = replace(after, status=request.status, reason="")
        change.replace(before, after)
    return NoticeView(**_members(service, call, after))


@operation(
    "POST",
    "/api/v1/notices/<notice_id>/rotate-secret",
    permission=Permission.NOTICES_MANAGE,
    checked_upfront=True,
)
def rotate_notice_secret(service: Service, call: Call, request: EmptyRequest, notice_id: str) -> ChangedNoticeSecret:
    """Sign webhooks with another secret; the one before signs too for a day, so that the receiver can change."""
    secret, now = webhook.new_secret(), service.clock()
    with service.change(call) as change:
        before = notice_of_caller(change, call, notice_id)
        require_own(call.known_caller, before)
        require_unnarrowed(call.known_caller)
        if before.channel is not Channel.WEBHOOK:
            raise OperationNotSupported("Mails are not signed; they have no secret.")
        change.replace(before, targets.with_new_secret(change.derived_keys, before, secret, now))
    return ChangedNoticeSecret(
        notice_id=notice_id, secret=secret, old_secret_until=now + targets.OLD_SECRET_SIGNS_FOR
    )


@operation("DELETE", "/api/v1/notices/<notice_id>", permission=Permission.NOTICES_MANAGE, checked_upfront=True)
def delete_notice(service: Service, call: Call, request: EmptyRequest, notice_id: str) -> NoticeView:
    """Delete a subscription, with all deliveries that were not sent yet."""
    with service.change(call) as change:
        found = notice_of_caller(change, call, notice_id)
        outbox.forget(change, found)
    is_more = True
    while is_more:
        time.sleep(_PAUSE_SECONDS)  # for others who change something
        with service.vault.change() as change:
            is_more = outbox.forget_more(change, found.notice_id)
    return NoticeView(**_members(service, call, found))


def _target(request: CreateNoticeRequest) -> tuple[Channel, str]:
    if request.url is not None and request.email is None:
        return Channel.WEBHOOK, request.url
    if request.email is not None and request.url is None:
        return Channel.EMAIL, request.email
    raise ValidationFailed("url, email: give one of them.")


def _events(caller: Caller, asked: Iterable[str]) -> frozenset[Event]:
    """What was asked for, if the caller may be told of it. Raises ValidationFailed, PermissionDenied."""
    names = frozenset(asked)
    unknown = sorted(names - SUBSCRIBABLE)
    if unknown:
        raise ValidationFailed(f"events: {unknown[0][:80]!r} is none of {', '.join(sorted(SUBSCRIBABLE))}.")
    for each in sorted(names & OF_THE_SERVICE):
        if not _looks_after_all(caller):
            raise PermissionDenied(f"{each} is about the service: it is told to administrators.")
    return frozenset(map(Event, names))


def _looked_after(snapshot: Snapshot, caller: Caller) -> list[Notice]:
    """The subscriptions that the caller looks after, the oldest first."""
    if _looks_after_all(caller):
        return snapshot.matching(Notice, order_by="created_at")
    return snapshot.matching(Notice, client_id=caller.client_id, order_by="created_at")


def _looks_after_all(caller: Caller) -> bool:
    return by_role(caller, Permission.NOTICES_MANAGE, _SOMEBODY_ELSE)


def require_unnarrowed(caller: Caller) -> None:
    """Raise PermissionDenied for a narrowed session."""
    if caller.scope is not None:
        raise PermissionDenied(
            "A narrowed session has nothing to do with notices: they would tell more than it may know."
        )


def require_own(caller: Caller, notice: Notice) -> None:
    """Raise PermissionDenied unless it is the caller's own subscription."""
    if notice.client_id != caller.client_id:
        raise PermissionDenied(f"This is for {notice.client_id} to do; an administrator can only delete or try it.")


def notice_of_caller(snapshot: Snapshot, call: Call, notice_id: str) -> Notice:
    """The subscription, if it is the caller's own or the caller is an administrator. Raises NotFound otherwise.

    Raises PermissionDenied for a narrowed session: a subscription may be about more than its scope is.
    """
    require_unnarrowed(call.known_caller)
    found = {each.notice_id: each for each in _looked_after(snapshot, call.known_caller)}
    if notice_id not in found:
        raise NotFound("There is no such notice.")
    call.target = notice_id
    return found[notice_id]


def _members(service: Service, call: Call, notice: Notice) -> dict[str, Any]:
    target = targets.target_of(service.vault.derived_keys, notice)
    if notice.client_id != call.known_caller.client_id:  # the path of a URL may let its holder in somewhere
        target = targets.without_detail(notice.channel, target)
    name = "url" if notice.channel is Channel.WEBHOOK else "email"
    return {
        "notice_id": notice.notice_id,
        "client_id": notice.client_id,
        "events": sorted(notice.events),
        "key_pattern": notice.key_pattern,
        "status": notice.status,
        "created_at": notice.created_at,
        "reason": notice.reason or UNSET,
        name: target,
    }
