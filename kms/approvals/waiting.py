"""What happens to a call that waits, each step in one change: it is filed, approved, rejected, and carried out."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from kms.access import callers, scope
from kms.access.issuers import IssuerRole
from kms.access.model import Caller, Client, ClientStatus
from kms.approvals.canonical import CanonicalCall, same
from kms.approvals.model import Approval, ApprovalRule, ApprovalState
from kms.clock import rfc3339
from kms.errors import AuthenticationFailed, Conflict, IntegrityFailure, PermissionDenied, Refusal
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import microseconds, moment_of
from kms.vault.sealing import SealBroken
from kms.vault.transaction import Snapshot

MOST_OPEN = 100
"""How many calls of one client may wait at a time."""

CARRYING_OUT = timedelta(minutes=2)
"""For how long whoever carries a call out is left to it; then another approver may have it carried out."""

_KEPT = timedelta(days=30)
_RULES_CHANGED = "A rule that covers this call was changed or removed after it was made. Make the call again."


def file(
    change: Change,
    caller: Caller,
    rules: Sequence[ApprovalRule],
    asked: CanonicalCall,
    key_id: str,
    source: str,
    now: datetime,
) -> tuple[Approval, bool]:
    """Let the call wait, and return it, and whether it is new: the same call of the same client waits once.

    Raises Conflict if too many calls of the client wait already.
    """
    document, given = asked.shown, _asked(change, caller, source)
    same_as = change.derived_keys.credential_hash("approval", caller.client_id.encode(), same(asked.content))
    waiting = change.matching(Approval, requester=caller.client_id, state=ApprovalState.PENDING)
    waiting = [each for each in waiting if now < each.expires_at]
    revisions = {rule.name: rule.revision for rule in rules}
    for each in waiting:
        if each.same_as == same_as and each.rules == revisions and _who(each.asked) == _who(given):
            return each, False
    if len(waiting) >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} calls of {caller.client_id} wait for approval already. Withdraw some of them.")
    approval_id = secrets.token_hex(16)
    context = sealed_columns.approval(approval_id, caller.client_id, "request")
    made = Approval(
        approval_id=approval_id,
        requester=caller.client_id,
        operation=document["operation"],
        key_id=key_id,
        state=ApprovalState.PENDING,
        request=change.derived_keys.seal(asked.content, context),
        request_hash=asked.sha256,
        same_as=same_as,
        shown=document,
        rules=revisions,
        given={},
        asked=given,
        created_at=now,
        expires_at=now + min(rule.expires_in for rule in rules),
    )
    change.insert(made)
    return made, True


def content_of(snapshot: Snapshot, approval: Approval) -> bytes:
    """The canonical form of what was asked. Raises IntegrityFailure where it is not what was hashed."""
    context = sealed_columns.approval(approval.approval_id, approval.requester, "request")
    try:
        content = snapshot.derived_keys.open(approval.request, context)
    except SealBroken:
        content = b""
    if sha256(content).digest() != approval.request_hash:
        raise IntegrityFailure("The call was altered outside the service while it waited for approval.")
    return content


def result_of(snapshot: Snapshot, approval: Approval) -> bytes | None:
    """The answer to the call as JSON, None where there is none any more. Raises IntegrityFailure."""
    if approval.result is None:
        return None
    context = sealed_columns.approval(approval.approval_id, approval.requester, "result")
    try:
        return snapshot.derived_keys.open(approval.result, context)
    except SealBroken:
        raise IntegrityFailure("The result of the call was altered outside the service.") from None


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
    rules = rules_of(change, approval) if approval.state_at(now) in _WAITS else []
    if approval.state_at(now) is ApprovalState.APPROVED:
        require_approver(change, approval, rules, caller)
        if approval.began_at is not None and approval.began_at <= now < approval.began_at + CARRYING_OUT:
            raise Conflict("The call is approved, and is being carried out.")
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
    """Note that `caller`, an approver or who asked, ends the call. Raises PermissionDenied, Conflict."""
    if approval.state_at(now) is not ApprovalState.PENDING:
        raise not_waiting(approval, now)
    if caller.client_id != approval.requester:
        require_approver(change, approval, rules_of(change, approval), caller)
    failure = {"type": "withdrawn" if caller.client_id == approval.requester else "rejected", "detail": reason}
    return settle(change, approval, ApprovalState.REJECTED, now, caller.client_id, failure)


def settle(
    change: Change,
    approval: Approval,
    state: ApprovalState,
    now: datetime,
    by: str = "",
    failure: dict[str, str] | None = None,
    result: bytes | None = None,
) -> Approval:
    """Note how the call ended; `result` is its answer as JSON, which is sealed."""
    if result is not None:
        context = sealed_columns.approval(approval.approval_id, approval.requester, "result")
        result = change.derived_keys.seal(result, context)
    after = replace(
        approval, state=state, decided_at=now, decided_by=by, failure=failure or {}, result=result or approval.result
    )
    return change.replace(approval, after)


def not_waiting(approval: Approval, now: datetime) -> Conflict:
    """The refusal of what is decided about a call that does not wait any more."""
    return Conflict(f"This call does not wait for approval any more: it is {approval.state_at(now)}.")


def requester_of(snapshot: Snapshot, approval: Approval, now: datetime) -> Caller:
    """Who asked, as they are now, with the scope they had. Their second factor is as old as when they asked.

    Raises AuthenticationFailed if the client is not enabled any more, or what proved it was changed or removed.
    """
    asked = approval.asked
    client = snapshot.find(Client, approval.requester)
    caller = callers.enabled(snapshot, approval.requester)
    assert client is not None
    if asked["secret_digest"] != _secret_digest(client):
        raise AuthenticationFailed("The credentials of the client were changed after it had asked for this.")
    given_at = moment_of(asked["second_factor_at"]) if "second_factor_at" in asked else None
    if asked["issuer_role"]:
        role = snapshot.find(IssuerRole, asked["issuer_role"])
        if role is None or role.client_id != client.client_id:
            raise AuthenticationFailed("The issuer role of who asked for this is gone.")
    caller = replace(
        caller,
        credential=asked["credential"],
        subject=asked["subject"],
        issuer_role=asked["issuer_role"],
        scope=scope.of(asked["scope"]),
        second_factor_at=given_at + (now - approval.created_at) if given_at is not None else None,
        proven_by=(client.secret_hash, client.totp_secret),
    )
    return callers.again(snapshot, caller)


def forgotten(change: Change, now: datetime, limit: int) -> list[Approval]:
    """Up to `limit` calls that nobody will ask about any more; the audit log has what became of them."""
    column, before = tables.approvals.c, microseconds(now - _KEPT)
    found = change.select(Approval, column.decided_at < before, limit=limit)
    expired = column.state == ApprovalState.PENDING, column.expires_at < before
    return found + change.select(Approval, *expired, limit=limit - len(found))


def forget_results(change: Change, before: datetime, limit: int) -> None:
    """Erase the results of up to `limit` calls that were carried out before that moment."""
    column = tables.approvals.c
    old = change.select(Approval, column.decided_at < microseconds(before), column.result.is_not(None), limit=limit)
    change.replace_all([(each, replace(each, result=None)) for each in old])


@dataclass
class CarryingOut:
    """The carrying out of an approved call. The first change that it makes is the one that settles it.

    `is_settled` once such a change is committed.
    """

    approval: Approval
    by: str
    is_settled: bool = False

    @property
    def approval_id(self) -> str:
        """Which call it is."""
        return self.approval.approval_id

    def settle_in(self, change: Change, now: datetime) -> None:
        """Settle the call in the change that carries it out, so that neither is there without the other.

        Raises Conflict if it is not to be carried out any more, or not by this one.
        """
        if not self.is_settled:
            settle(change, self.require_in(change, now), ApprovalState.DONE, now, self.by)

    def require_in(self, snapshot: Snapshot, now: datetime) -> Approval:
        """The call as it is now, still approved, and to be carried out by this one. Raises Conflict."""
        found = snapshot.find(Approval, self.approval_id)
        if found is None or found.state is not ApprovalState.APPROVED or found.began_at != self.approval.began_at:
            raise Conflict("This call is not to be carried out any more.")
        rules = rules_of(snapshot, found)
        count = counted(snapshot, found, rules)
        if any(count[rule.name] < rule.approvals for rule in rules):
            raise Conflict("Somebody who had approved this call may not approve it any more.")
        return found


def failure_of(refusal: Refusal) -> dict[str, str]:
    """How a refusal is kept."""
    return {"type": refusal.problem, "detail": refusal.detail}


_WAITS = (ApprovalState.PENDING, ApprovalState.APPROVED)


def _asked(snapshot: Snapshot, caller: Caller, source: str) -> dict[str, Any]:
    client = snapshot.find(Client, caller.client_id)
    assert client is not None
    asked: dict[str, Any] = {
        "source": source,
        "credential": caller.credential,
        "subject": caller.subject,
        "issuer_role": caller.issuer_role,
        "scope": sorted(caller.scope.words) if caller.scope is not None else [],
        "secret_digest": _secret_digest(client),
    }
    if caller.second_factor_at is not None:
        asked["second_factor_at"] = microseconds(caller.second_factor_at)
    return asked


def _who(asked: dict[str, Any]) -> tuple[Any, ...]:
    return asked["scope"], asked["issuer_role"], asked["secret_digest"]


def _secret_digest(client: Client) -> str:
    return sha256(client.secret_hash.encode()).hexdigest()
