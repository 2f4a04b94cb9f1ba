"""An approved call is carried out: as who asked, if they still may, and once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from kms.access import callers, scope
from kms.access.access_keys import AccessKey
from kms.access.issuers import IssuerRole
from kms.access.model import Caller, Client
from kms.access.public_keys import KEY, PublicKey
from kms.approvals.deciding import counted, rules_of, settle
from kms.approvals.filing import keys_named, secret_digest
from kms.approvals.model import Approval, ApprovalRule, ApprovalState
from kms.errors import AuthenticationFailed, Conflict, Refusal
from kms.vault.change import Change
from kms.vault.records import moment_of
from kms.vault.transaction import Snapshot

ANOTHER_KEY = "A key id or alias in this call does not name what it named when the call was made."


def requester_of(snapshot: Snapshot, approval: Approval, now: datetime) -> Caller:
    """Who asked, as they are now, with the scope they had. Their second factor is as old as when they asked.

    Raises AuthenticationFailed if the client is not enabled any more, or what proved it was changed or removed.
    """
    asked = approval.asked
    client = snapshot.find(Client, approval.requester)
    caller = callers.enabled(snapshot, approval.requester)
    assert client is not None
    if asked["secret_digest"] != secret_digest(client):
        raise AuthenticationFailed("The credentials of the client were changed after it had asked for this.")
    given_at = moment_of(asked["second_factor_at"]) if "second_factor_at" in asked else None
    if asked["issuer_role"]:
        role = snapshot.find(IssuerRole, asked["issuer_role"])
        if role is None or role.client_id != client.client_id:
            raise AuthenticationFailed("The issuer role of who asked for this is gone.")
    if asked["credential"].startswith(KEY):
        key = snapshot.find(PublicKey, client.client_id, asked["credential"].removeprefix(KEY))
        if key is not None and key.expires_at is not None and now >= key.expires_at:
            raise AuthenticationFailed("The public key with which this was asked has expired.")
    by_access_key = "access_key_id" in asked and now < moment_of(
        asked["expires_at"]
    )  # later it may be gone by itself
    if by_access_key and snapshot.find(AccessKey, asked["access_key_id"]) is None:
        raise AuthenticationFailed("The access key with which this was asked was deleted.")
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


Covers = Callable[[Iterable[ApprovalRule], datetime], Iterable[ApprovalRule]]
"""Which of some rules cover a call at a time."""


@dataclass
class CarryingOut:
    """The carrying out of an approved call. The first change that it makes is the one that settles it.

    `is_settled` once such a change is committed. `covers` finds the rules that cover the call, once it is decoded.
    """

    approval: Approval
    by: str
    is_settled: bool = False
    covers: Covers = lambda _rules, _now: ()

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
        """The call as it is now, still approved, on the same keys, and to be carried out by this one.

        Raises Conflict.
        """
        found = snapshot.find(Approval, self.approval_id)
        if (
            found is None
            or found.state_at(now) is not ApprovalState.APPROVED
            or found.began_at != self.approval.began_at
        ):
            raise Conflict("This call is not to be carried out any more.")
        rules = rules_of(snapshot, found)
        count = counted(snapshot, found, rules)
        if any(count[rule.name] < rule.approvals for rule in rules):
            raise Conflict("Somebody who had approved this call may not approve it any more.")
        covering = self.covers(snapshot.matching(ApprovalRule), now)
        if not all(rule.name in found.rules for rule in covering):
            raise Conflict("A rule that was made after this call covers it too. Make the call again.")
        keys = found.asked["keys"]
        if keys_named(snapshot, keys) != keys:
            raise Conflict(ANOTHER_KEY)
        return found


def failure_of(refusal: Refusal) -> dict[str, str]:
    """How a refusal is kept."""
    return {"type": refusal.problem, "detail": refusal.detail}
