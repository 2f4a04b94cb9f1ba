"""Calls that wait for approval, over REST: who asked and approvers see them, approvers approve or reject them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, or_, select, tuple_

from kms.access import policy, step_up
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.approvals import canonical, deciding, filing
from kms.approvals.model import OPEN, Approval, ApprovalRule, ApprovalState
from kms.errors import NotFound
from kms.operations.core.carrying_out import RESULT_KEPT, carry_out
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.paging import MOST_READ
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, Limit
from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.transaction import Snapshot

_FRESH = timedelta(minutes=5)
_AT_ONCE = 50
_LARGEST_PAGE = 4 * 1024 * 1024
_Rules = Mapping[str, ApprovalRule]


class RejectCallRequest(Request):
    """`reason` is shown to who asked, and to the approvers."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class ListApprovalsRequest(Request):
    """A page of calls, the newest first; `cursor` is the `next_cursor` of the page before.

    `state` limits the list to calls in that state.
    """

    state: ApprovalState | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class NeededApprovals(Answer):
    """A rule that covers the call: how many approvals it needs, and how many it has from its approvers."""

    rule: str
    needed: int
    given: int


class GivenApproval(Answer):
    """Who approved the call, and when."""

    client_id: str
    at: datetime


class ApprovalView(Answer):
    """A call that waits for approval, or that waited for it.

    `request` is what was asked, with `{"redacted": true}` in the place of what may be secret; `request_sha256` is the
    SHA-256 of its canonical form (docs/how-to/approvals.md). `needed` and `given` count approvals, of the rule that
    has the most left to give; `rules` has all of them. `failure` says why it was not carried out. The `salt` of the
    canonical form and the `result` of the call are shown to who asked alone: the salt until the call is settled, as
    what it protects is removed then, and the result for a day.
    """

    approval_id: str
    state: ApprovalState
    operation: str
    key_id: str | None
    requester: str
    source: str
    needed: int
    given: int
    rules: list[NeededApprovals]
    approvals: list[GivenApproval]
    request: dict[str, Any]
    request_sha256: str
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | UnsetType = UNSET
    decided_by: str | UnsetType = UNSET
    failure: dict[str, str] | UnsetType = UNSET
    salt: str | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET
    result_until: datetime | UnsetType = UNSET


class ApprovalList(Answer):
    """Calls that the caller made or may approve, the newest first; administrators and auditors see all.

    There are more until `next_cursor` is null, also where a page has few of them or none.
    """

    items: list[ApprovalView]
    next_cursor: str | None


@operation(
    "GET",
    "/api/v1/approvals",
    permission=Permission.APPROVALS_USE,
    request=ListApprovalsRequest,
    checked_upfront=True,
)
def list_approvals(service: Service, call: Call, request: ListApprovalsRequest) -> ApprovalList:
    """List calls that wait for approval, and those of the last weeks that did."""
    caller, now, size = call.known_caller, service.clock(), 0
    views: list[ApprovalView] = []
    with service.vault.read() as snapshot:
        rules = _rules(snapshot)
        places, has_more = _newest(snapshot, _criteria(rules, caller, request, now))
        last = None
        for place, each in _read(snapshot, places):
            if len(views) == request.limit or size > _LARGEST_PAGE:
                has_more = True
                break
            last = place
            if each is not None and request.state in (None, each.state_at(now)) and _sees(rules, caller, each):
                views.append(_view(snapshot, rules, each, now))
                size += len(msgspec.json.encode(each.shown))
    return ApprovalList(items=views, next_cursor=f"{last[0]} {last[1]}" if has_more and last else None)


@operation("GET", "/api/v1/approvals/<approval_id>", permission=Permission.APPROVALS_USE, checked_upfront=True)
def get_approval(service: Service, call: Call, request: EmptyRequest, approval_id: str) -> ApprovalView:
    """Show a call that waits or waited for approval: how far it is and, to who asked, its result."""
    with service.vault.read() as snapshot:
        found = _visible(snapshot, call, approval_id)
        view = _view(snapshot, _rules(snapshot), found, service.clock())
        if _is_requester(call.known_caller, found):
            _add_what_is_for_the_requester(snapshot, view, found, service.clock())
    return view


@operation(
    "POST",
    "/api/v1/approvals/<approval_id>/approve",
    permission=Permission.APPROVALS_USE,
    checked_upfront=True,
    slow=True,
)
def approve_call(service: Service, call: Call, request: EmptyRequest, approval_id: str) -> ApprovalView:
    """Approve a call of somebody else; the last approval that it needs carries it out, as who asked.

    Needs a second factor that was given at most five minutes ago, and a session that a person began and no other
    session made. Approving twice counts once.
    """
    _require_person(service, call)
    with service.change(call) as change:
        found = _visible(change, call, approval_id)
        _require_person(service, call)
        found = deciding.approve(change, found, call.known_caller, service.clock())
    if found.state is ApprovalState.APPROVED:
        found = carry_out(service, found, call)
    with service.vault.read() as snapshot:
        return _view(snapshot, _rules(snapshot), found, service.clock())


@operation(
    "POST",
    "/api/v1/approvals/<approval_id>/reject",
    permission=Permission.APPROVALS_USE,
    request=RejectCallRequest,
    checked_upfront=True,
)
def reject_call(service: Service, call: Call, request: RejectCallRequest, approval_id: str) -> ApprovalView:
    """Reject a call of somebody else, or withdraw one of your own; it is then never carried out.

    To reject needs what approving does.
    """
    with service.change(call) as change:
        found = _visible(change, call, approval_id)
        if found.requester != call.known_caller.client_id:
            _require_person(service, call)
        found = deciding.reject(change, found, call.known_caller, request.reason, service.clock())
        return _view(change, _rules(change), found, service.clock())


