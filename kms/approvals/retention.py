"""How long calls that waited are kept: the audit log has what became of them for longer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from kms.approvals.model import OPEN, Approval, ApprovalState
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import microseconds

_KEPT = timedelta(days=30)


def expire(change: Change, found: Iterable[Approval], now: datetime) -> None:
    """Note of those whose time is over that it is."""
    over = [each for each in found if each.state in OPEN and each.state_at(now) is ApprovalState.EXPIRED]
    change.replace_all(
        [(each, without_secrets(change, replace(each, state=ApprovalState.EXPIRED, decided_at=now))) for each in over]
    )


def without_secrets(change: Change, approval: Approval) -> Approval:
    """The call without what was sealed of it, which nobody needs once it is settled.

    Its hash stays, and the form that is shown. Without the salt the hash tells nothing of what is not shown.
    """
    context = sealed_columns.approval(approval.approval_id, approval.requester, "request")
    return replace(approval, request=change.derived_keys.seal(b"", context), same_as=b"")


def expire_old(change: Change, now: datetime, limit: int) -> None:
    """`expire` up to `limit` of all."""
    column = tables.approvals.c
    for state in OPEN:
        old = column.state == state, column.expires_at < microseconds(now)
        expire(change, change.select(Approval, *old, limit=limit), now)


def forgotten(change: Change, now: datetime, limit: int) -> list[Approval]:
    """Up to `limit` calls that nobody will ask about any more; the audit log has what became of them."""
    return change.select(Approval, tables.approvals.c.decided_at < microseconds(now - _KEPT), limit=limit)


def forget_results(change: Change, before: datetime, limit: int) -> None:
    """Erase the results of up to `limit` calls that were carried out before that moment."""
    column = tables.approvals.c
    old = change.select(Approval, column.decided_at < microseconds(before), column.result.is_not(None), limit=limit)
    change.replace_all([(each, replace(each, result=None)) for each in old])
