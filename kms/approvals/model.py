"""Rules that make calls wait for other people, and the calls that wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kms.access.model import Caller
from kms.enums import TextEnum
from kms.vault import names, tables
from kms.vault.records import stored_in

APPROVED_FOR = timedelta(hours=1)
"""For how long after its time a call that was approved can still be carried out, where that was interrupted."""

LONGEST_BREAK = timedelta(days=1)
"""For how long at most an operator on the host can lift a rule."""


class ApprovalState(TextEnum):
    """How far a call has come. Only `done` means that it was carried out."""

    PENDING = "pending"
    APPROVED = "approved"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"


OPEN = (ApprovalState.PENDING, ApprovalState.APPROVED)
"""States in which a call may still be carried out."""


@stored_in(tables.approval_rules)
@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """A rule: calls that it covers wait until `approvals` of the `approvers` have approved them.

    It covers calls that ask for one of `permissions` and are one of `operations` (empty: any), on keys whose id
    matches `key_pattern`. `approvers` are names of clients, `role:NAME` and `group:NAME`. A call that was not
    approved `expires_in` after it was made is not carried out. `revision` is another after each change. Until
    `lifted_until` the rule covers nothing, because an operator on the host has lifted it.
    """

    name: str
    revision: str
    permissions: frozenset[str]
    operations: frozenset[str]
    key_pattern: str
    approvals: int
    approvers: frozenset[str]
    expires_in: timedelta
    created_by: str
    created_at: datetime
    lifted_until: datetime | None = None

    def is_lifted(self, now: datetime) -> bool:
        """Whether it is out of force at `now`. A date beyond what can be set is one from a clock that was ahead."""
        return self.lifted_until is not None and now < self.lifted_until <= now + LONGEST_BREAK

    def lets_approve(self, caller: Caller) -> bool:
        """Whether `caller` is one of its approvers."""
        words = {caller.client_id}
        words |= {f"role:{role}" for role in caller.roles} | {f"group:{group}" for group in caller.groups}
        return not self.approvers.isdisjoint(words)


names.bears(ApprovalRule, lambda _: names.APPROVAL_RULES, when_added=True)


@stored_in(tables.approvals)
@dataclass(frozen=True, slots=True)
class Approval:
    """A call that waits for approval, or that waited for it.

    `request` is what was asked, in its canonical form (see `canonical`), sealed; `request_hash` is the SHA-256 of
    that form, `same_as` a keyed hash by which the same call is recognised, and `shown` the form without secrets.
    Once the call is settled, `request` is sealed nothing, and `same_as` is empty.
    `rules` has for each rule that covers the call its revision; `given` has when each client approved. `asked` has
    the rest of what the call came with: source, credential, scope. `began_at` is when it began to be carried out.
    Once the call is settled, `decided_at` says when, and `decided_by` by whom. `result` is its answer, sealed.
    """

    approval_id: str
    requester: str
    operation: str
    key_id: str
    state: ApprovalState
    request: bytes = field(repr=False)
    request_hash: bytes
    same_as: bytes = field(repr=False)
    shown: dict[str, Any]
    rules: dict[str, str]
    given: dict[str, str]
    asked: dict[str, Any]
    created_at: datetime
    expires_at: datetime
    began_at: datetime | None = None
    decided_at: datetime | None = None
    decided_by: str = ""
    failure: dict[str, str] = field(default_factory=dict)
    result: bytes | None = field(default=None, repr=False)

    def state_at(self, now: datetime) -> ApprovalState:
        """Its state at `now`: one that waits is `expired` from its time on, also where no row says so yet."""
        patience = APPROVED_FOR if self.state is ApprovalState.APPROVED else timedelta()
        return ApprovalState.EXPIRED if self.state in OPEN and now >= self.expires_at + patience else self.state
