"""Whether enough clients are there who may approve, so that no rule can lock everybody out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from kms.access import groups
from kms.access.model import Client, ClientStatus, Role
from kms.approvals.model import ApprovalRule
from kms.errors import Conflict
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

_GROUP = "group:"


def require_enough_approvers(snapshot: Snapshot, rule: ApprovalRule) -> None:
    """Raise Conflict for a rule whose change some administrator could ask for in vain: too few could approve it.

    It must be so for each of them. Otherwise one administrator could make a rule that only they can get changed.
    """
    enabled = [client for client in snapshot.matching(Client) if client.status is ClientStatus.ENABLED]
    if not _is_enough(snapshot, rule, enabled):
        raise Conflict(
            f"Too few clients can approve: {rule.approvals} approvers are needed beside whichever administrator asks "
            "for a change of the rule, or nobody else could change it any more."
        )


@contextmanager
def keeping_approvers(change: Change) -> Iterator[None]:
    """A part of a change that may take approvers away for good, as a context manager.

    Raises Conflict where a rule had enough of them before, and has not afterwards. Those who are disabled count, for
    they can be enabled again.
    """
    rules = change.matching(ApprovalRule, order_by="name")
    before = _too_few(change, rules)
    yield
    after = [name for name in _too_few(change, rules) if name not in before]
    if after:
        raise Conflict(
            f"Too few clients could approve what the approval rule {after[0]} covers. Make another approver first, "
            "or have the rule changed."
        )


def _too_few(snapshot: Snapshot, rules: Iterable[ApprovalRule]) -> list[str]:
    """The names of rules with too few approvers."""
    kept: list[Client] | None = None
    found = []
    for rule in rules:
        if kept is None:
            kept = [client for client in snapshot.matching(Client) if client.status is not ClientStatus.DELETED]
        if not _is_enough(snapshot, rule, kept):
            found.append(rule.name)
    return found


def _is_enough(snapshot: Snapshot, rule: ApprovalRule, clients: Iterable[Client]) -> bool:
    """Whether each administrator among `clients` finds enough approvers of the rule among the others."""
    approving = _approvers(snapshot, rule, clients)
    administrators = [client.client_id for client in clients if Role.ADMIN in client.roles]
    return all(len(approving - {each}) >= rule.approvals for each in administrators)


def _approvers(snapshot: Snapshot, rule: ApprovalRule, clients: Iterable[Client]) -> set[str]:
    named = [each.removeprefix(_GROUP) for each in rule.approvers if each.startswith(_GROUP)]
    members = {member.client_id for name in named for member in groups.members(snapshot, name)}
    found = set()
    for client in clients:
        words = {client.client_id} | {f"role:{role}" for role in client.roles}
        if client.client_id in members or not rule.approvers.isdisjoint(words):
            found.add(client.client_id)
    return found
