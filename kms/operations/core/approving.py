"""Stops a call that a rule covers, and carries it out once it is approved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kms.access import decision, policy
from kms.access.policy import Permission
from kms.approvals import canonical, deciding, filing
from kms.approvals.model import ApprovalRule, ApprovalState
from kms.errors import ApprovalPending, Conflict, PermissionDenied
from kms.notices import events, outbox
from kms.operations.core.coverage import covering, key_names
from kms.operations.core.declare import Answer, BatchItems, Operation, Request
from kms.operations.core.key_access import authorized_key_cached
from kms.operations.core.service import Call, Service

_About = Callable[[Service, Call, Any], dict[str, dict[str, Any]]]
_ABOUT: dict[str, _About] = {}


def shown_to_approvers(operation: str) -> Callable[[_About], _About]:
    """Decorate what tells, of members of a request that are not shown, what approvers can know of them.

    It is called before a call of `operation` is filed, raises what the call would raise, and may set its `key_id`.
    """

    def register(about: _About) -> _About:
        _ABOUT[operation] = about
        return about

    return register


class PendingCall(Answer):
    """A call that waits for the approval of others: it needs `needed` approvals, of which `given` are there.

    `GET /api/v1/approvals/{approval_id}` shows how far it is. It is carried out by the last approval.
    """

    approval_id: str
    state: ApprovalState
    operation: str
    key_id: str | None
    needed: int
    given: int
    expires_at: datetime


def require_approval(
    service: Service, operation: Operation, call: Call, request: Request | BatchItems, path: Mapping[str, Any]
) -> None:
    """Return if no rule covers the call. Otherwise let it wait, and raise ApprovalPending.

    Who may not make the call is refused as without a rule, as far as that is known before it is carried out. Raises
    Conflict for a batch, whose requests must be sent one by one.
    """
    if isinstance(request, BatchItems):
        for item in request.items:
            if isinstance(item, Request) and (rules := covering(service, operation, call, item, path)):
                _require_may(service, operation, call, item, path)
                raise Conflict(
                    f"The approval rule {rules[0].name} covers a request of this batch. Send its requests one by one."
                )
        return
    rules = covering(service, operation, call, request, path)
    if rules:
        _require_may(service, operation, call, request, path)
        waiting_call = _filed(service, operation, call, request, path, rules)
        raise ApprovalPending(waiting_call.approval_id, waiting_call)


def _require_may(
    service: Service, operation: Operation, call: Call, request: Request, path: Mapping[str, Any]
) -> None:
    """Raise what the call would raise where the caller may not make it at all."""
    permission, caller = operation.permission, call.known_caller
    assert permission is not None
    name = path.get("key_id") or getattr(request, "key_id", None)
    if name is None or permission is Permission.KEYS_CREATE or not permission.startswith("keys:"):
        if not policy.has_permission(caller, permission):
            raise PermissionDenied(f"{caller.client_id} may not do this: it needs {permission}.")
        return
    key, at = service.key_cache.find(name), service.circumstances(call)
    if key is None or not decision.may_see_key(caller, key, at):
        raise decision.no_such_key(name)
    call.key_id = key.key_id
    if permission in policy.BOUND_BY_CONTEXT:
        authorized_key_cached(service, call, permission, name, [request])
    elif permission is not Permission.KEYS_REWRAP:  # for which there are two ways; the operation knows both
        decision.require_on_key(caller, permission, key, at, asked_as=name)


def _filed(
    service: Service,
    operation: Operation,
    call: Call,
    request: Request,
    path: Mapping[str, Any],
    rules: Sequence[ApprovalRule],
) -> PendingCall:
    """Let the call wait; gives what is answered. The audit entry is committed with it."""
    about = _ABOUT[operation.name](service, call, request) if operation.name in _ABOUT else None
    asked = canonical.canonical(operation.name, path, request, call.dialect, call.action, about)
    with service.vault.change() as change:
        now = service.clock()
        call.caller = service.authenticator.still(change, call.known_caller, now)
        keys = filing.keys_named(change, key_names(request, path))
        made, is_new = filing.file(change, call.caller, rules, asked, call.key_id or "", keys, call.source, now)
        call.approval = made.approval_id
        service.record_in(change, call, ApprovalPending.problem)
        if is_new:
            outbox.emit(change, events.approval_pending(made, [rule.name for rule in rules]))
        given = deciding.counted(change, made, rules)
    call.recorded = True
    most = max(rules, key=lambda rule: rule.approvals - given[rule.name])
    return PendingCall(
        approval_id=made.approval_id,
        state=made.state,
        operation=made.operation,
        key_id=made.key_id or None,
        needed=most.approvals,
        given=given[most.name],
        expires_at=made.expires_at,
    )
