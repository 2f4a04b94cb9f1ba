"""The access decision: may this caller do this with this key?

The rules are, in this order: the scope of the session; grants that deny, and Deny statements of the key's policy;
roles and ownership (for a key with a policy ownership alone allows nothing); grants that allow; Allow statements of
the key's policy. What no rule allows is denied.

A decision is valid for every message, unless a rule depends on the encryption context; and until the next date in a
rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from kms.access import addresses, key_rules, step_up
from kms.access.circumstances import Circumstances
from kms.access.model import Caller, ContextRule, Effect, Grant
from kms.access.policy import BOUND_BY_CONTEXT, GRANTED_BY_ADMINISTRATORS, Permission, by_role
from kms.errors import InsufficientUserAuthentication, NotFound, PermissionDenied
from kms.keys.model import Key

FOR_EVER = datetime.max.replace(tzinfo=UTC)
_SOURCES_REMEMBERED = 4096
_ANSWERS_REMEMBERED, _LONGEST_REMEMBERED = 256, 512


class Rule(Protocol):
    """What has a say about messages with some associated data only."""

    def admits(self, associated_data: bytes | None) -> bool:
        """Whether it is about what is bound to `associated_data`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of a decision, valid before `until`.

    It allows every message if `allowed`, else those that a rule in `allowing` admits; but never a message that a rule
    in `denying` admits.
    """

    allowed: bool
    until: datetime = FOR_EVER
    allowing: tuple[Rule, ...] = ()
    denying: tuple[Rule, ...] = ()
    _answers: dict[bytes | None, bool] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_for_any_message(self) -> bool:
        """Whether the decision is the same for every message."""
        return not self.denying and (self.allowed or not self.allowing)

    def admits(self, associated_data: bytes | None) -> bool:
        """Whether a message bound to `associated_data` may be protected or processed."""
        known = self._answers.get(associated_data)  # programs use the same few contexts again and again
        if known is None:
            known = self._admits(associated_data)
            if associated_data is None or len(associated_data) <= _LONGEST_REMEMBERED:
                if len(self._answers) >= _ANSWERS_REMEMBERED:
                    self._answers.clear()
                self._answers[associated_data] = known
        return known

    def _admits(self, associated_data: bytes | None) -> bool:
        if any(rule.admits(associated_data) for rule in self.denying):
            return False
        return self.allowed or any(rule.admits(associated_data) for rule in self.allowing)


_DENIED = Decision(allowed=False)
_SOMEBODY_ELSE = ""  # no client has this id
_BY_POLICY = frozenset(Permission) - GRANTED_BY_ADMINISTRATORS
"""What the key policy of a key may allow others than its owner, where AWS has an action for it."""


def decide(caller: Caller, permission: Permission, key: Key, at: Circumstances) -> Decision:
    """Whether `caller` may do this with `key`."""
    if caller.scope is not None and not caller.scope.allows_on_key(permission, key.key_id):
        return _DENIED
    until: datetime = FOR_EVER
    allowing: list[Rule] = []
    is_granted = False
    for grant in caller.grants:
        if permission not in grant.permissions or not is_about(grant, key):
            continue
        holds, changes_at = in_force(grant, caller, at)
        until = min(until, changes_at)
        if holds and grant.effect is Effect.DENY:
            return Decision(allowed=False, until=until)
        if holds:
            allowing.append(grant)
            is_granted = is_granted or _is_for_any_message(grant, permission)
    says = key_rules.said(caller, permission, key, at) if key.policy else None
    if says is None:
        allowed = is_granted or by_role(caller, permission, key.owner)
        return Decision(allowed, until, () if allowed else tuple(allowing))
    until = min(until, says.until)
    if says.denies:
        return Decision(allowed=False, until=until)
    allowed = is_granted or by_role(caller, permission, _SOMEBODY_ELSE)
    if can_be_allowed_by_policy(caller, permission, key):
        allowed = allowed or says.allows
        allowing += says.allowing
    return Decision(allowed, until, () if allowed else tuple(allowing), says.denying)


def can_be_allowed_by_policy(caller: Caller, permission: Permission, key: Key) -> bool:
    """Whether an Allow statement of the key's policy can allow this; an owner also needs a role that allows it."""
    return by_role(caller, permission, key.owner) if key.owner == caller.client_id else permission in _BY_POLICY


def _is_for_any_message(grant: Grant, permission: Permission) -> bool:
    return permission not in BOUND_BY_CONTEXT or grant.context_rule is ContextRule.NONE


def allows(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, associated_data: bytes | None = None
) -> bool:
    """Whether `caller` may do this with `key`, and with that associated data."""
    return decide(caller, permission, key, at).admits(associated_data)


