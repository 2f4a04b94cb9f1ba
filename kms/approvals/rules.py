"""The rules in force, known from memory: whether any may cover an operation is one look-up for each call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property

from kms.access.policy import Permission
from kms.approvals.model import ApprovalRule
from kms.errors import IntegrityFailure, Unavailable
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.checking import fits_in
from kms.vault.head import TableDigest
from kms.vault.memory import Memory, Standing
from kms.vault.store import Vault

Asking = Mapping[str, frozenset[Permission]]
"""Every operation that rules can cover, with all permissions that a call of it may ask for."""

OF_RULES = frozenset({"update_approval_rule", "delete_approval_rule"})
"""What each rule covers for itself, whatever else it covers."""


class RulesInForce:
    """The rules by the operations that they may cover."""

    def __init__(self, vault: Vault, memory: Memory, asking: Callable[[], Asking]) -> None:
        """`asking` gives every operation that rules can cover; it is called once they are all declared."""
        self._vault = vault
        self._asking = asking
        self._memory = memory
        self._known: tuple[dict[str, tuple[ApprovalRule, ...]], Standing, TableDigest | None]
        self._known = {}, Standing((), -1), None

    def may_cover(self, operation: str) -> tuple[ApprovalRule, ...]:
        """The rules that cover calls of an operation, or some of them. The caller has called `Memory.require`.

        Raises Unavailable, IntegrityFailure.
        """
        known, standing, _ = self._known
        epoch = self._memory.epoch
        if standing.epoch != epoch and not (standing.epoch >= 0 and standing.holds(epoch)):
            known = self._read()
        return known.get(operation, ())

    def require_none_new(self, change: Change, operation: str, seen: Collection[ApprovalRule]) -> None:
        """Raise Unavailable if in `change` a rule may cover the operation that is none of those `seen` before.

        The change may have waited for its turn, or for a key to be made, and the rule is to hold already.
        """
        known, _, digest = self._known
        is_known = digest is not None and digest == change.digests.get(tables.approval_rules.name)
        if is_known and names.APPROVAL_RULES not in change.outdated_before:
            found = known.get(operation, ())
        else:
            asks = self._asks.get(operation)
            rules = change.matching(ApprovalRule)
            found = tuple(rule for rule in rules if operation in OF_RULES or _may_cover(rule, operation, asks))
        if not all(rule in seen for rule in found):
            raise Unavailable("The approval rules were changed meanwhile. Send this again.", retry_after=1)

    def _read(self) -> dict[str, tuple[ApprovalRule, ...]]:
        """What `may_cover` looks up, read now and kept until a change names the rules."""
        epoch = self._memory.epoch
        with self._vault.read() as snapshot:
            rules = snapshot.matching(ApprovalRule, order_by="name")
            # Without this a row that is taken away, and put back later, would be a rule that nobody misses.
            is_whole = fits_in(snapshot, tables.approval_rules)
            digest = snapshot.head().digest(tables.approval_rules)
        if not is_whole:
            self._vault.stop_trusting("The rows of approval_rules are not those that the service wrote.")
            raise IntegrityFailure("The approval rules were altered outside the service.")
        found = self._by_operation(rules)
        standing = self._memory.standing(epoch, (names.APPROVAL_RULES,))
        if standing is not None:
            self._known = found, standing, digest
        return found

    @cached_property
    def _asks(self) -> Asking:
        return self._asking()

    def _by_operation(self, rules: Collection[ApprovalRule]) -> dict[str, tuple[ApprovalRule, ...]]:
        if not rules:
            return {}
        found = {name: tuple(rule for rule in rules if covers(rule, name, asks)) for name, asks in self._asks.items()}
        found |= {name: tuple(rules) for name in OF_RULES}
        return {name: each for name, each in found.items() if each}


def _may_cover(rule: ApprovalRule, operation: str, asks: frozenset[Permission] | None) -> bool:
    return asks is not None and covers(rule, operation, asks)


def covers(rule: ApprovalRule, operation: str, asks: frozenset[Permission]) -> bool:
    """Whether `rule` covers the operation with these permissions, whatever the key."""
    is_named = not rule.operations or operation in rule.operations
    return is_named and (not rule.permissions or not rule.permissions.isdisjoint(asks))