def _require_person(service: Service, call: Call) -> None:
    """Return for the session of a person who gave a second factor just now; not for one that was handed to a program.

    Raises PermissionDenied, InsufficientUserAuthentication.
    """
    step_up.session_of_person(call.known_caller)
    step_up.require(call.known_caller, _FRESH, service.clock())


_Place = tuple[int, str]


def _criteria(
    rules: _Rules, caller: Caller, request: ListApprovalsRequest, now: datetime
) -> Iterator[ColumnElement[bool]]:
    """What the database can leave out; `_sees` and `state_at` say for certain."""
    column = tables.approvals.c
    if request.state is not None:
        states = (request.state, *OPEN) if request.state is ApprovalState.EXPIRED else (request.state,)
        yield column.state.in_(states)
    if request.state is ApprovalState.PENDING:
        yield column.expires_at > microseconds(now)
    if request.cursor is not None:
        created_at, _, approval_id = request.cursor.partition(" ")
        yield tuple_(column.created_at, column.approval_id) < tuple_(int(created_at), approval_id)
    if not policy.has_permission(caller, Permission.CLIENTS_READ):
        own = [name for name, rule in rules.items() if rule.lets_approve(caller)]
        named = [(column.given, caller.client_id), *((column.rules, name) for name in own)]
        within = (each.contains(f'"{name}"', autoescape=True) for each, name in named)
        yield or_(column.requester == caller.client_id, *within)


def _newest(snapshot: Snapshot, criteria: Iterator[ColumnElement[bool]]) -> tuple[list[_Place], bool]:
    """Where the newest calls are, at most `MOST_READ`, and whether there are more."""
    place = tables.approvals.c.created_at, tables.approvals.c.approval_id
    query = select(*place).where(*criteria).order_by(*(column.desc() for column in place)).limit(MOST_READ + 1)
    found = [(row[0], row[1]) for row in snapshot.connection.execute(query)]
    return found[:MOST_READ], len(found) > MOST_READ


def _read(snapshot: Snapshot, places: list[_Place]) -> Iterator[tuple[_Place, Approval | None]]:
    """The calls there, read a few at a time, for each has its whole request."""
    for first in range(0, len(places), _AT_ONCE):
        some = places[first : first + _AT_ONCE]
        ids = [approval_id for _, approval_id in some]
        found = {
            each.approval_id: each for each in snapshot.select(Approval, tables.approvals.c.approval_id.in_(ids))
        }
        for place in some:
            yield place, found.get(place[1])


def _rules(snapshot: Snapshot) -> _Rules:
    return {rule.name: rule for rule in snapshot.matching(ApprovalRule)}


def _visible(snapshot: Snapshot, call: Call, approval_id: str) -> Approval:
    """The call of that id, noted for the audit entry. Raises NotFound, also for one that the caller may not see."""
    found = snapshot.find(Approval, approval_id) if re.fullmatch("[0-9a-f]{32}", approval_id) else None
    if found is None or not _sees(_rules(snapshot), call.known_caller, found):
        raise NotFound("There is no such approval.")
    call.approval = found.approval_id
    call.key_id = found.key_id or None
    return found


def _sees(rules: _Rules, caller: Caller, approval: Approval) -> bool:
    if approval.requester == caller.client_id or policy.has_permission(caller, Permission.CLIENTS_READ):
        return True
    if caller.client_id in approval.given:
        return True
    return any(rules[name].lets_approve(caller) for name in approval.rules.keys() & rules.keys())


def _is_requester(caller: Caller, approval: Approval) -> bool:
    """Whether it is who asked, in a session that may do no less than the one that asked."""
    if caller.client_id != approval.requester:
        return False
    return caller.scope is None or sorted(caller.scope.words) == approval.asked["scope"]


def _add_what_is_for_the_requester(snapshot: Snapshot, view: ApprovalView, approval: Approval, now: datetime) -> None:
    if approval.decided_at is None:
        view.salt = canonical.salt_of(filing.content_of(snapshot, approval)) or UNSET
        return
    if not now < approval.decided_at + RESULT_KEPT:
        return
    result = deciding.result_of(snapshot, approval)
    if result is not None:
        view.result, view.result_until = msgspec.Raw(result), approval.decided_at + RESULT_KEPT


def _view(snapshot: Snapshot, every: _Rules, approval: Approval, now: datetime) -> ApprovalView:
    rules = [every[name] for name in sorted(approval.rules.keys() & every.keys())]
    count = deciding.counted(snapshot, approval, rules)
    needed = [NeededApprovals(rule=each.name, needed=each.approvals, given=count[each.name]) for each in rules]
    least = max(needed, key=lambda each: each.needed - each.given, default=None)
    return ApprovalView(
        approval_id=approval.approval_id,
        state=approval.state_at(now),
        operation=approval.operation,
        key_id=approval.key_id or None,
        requester=approval.requester,
        source=approval.asked["source"],
        needed=least.needed if least else 0,
        given=least.given if least else len(approval.given),
        rules=needed,
        approvals=[
            GivenApproval(client_id=client_id, at=datetime.fromisoformat(at))
            for client_id, at in sorted(approval.given.items(), key=lambda each: each[1])
        ],
        request=approval.shown,
        request_sha256=approval.request_hash.hex(),
        created_at=approval.created_at,
        expires_at=approval.expires_at,
        decided_at=approval.decided_at or UNSET,
        decided_by=approval.decided_by or UNSET,
        failure=approval.failure or UNSET,
    )