def require_on_key(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, asked_as: str | None = None
) -> None:
    """Return if `caller` may do this with the key, which was asked for under its id or another name.

    Raises NotFound if the caller may not know that the key exists, as for a missing key; otherwise PermissionDenied,
    or InsufficientUserAuthentication where a fresh second factor would do.
    """
    if not allows(caller, permission, key, at):
        raise denial(caller, permission, key, at, asked_as)


def require_create(caller: Caller, owner: str, key_id: str | None, at: Circumstances) -> None:
    """Return unless the session's scope or a denying grant forbids `caller` to make a key `key_id` (None: random id).

    Raises PermissionDenied.
    """
    wanted = key_id or ""
    is_narrowed = caller.scope is not None and not caller.scope.allows_on_key(Permission.KEYS_CREATE, wanted)
    if is_narrowed or any(
        grant.effect is Effect.DENY
        and Permission.KEYS_CREATE in grant.permissions
        and grant.covers(owner, wanted)
        and in_force(grant, caller, at)[0]
        for grant in caller.grants
    ):
        raise PermissionDenied(f"{caller.client_id} may not make a key {wanted}: it needs {Permission.KEYS_CREATE}.")


def denial(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, asked_as: str | None = None
) -> PermissionDenied | NotFound | InsufficientUserAuthentication:
    """The refusal of a caller who may not do this with the key: as if there were none, if it may not see it."""
    if not may_see_key(caller, key, at):
        return no_such_key(asked_as or key.key_id)
    wanted = [
        grant.second_factor_within
        for grant in caller.grants
        if grant.second_factor_within is not None
        and permission in grant.permissions
        and is_about(grant, key)
        and not in_force(grant, caller, at)[0]
    ]
    if wanted:
        return InsufficientUserAuthentication(max(wanted))
    return PermissionDenied(f"{caller.client_id} may not do this with {key.key_id}: it needs {permission}.")


def may_see_key(caller: Caller, key: Key, at: Circumstances) -> bool:
    """Whether `caller` may know that the key exists: anything that it may do with it is enough, short of a denial."""
    if caller.scope is not None and not caller.scope.covers(key.key_id):
        return False
    if not (caller.grants or key.policy):
        return by_role(caller, Permission.KEYS_READ, key.owner)
    covering = [grant for grant in caller.grants if is_about(grant, key)]
    for grant in covering:
        is_hidden = grant.effect is Effect.DENY and Permission.KEYS_READ in grant.permissions
        if is_hidden and in_force(grant, caller, at)[0]:
            return False
    is_own = key.owner == caller.client_id  # who must be able to change the policy
    if key.policy and not is_own and key_rules.denies(caller, Permission.KEYS_READ, key, _read(at)):
        return False
    if by_role(caller, Permission.KEYS_READ, key.owner) or (key.policy and key_rules.names(caller, key, at)):
        return True
    return any(grant.effect is Effect.ALLOW for grant in covering)


def _read(at: Circumstances) -> Circumstances:
    """The same circumstances of a request to see the key."""
    return Circumstances(at.source, at.now, "DescribeKey", at.account)


def is_about(grant: Grant, key: Key) -> bool:
    """Whether `grant` covers the key. A denial also covers one that gave up the id that it is about."""
    if grant.covers(key.owner, key.key_id):
        return True
    return grant.effect is Effect.DENY and bool(key.former_id) and grant.covers(key.owner, key.former_id)


def no_such_key(key_id: str) -> NotFound:
    """The one answer for a key that is not there and for one that the caller may not see."""
    return NotFound(f"There is no key {key_id}.")


def in_force(grant: Grant, caller: Caller, at: Circumstances) -> tuple[bool, datetime]:
    """Whether the conditions of a grant are met, and when that changes by itself at the earliest.

    Where the address of the caller is not known, what allows is not in force and what denies is.
    """
    if grant.source:
        address = _address(at.source)
        if address is None:
            return grant.effect is Effect.DENY, FOR_EVER
        if not any(address in network for network in _networks(grant.source)):
            return False, FOR_EVER
    if grant.not_before is not None and at.now < grant.not_before:
        return False, grant.not_before
    if grant.not_after is not None and at.now >= grant.not_after:
        return False, FOR_EVER
    until = grant.not_after or FOR_EVER
    if grant.second_factor_within is not None:
        if not step_up.is_fresh(caller, grant.second_factor_within, at.now):
            begins = step_up.counts_from(caller)
            return False, begins if begins is not None and at.now < begins else FOR_EVER
        assert caller.second_factor_at is not None
        until = min(until, caller.second_factor_at + grant.second_factor_within)
    return True, until


@lru_cache(maxsize=_SOURCES_REMEMBERED)
def _address(source: str) -> addresses.Address | None:
    return addresses.address(source)


@lru_cache(maxsize=_SOURCES_REMEMBERED)
def _networks(words: frozenset[str]) -> tuple[addresses.Network, ...]:
    return tuple(map(addresses.network, sorted(words)))
