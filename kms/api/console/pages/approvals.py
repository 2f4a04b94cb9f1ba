"""Calls that wait for the approval of others: what is asked and by whom, and the answer of those who are asked."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from flask import Response
from msgspec import UNSET

from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.api.openapi import summary
from kms.approvals.model import OPEN, ApprovalState
from kms.errors import ApprovalPending, AuthenticationFailed, NotFound, Refusal
from kms.operations import OPERATIONS
from kms.operations.core.approving import PendingCall

_AT_ONCE = 100
_FOR_EVER = "This cannot be undone."


@page("/approvals")
def approvals(visit: Visit) -> Response:
    """Calls that the caller made or may approve, the newest first; those that wait, unless others are asked for."""
    state = visit.query.get("state", str(ApprovalState.PENDING))
    found, next_cursor, refusal = [], None, None
    wanted = {"state": state or None, "limit": _AT_ONCE, "cursor": visit.query.get("cursor") or None}
    try:
        listed = visit.run("list_approvals", wanted)
        found, next_cursor = listed.items, listed.next_cursor
    except AuthenticationFailed:
        raise
    except Refusal as error:
        refusal = error
    return visit.render(
        "approvals.html", refusal, found=found, state=state, states=list(ApprovalState), next_cursor=next_cursor
    )


@page("/approvals/<approval_id>")
def approval(visit: Visit, approval_id: str) -> Response:
    """One call: what is asked, how far it is, and what the caller may do about it."""
    found = visit.run("get_approval", approval_id=approval_id)
    return visit.render("approval.html", **_about(found), offered=_offered(visit, found))


def _about(found: Any) -> dict[str, Any]:
    """What pages show of a call; its request as JSON with sorted members, as its canonical form has them."""
    declared = OPERATIONS.get(found.operation)  # another node may run a release with more of them
    return {
        "approval": found,
        "name": _name(found),
        "meaning": summary(declared) if declared is not None else "",
        "asked": _pretty(msgspec.json.encode(found.request, order="sorted")),
        "is_redacted": {"redacted": True} in found.request["body"].values(),
    }


def _name(found: Any) -> str:
    return f"{found.operation} with {found.key_id}" if found.key_id else str(found.operation)


def _pretty(document: bytes) -> str:
    return msgspec.json.format(document, indent=2).decode()


def _offered(visit: Visit, found: Any) -> list[tuple[str, str]]:
    """What the caller can do about the call, each with the word on its button; the operation decides."""
    if found.state not in OPEN:
        return []
    if found.requester == visit.caller.client_id:
        return [("withdraw", "Withdraw")]
    has_approved = visit.caller.client_id in {each.client_id for each in found.approvals}
    if has_approved and found.state is ApprovalState.PENDING:
        return [("reject", "Reject")]
    return [("approve", "Approve"), ("reject", "Reject")]  # also once it is approved, if it was not carried out


@page("/approvals/<approval_id>/result")
def approval_result(visit: Visit, approval_id: str) -> Response:
    """The answer to a call that was carried out, which only who asked is shown. It may hold new credentials."""
    found = visit.run("get_approval", approval_id=approval_id)
    if found.result is UNSET:
        raise NotFound("There is no result, or not any more, or you are not the one who asked for it.")
    answer = msgspec.json.decode(found.result)
    return visit.render(
        "approval_result.html",
        approval=found,
        name=_name(found),
        result=_pretty(bytes(found.result)),
        totp_uri=answer.get("totp_uri") if isinstance(answer, dict) else None,
    )


def _approve(found: Any) -> list[str]:
    return [
        f"It has {found.given} of the {found.needed} approvals that it needs; yours is one more.",
        f"With the last of them it is carried out at once: as {found.requester}, exactly as it was asked.",
    ]


def _reject(found: Any) -> list[str]:
    return [
        f"{_name(found)} is not carried out, whatever others say. {found.requester} can ask again.",
        f"{found.requester} and the approvers see that you have rejected it, and why.",
    ]


ACTS: dict[str, Act] = {
    "approve": Act(
        "approve_call",
        "Approve {name}",
        "Approve",
        _approve,
        "While it still waits you can reject it. What is carried out is not undone.",
        "",
        template="approve.html",
    ),
    "reject": Act(
        "reject_call",
        "Reject {name}",
        "Reject",
        _reject,
        _FOR_EVER,
        "It is rejected.",
        template="reject.html",
        fields=("reason",),
        values=lambda visit: {"reason": visit.field("reason")},
    ),
    "withdraw": Act(
        "reject_call",
        "Withdraw {name}",
        "Withdraw",
        lambda found: [f"{_name(found)} is not carried out, and the approvals that it has are void."],
        "This can be undone. Ask again.",
        "It is withdrawn.",
        dangerous=False,
    ),
}
"""Every act on a call that waits, by its name in the path."""


@page("/approvals/<approval_id>/do/<act_name>")
def confirm_approval_act(visit: Visit, approval_id: str, act_name: str, refusal: Refusal | None = None) -> Response:
    """Show once more what is decided about, and ask if that is meant."""
    chosen = _act(act_name)
    found = visit.run("get_approval", approval_id=approval_id)
    return visit.render(
        chosen.template,
        refusal,
        fields=chosen.fields,
        act=chosen,
        title=chosen.title.format(name=_name(found)),
        effects=chosen.effects(found),
        back=f"/console/approvals/{found.approval_id}",
        **_about(found),
    )


@act("/approvals/<approval_id>/do/<act_name>", again=confirm_approval_act)
def do_approval_act(visit: Visit, approval_id: str, act_name: str) -> Response:
    """Do it."""
    chosen = _act(act_name)
    values = chosen.values(visit)
    if chosen.dangerous:
        visit.confirm()
    answer = visit.run(chosen.operation, values, approval_id=approval_id)
    return visit.go(f"/approvals/{answer.approval_id}", chosen.notice or _approved(answer))


def _approved(found: Any) -> str:
    """What has become of a call that was just approved."""
    if found.state is ApprovalState.DONE:
        return "You have approved it, and it is carried out."
    if found.state is ApprovalState.FAILED:
        return "You have approved it, and it could not be carried out."
    return f"You have approved it. It has {found.given} of {found.needed} approvals."


def to_waiting_call(visit: Visit, pending: ApprovalPending) -> Response:
    """Send the browser to a call that was not carried out, and say that it waits, and for how many."""
    waiting = cast(PendingCall, pending.waiting)
    people = "approval of somebody else" if waiting.needed == 1 else "approvals of other people"
    notice = f"This is not done yet: it needs {waiting.needed} {people}, and has {waiting.given}."
    return visit.go(f"/approvals/{waiting.approval_id}", notice)


def _act(name: str) -> Act:
    try:
        return ACTS[name]
    except KeyError:
        raise NotFound("There is no such page.") from None
