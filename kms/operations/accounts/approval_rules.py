"""Approval rules over REST: which calls are carried out only after other people have approved them."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import step_up
from kms.access.policy import Permission
from kms.approvals.deciding import settle
from kms.approvals.model import OPEN, Approval, ApprovalRule, ApprovalState
from kms.approvals.quorum import require_enough_approvers
from kms.errors import AlreadyExists, Conflict, NotFound, ValidationFailed
from kms.keys.ids import CLIENT_ID_PATTERN, ClientId
from kms.operations.accounts.grants import KeyPattern
from kms.operations.core.asking import asking
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault import schema
from kms.vault.change import Change
from kms.vault.nodes import Nodes
from kms.vault.transaction import Snapshot

_FRESH = timedelta(minutes=5)
_SHORTEST, _LONGEST = timedelta(minutes=5), timedelta(days=30)
_Approver = Annotated[
    str, msgspec.Meta(pattern=rf"^({CLIENT_ID_PATTERN}|role:(admin|user|auditor)|group:{CLIENT_ID_PATTERN})\Z")
]
_Approvers = Annotated[list[_Approver], msgspec.Meta(min_length=1, max_length=50)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=20)]
_OperationName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
_Operations = Annotated[frozenset[_OperationName], msgspec.Meta(max_length=100)]


class CreateApprovalRuleRequest(Request):
    """Calls that ask for one of `permissions`, on keys that match `key_pattern`, need `approvals` of the `approvers`.

    `approvers` are ids of clients, `role:NAME` and `group:NAME`; nobody approves a call of their own. `operations`
    limits the rule to these operations, or names them where no permissions are given. `key_pattern` is a key id, or
    the beginning of key ids followed by `*`. A call that is not approved within `expires_in` (ISO 8601, from PT5M to
    P30D) is not carried out. Every rule covers its own change and removal.
    """

    name: ClientId
    approvers: _Approvers
    permissions: frozenset[Permission] = frozenset()
    operations: _Operations = frozenset()
    key_pattern: KeyPattern = "*"
    approvals: _Number = 2
    expires_in: timedelta = timedelta(days=1)


class UpdateApprovalRuleRequest(Request):
    """Members that are not given stay as they are."""

    approvers: _Approvers | UnsetType = UNSET
    permissions: frozenset[Permission] | UnsetType = UNSET
    operations: _Operations | UnsetType = UNSET
    key_pattern: KeyPattern | UnsetType = UNSET
    approvals: _Number | UnsetType = UNSET
    expires_in: timedelta | UnsetType = UNSET


class ApprovalRuleView(Answer):
    """An approval rule. `lifted_until`: an operator on the host has taken it out of force until then."""

    name: str
    permissions: list[str]
    operations: list[str]
    key_pattern: str
    approvals: int
    approvers: list[str]
    expires_in: timedelta
    created_by: str
    created_at: datetime
    lifted_until: datetime | UnsetType = UNSET


class ApprovalRuleList(Answer):
    """Every approval rule, by name."""

    items: list[ApprovalRuleView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/approval-rules",
    permission=Permission.APPROVALS_MANAGE,
    request=CreateApprovalRuleRequest,
    status=201,
    checked_upfront=True,
)
def create_approval_rule(service: Service, call: Call, request: CreateApprovalRuleRequest) -> ApprovalRuleView:
    """Make a rule: calls that it covers wait for the approval of others, from now on and on every node.

    Needs a second factor that was given at most five minutes ago. What stops things (revoking and suspending keys,
    disabling clients, ending sessions and credentials) is never covered. Beside each administrator there must be
    enough others who can approve.
    """
    rule = ApprovalRule(
        name=request.name,
        revision=secrets.token_hex(16),
        permissions=_words(request.permissions),
        operations=request.operations,
        key_pattern=request.key_pattern,
        approvals=request.approvals,
        approvers=frozenset(request.approvers),
        expires_in=request.expires_in,
        created_by=call.known_caller.client_id,
        created_at=service.clock(),
    )
    _require_sensible(rule)
    step_up.require(call.known_caller, _FRESH, service.clock())
    with service.change(call) as change:
        if change.find(ApprovalRule, rule.name) is not None:
            raise AlreadyExists(f"There is an approval rule {rule.name} already.")
        require_enough_approvers(change, rule)
        _require_no_older_node(change)
        schema.keep_out_older_releases(change)
        change.insert(rule)
        call.target = rule.name
    return _view(rule)


@operation("GET", "/api/v1/approval-rules", permission=Permission.CLIENTS_READ, checked_upfront=True)
def list_approval_rules(service: Service, call: Call, request: EmptyRequest) -> ApprovalRuleList:
    """List the approval rules."""
    with service.vault.read() as snapshot:
        found = snapshot.matching(ApprovalRule, order_by="name")
    return ApprovalRuleList(items=list(map(_view, found)), next_cursor=None)


@operation(
    "PATCH",
    "/api/v1/approval-rules/<rule>",
    permission=Permission.APPROVALS_MANAGE,
    request=UpdateApprovalRuleRequest,
    checked_upfront=True,
)
def update_approval_rule(
    service: Service, call: Call, request: UpdateApprovalRuleRequest, rule: str
) -> ApprovalRuleView:
    """Change a rule, which needs the approvals that it asks for so far. Calls that wait must be made again."""
    with service.change(call) as change:
        before = _rule(change, rule)
        after = replace(
            before,
            revision=secrets.token_hex(16),
            approvers=before.approvers if request.approvers is UNSET else frozenset(request.approvers),
            permissions=before.permissions if request.permissions is UNSET else _words(request.permissions),
            operations=before.operations if request.operations is UNSET else request.operations,
            key_pattern=before.key_pattern if request.key_pattern is UNSET else request.key_pattern,
            approvals=before.approvals if request.approvals is UNSET else request.approvals,
            expires_in=before.expires_in if request.expires_in is UNSET else request.expires_in,
        )
        _require_sensible(after)
        require_enough_approvers(change, after)
        call.target = rule
        change.replace(before, after)
        end_waiting(change, rule, service.clock())
    return _view(after)


@operation("DELETE", "/api/v1/approval-rules/<rule>", permission=Permission.APPROVALS_MANAGE, checked_upfront=True)
def delete_approval_rule(service: Service, call: Call, request: EmptyRequest, rule: str) -> ApprovalRuleView:
    """Delete a rule, which needs the approvals that it asks for. Calls that wait for it must be made again."""
    with service.change(call) as change:
        found = _rule(change, rule)
        call.target = rule
        change.delete(found)
        end_waiting(change, rule, service.clock())
    return _view(found)


def end_waiting(change: Change, rule: str, now: datetime) -> None:
    """End every open call under a rule that is changed or removed in this change."""
    for each in (each for state in OPEN for each in change.matching(Approval, state=state)):
        if rule in each.rules and each.state_at(now) in OPEN:
            failure = {"type": "conflict", "detail": f"The rule {rule} was changed or removed. Make the call again."}
            settle(change, each, ApprovalState.FAILED, now, failure=failure)


def _words(permissions: frozenset[Permission]) -> frozenset[str]:
    return frozenset(map(str, permissions))


def _rule(snapshot: Snapshot, name: str) -> ApprovalRule:
    """Raises NotFound."""
    found = {rule.name: rule for rule in snapshot.matching(ApprovalRule)}
    if name not in found:
        raise NotFound("There is no such approval rule.")
    return found[name]


def _require_sensible(rule: ApprovalRule) -> None:
    """Raise ValidationFailed for a rule that covers nothing, or whose calls could not be approved in time."""
    asks = asking()
    if not (rule.permissions or rule.operations):
        raise ValidationFailed("permissions, operations: give one at least.")
    for name in sorted(rule.operations - asks.keys()):
        raise ValidationFailed(f"operations: {name} is no operation that a rule can cover.")
    named = [asks[name] for name in rule.operations] or list(asks.values())
    for each in sorted(rule.permissions):
        if not any(each in permissions for permissions in named):
            raise ValidationFailed(f"permissions: nothing that a rule can cover asks for {each} (here).")
    if not _SHORTEST <= rule.expires_in <= _LONGEST:
        raise ValidationFailed("expires_in: from PT5M to P30D.")


def _require_no_older_node(change: Change) -> None:
    """Raise Conflict while a node runs a release that knows nothing of approvals, and would carry calls out."""
    own = schema.own_schema().revision
    for node in Nodes.all(change):
        if node.revision < own:
            raise Conflict(f"The node {node.host} runs an older release ({node.release}). Upgrade every node first.")


def _view(rule: ApprovalRule) -> ApprovalRuleView:
    return ApprovalRuleView(
        name=rule.name,
        permissions=sorted(rule.permissions),
        operations=sorted(rule.operations),
        key_pattern=rule.key_pattern,
        approvals=rule.approvals,
        approvers=sorted(rule.approvers),
        expires_in=rule.expires_in,
        created_by=rule.created_by,
        created_at=rule.created_at,
        lifted_until=rule.lifted_until or UNSET,
    )
