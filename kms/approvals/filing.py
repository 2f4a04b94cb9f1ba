"""A call begins to wait for approval: it is sealed in its canonical form, and waits once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from kms.access import sessions
from kms.access.access_keys import AccessKey
from kms.access.model import Caller, Client
from kms.approvals.canonical import CanonicalCall, same
from kms.approvals.model import Approval, ApprovalRule, ApprovalState
from kms.errors import Conflict, IntegrityFailure, TooLarge
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.sealing import SealBroken
from kms.vault.transaction import Snapshot

LARGEST = 256 * 1024
"""How many bytes the canonical form of a call that waits may have: it is kept, and shown in lists."""


MOST_OPEN = 100
"""How many calls of one client may wait at a time."""

MOST_IN_A_DAY = 1000
"""How many calls of one client are kept of one day, however soon they are withdrawn: approvers are told of each."""

MOST_BYTES = 8 * 1024 * 1024
"""How many bytes one client has kept: of calls that wait, and of the form that is shown of those of one day."""

_DAY = timedelta(days=1)


def file(
    change: Change,
    caller: Caller,
    rules: Sequence[ApprovalRule],
    asked: CanonicalCall,
    key_id: str,
    keys: dict[str, str],
    source: str,
    now: datetime,
) -> tuple[Approval, bool]:
    """Let the call wait, and return it, and whether it is new: the same call of the same client waits once.

    Raises Conflict beyond what a client may have kept, and TooLarge for a call beyond `LARGEST`.
    """
    if len(asked.content) > LARGEST:
        raise TooLarge(
            f"A call that waits for approval has at most {LARGEST} bytes; this one has {len(asked.content)}."
        )
    document, given = asked.shown, _asked(change, caller, source) | {"keys": keys}
    same_as = change.derived_keys.credential_hash("approval", caller.client_id.encode(), same(asked.content))
    revisions = {rule.name: rule.revision for rule in rules}
    column = tables.approvals.c
    is_open = and_(column.state == ApprovalState.PENDING, column.expires_at > microseconds(now))
    for each in change.select(Approval, column.requester == caller.client_id, is_open, column.same_as == same_as):
        if each.rules == revisions and _who(each.asked) == _who(given):
            return each, False
    _require_few(change, caller.client_id, len(asked.content), is_open, now)
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


def _require_few(snapshot: Snapshot, client_id: str, size: int, is_open: ColumnElement[bool], now: datetime) -> None:
    """Raise Conflict if too much of the client is kept. Reads no call, only how many there are, and how large."""
    column = tables.approvals.c
    counted = or_(is_open, column.created_at > microseconds(now - _DAY))
    kept = func.sum(func.length(column.request) + func.length(column.shown))
    query = select(func.count(), func.sum(case((is_open, 1), else_=0)), kept)
    of_a_day, waiting, taken = snapshot.connection.execute(query.where(column.requester == client_id, counted)).one()
    if (waiting or 0) >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} calls of {client_id} wait for approval already. Withdraw some of them.")
    if of_a_day >= MOST_IN_A_DAY:
        raise Conflict(
            f"{client_id} has had {MOST_IN_A_DAY} calls wait for approval within a day. Wait for tomorrow."
        )
    if (taken or 0) + size > MOST_BYTES:
        raise Conflict(
            f"The calls of {client_id} that wait for approval, and those of the last day, have {MOST_BYTES} bytes "
            "already. Withdraw some of them, or wait for tomorrow."
        )


def keys_named(snapshot: Snapshot, key_ids: Iterable[str]) -> dict[str, str]:
    """The uids (hexadecimal) of the keys that have these ids or aliases now, by those; empty where no key has one."""
    found = ((name, snapshot.key_named(name)) for name in key_ids)
    return {name: "" if key is None else key.uid.hex() for name, key in found}


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


def _asked(snapshot: Snapshot, caller: Caller, source: str) -> dict[str, Any]:
    client = snapshot.find(Client, caller.client_id)
    assert client is not None
    asked: dict[str, Any] = {
        "source": source,
        "credential": caller.credential,
        "subject": caller.subject,
        "issuer_role": caller.issuer_role,
        "scope": sorted(caller.scope.words) if caller.scope is not None else [],
        "secret_digest": secret_digest(client),
    }
    if rests_on := _behind(snapshot, caller.credential):
        asked["rests_on"] = rests_on
    if caller.access_key_id is not None and caller.expires_at is not None:
        asked |= {"access_key_id": caller.access_key_id, "expires_at": microseconds(caller.expires_at)}
    if caller.second_factor_at is not None:
        asked["second_factor_at"] = microseconds(caller.second_factor_at)
    return asked


def _behind(snapshot: Snapshot, credential: str) -> list[str]:
    """What stands behind a credential: for an access key what had proven who made it, and so on.

    It is kept with the call, for access keys that have expired are not.
    """
    found: list[str] = []
    while credential.startswith(sessions.ACCESS_KEY):
        key = snapshot.find(AccessKey, credential.removeprefix(sessions.ACCESS_KEY))
        if key is None or key.credential in found:
            break
        credential = key.credential
        found.append(credential)
    return found


def _who(asked: dict[str, Any]) -> tuple[Any, ...]:
    return asked["scope"], asked["issuer_role"], asked["secret_digest"], asked["keys"]


def secret_digest(client: Client) -> str:
    """By which it is recognised that the secret of a client was changed. Of a hash, so it tells nothing more."""
    return sha256(client.secret_hash.encode()).hexdigest()
