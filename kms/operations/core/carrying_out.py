"""Carries out a call that has its approvals: exactly as it was asked, as who asked, and once."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from kms.approvals import canonical, deciding, execution, filing
from kms.approvals.execution import CarryingOut
from kms.approvals.model import Approval, ApprovalState
from kms.errors import Conflict, InternalError, Refusal, Unavailable, ValidationFailed
from kms.operations.core.coverage import coverage
from kms.operations.core.declare import OPERATIONS, TextAnswer
from kms.operations.core.execute import execute_operation
from kms.operations.core.request_ids import new_request_id
from kms.operations.core.service import Call, Service

RESULT_KEPT = timedelta(days=1)
"""For how long after it was carried out the result of a call is there for who asked."""
_LEFT_OVER_AT_ONCE = 50


def carry_out(service: Service, approval: Approval, decision: Call) -> Approval:
    """Carry out an approved call, and return it as it is then: `done` or `failed`.

    `decision` is the call of whoever gave the last approval. A change settles the approval in its own transaction, so
    that it is made once whatever happens; what changes nothing is settled with its result. Raises Unavailable if the
    service cannot carry it out now; it then stays `approved`, and is carried out by the schedule, or when an approver
    approves it again.
    """
    return _carried_out(service, approval, decision.known_caller.client_id, decision.request_id)


def carry_out_left_over(service: Service, now: datetime) -> None:
    """Carry out what was approved, and then left by a process that was stopped, as the last approval would have."""
    with service.vault.read() as snapshot:
        found = deciding.left_over(snapshot, now, _LEFT_OVER_AT_ONCE)
    for each in found:
        with service.vault.change() as change:
            taken = deciding.take_over(change, each, service.clock())
        if taken is None:
            continue
        last = max(taken.given, key=lambda client_id: taken.given[client_id])
        log = structlog.get_logger().bind(approval=taken.approval_id, operation=taken.operation)
        try:
            after = _carried_out(service, taken, last, new_request_id())
        except Unavailable as refusal:
            log.warning("what a crash had left approved is put off", reason=refusal.detail)
        except Exception:  # one call must not keep the others waiting
            log.exception("what a crash had left approved was not carried out")
        else:
            log.warning("carried out what a crash had left approved", state=after.state)


def _carried_out(service: Service, approval: Approval, by: str, request_id: str) -> Approval:
    doing = CarryingOut(approval, by)
    try:
        answer = _answer(service, approval, request_id, doing)
    except Unavailable:
        raise
    except Refusal as refusal:
        return _settled(service, doing, ApprovalState.FAILED, execution.failure_of(refusal))
    except Exception:
        failure = execution.failure_of(InternalError("The service failed. Its log has the reason."))
        _settled(service, doing, ApprovalState.FAILED, failure)
        raise
    return _settled(service, doing, ApprovalState.DONE, result=_encoded(answer))


def _answer(service: Service, approval: Approval, request_id: str, doing: CarryingOut) -> Any:
    operation = OPERATIONS[approval.operation]
    call = Call(
        approval.operation,
        approval.asked["source"],
        request_id,
        action=approval.shown.get("action", ""),
        dialect=approval.shown["dialect"],
        approval=approval.approval_id,
        carrying_out=doing,
    )
    now = service.clock()
    try:
        with service.vault.read() as snapshot:
            doing.require_in(snapshot, now)
            content = filing.content_of(snapshot, approval)
            call.caller = execution.requester_of(snapshot, approval, now)
        try:
            request = canonical.body_of(content, operation.request)
        except msgspec.ValidationError as error:
            raise ValidationFailed(f"This release does not take such a request: {error}.") from None
        doing.covers = coverage(service, operation, call, request, canonical.path_of(content))
        with service.vault.read() as snapshot:
            doing.require_in(snapshot, now)
    except Refusal as refusal:
        service.record(call, refusal)
        raise
    answer = execute_operation(service, operation, call, lambda: request, canonical.path_of(content))
    if not doing.is_settled:
        _require_same_keys(service, call, approval, doing)
    return answer


def _require_same_keys(service: Service, call: Call, approval: Approval, doing: CarryingOut) -> None:
    """Raise Conflict where what changed nothing has used another key than was asked for, by an alias that was moved.

    Its answer is then shown to nobody. What changes something has looked at that in its own transaction.
    """
    with service.vault.read() as snapshot:
        doing.require_in(snapshot, service.clock())
    if call.key_id not in (None, approval.key_id):
        raise Conflict(execution.ANOTHER_KEY)


def _settled(
    service: Service,
    doing: CarryingOut,
    state: ApprovalState,
    failure: dict[str, str] | None = None,
    result: bytes | None = None,
) -> Approval:
    """Note how it ended, unless somebody else has carried it out meanwhile. Returns the call as it is then."""
    with service.vault.change() as change:
        found = change.find(Approval, doing.approval_id)
        if found is None:
            return doing.approval
        is_ours = found.began_at == doing.approval.began_at
        if is_ours and (found.state is ApprovalState.APPROVED or doing.is_settled):
            found = deciding.settle(change, found, state, service.clock(), doing.by, failure, result)
    return found


def _encoded(answer: Any) -> bytes:
    if isinstance(answer, TextAnswer):
        return msgspec.json.encode({"content_type": answer.content_type, "text": answer.body})
    return msgspec.json.encode(answer)
