"""Decisions about a call that waits: it is approved, rejected, and in the end settled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from kms.access import callers
from kms.access.model import Caller, Client, ClientStatus
from kms.access.public_keys import CERTIFICATE
from kms.approvals.model import OPEN, Approval, ApprovalRule, ApprovalState
from kms.approvals.retention import without_secrets
from kms.clock import rfc3339
from kms.errors import Conflict, IntegrityFailure, PermissionDenied
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.sealing import SealBroken
from kms.vault.transaction import Snapshot

CARRYING_OUT = timedelta(minutes=2)
"""For how long whoever carries a call out is left to it; then another approver may have it carried out."""


_RULES_CHANGED = "A rule that covers this call was changed or removed after it was made. Make the call again."


def rules_of(snapshot: Snapshot, approval: Approval) -> list[ApprovalRule]:
    """The rules that cover the call. Raises Conflict where one is not as it was when the call was made."""
    found = []
    for name, revision in approval.rules.items():
        rule = snapshot.find(ApprovalRule, name)
        if rule is None or rule.revision != revision:
            raise Conflict(_RULES_CHANGED)
        found.append(rule)
    return found


def require_approver(snapshot: Snapshot, approval: Approval, rules: Iterable[ApprovalRule], caller: Caller) -> None:
    """Return if `caller` may approve the call or reject it. Raises PermissionDenied.

    A client that was made after the call counts for nobody: otherwise who may make clients could approve alone.
    """
    if caller.client_id == approval.requester:
        raise PermissionDenied("Nobody approves what they have asked for themselves.")
    if not any(rule.lets_approve(caller) for rule in rules):
        raise PermissionDenied(f"{caller.client_id} is none of the approvers of this call.")
    client = snapshot.find(Client, caller.client_id)
    if client is None or client.created_at > approval.created_at:
        raise PermissionDenied(f"{caller.client_id} was made after this call, and cannot approve it.")


def counted(snapshot: Snapshot, approval: Approval, rules: Iterable[ApprovalRule]) -> dict[str, int]:
    """For each rule how many of those who approved are its approvers, and enabled, still."""
    approvers = []
    for client_id in approval.given:
        client = snapshot.find(Client, client_id)
        if client is not None and client.status is ClientStatus.ENABLED:
            approvers.append(callers.of(snapshot, client))
    return {rule.name: sum(map(rule.lets_approve, approvers)) for rule in rules}


def approve(change: Change, approval: Approval, caller: Caller, now: datetime) -> Approval:
    """Note that `caller` approves, and return the call: `approved` where that was the last approval it needed.

    Whoever gets it as `approved` carries it out, and nobody else for `CARRYING_OUT`. Raises PermissionDenied, and
    Conflict if the call does not wait any more.
    """
    rules = rules_of(change, approval) if approval.state_at(now) in OPEN else []
    if approval.state_at(now) is ApprovalState.APPROVED:
        require_approver(change, approval, rules, caller)
        _require_left(approval, now)
        return change.replace(approval, replace(approval, began_at=now))
    if approval.state_at(now) is not ApprovalState.PENDING:
        raise not_waiting(approval, now)
    require_approver(change, approval, rules, caller)
    given = {**approval.given, caller.client_id: approval.given.get(caller.client_id, rfc3339(now))}
    after = replace(approval, given=given)
    count = counted(change, after, rules)
    if all(count[rule.name] >= rule.approvals for rule in rules):
        after = replace(after, state=ApprovalState.APPROVED, began_at=now)
    return change.replace(approval, after)


def reject(change: Change, approval: Approval, caller: Caller, reason: str, now: datetime) -> Approval:
    """Note that `caller`, an approver or who asked, ends the call. Raises PermissionDenied, Conflict.

    Also one that was approved, if whoever was to carry it out has not.
    """
    if approval.state_at(now) not in OPEN:
        raise not_waiting(approval, now)
    _require_left(approval, now)
    if caller.client_id != approval.requester:
        require_approver(change, approval, rules_of(change, approval), caller)
    failure = {"type": "withdrawn" if caller.client_id == approval.requester else "rejected", "detail": reason}
    return settle(change, approval, ApprovalState.REJECTED, now, caller.client_id, failure)


def _require_left(approval: Approval, now: datetime) -> None:
    """Raise Conflict while somebody carries the call out."""
    began_at = approval.began_at if approval.state is ApprovalState.APPROVED else None
    if began_at is not None and abs(now - began_at) < CARRYING_OUT:  # also by a clock that is a little ahead
        raise Conflict("The call is approved, and is being carried out.")


def left_over(snapshot: Snapshot, now: datetime, limit: int) -> list[Approval]:
    """Up to `limit` approved calls that whoever was to carry out has not, because it was stopped."""
    column = tables.approvals.c
    since = column.began_at <= microseconds(now - CARRYING_OUT)
    found = snapshot.select(Approval, column.state == ApprovalState.APPROVED, since, limit=limit)
    return [each for each in found if each.state_at(now) is ApprovalState.APPROVED]


def take_over(change: Change, seen: Approval, now: datetime) -> Approval | None:
    """Begin to carry out again what was `left_over`; None where somebody else has begun, or the call is settled."""
    found = change.find(Approval, seen.approval_id)
    if found is None or found.state is not ApprovalState.APPROVED or found.began_at != seen.began_at:
        return None
    return change.replace(found, replace(found, began_at=now))


def end_calls_of(change: Change, client_id: str, by: str, now: datetime) -> None:
    """End every open call of a client, because its sessions are ended: one of them may have been stolen."""
    _end(change, open_calls_of(change, client_id, now), "Every session of who asked was ended.", by, now)


def end_calls_made_with(change: Change, credential: str, client_id: str, by: str, now: datetime) -> None:
    """End every open call of a client that rests on `credential`, because that is ended: it may have been stolen.

    One certificate may have many thumbprints, so where one is ended the calls of all end.
    """
    resting = [each for each in open_calls_of(change, client_id, now) if _rests_on(each, credential)]
    _end(change, resting, "What proved who asked was ended.", by, now)


def open_calls_of(snapshot: Snapshot, client_id: str, now: datetime) -> list[Approval]:
    """The calls of a client that may still be carried out."""
    found = [each for state in OPEN for each in snapshot.matching(Approval, requester=client_id, state=state)]
    return [each for each in found if each.state_at(now) in OPEN]


def _rests_on(approval: Approval, credential: str) -> bool:
    rests_on = [approval.asked["credential"], *approval.asked.get("rests_on", ())]
    if credential.startswith(CERTIFICATE):
        return any(each.startswith(CERTIFICATE) for each in rests_on)
    return credential in rests_on


def _end(change: Change, calls: Iterable[Approval], why: str, by: str, now: datetime) -> None:
    failure = {"type": "conflict", "detail": f"{why} Make the call again."}
    for each in calls:
        settle(change, each, ApprovalState.FAILED, now, by, failure)


def settle(
    change: Change,
    approval: Approval,
    state: ApprovalState,
    now: datetime,
    by: str = "",
    failure: dict[str, str] | None = None,
    result: bytes | None = None,
) -> Approval:
    """Note how the call ended; `result` is its answer as JSON, which is sealed. What was asked goes."""
    if result is not None:
        context = sealed_columns.approval(approval.approval_id, approval.requester, "result")
        result = change.derived_keys.seal(result, context)
    after = replace(
        approval, state=state, decided_at=now, decided_by=by, failure=failure or {}, result=result or approval.result
    )
    return change.replace(approval, without_secrets(change, after))


def result_of(snapshot: Snapshot, approval: Approval) -> bytes | None:
    """The answer to the call as JSON, None where there is none any more. Raises IntegrityFailure."""
    if approval.result is None:
        return None
    context = sealed_columns.approval(approval.approval_id, approval.requester, "result")
    try:
        return snapshot.derived_keys.open(approval.result, context)
    except SealBroken:
        raise IntegrityFailure("The result of the call was altered outside the service.") from None


def not_waiting(approval: Approval, now: datetime) -> Conflict:
    """The refusal of what is decided about a call that does not wait any more."""
    return Conflict(f"This call does not wait for approval any more: it is {approval.state_at(now)}.")
