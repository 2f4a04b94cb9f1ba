"""Evaluates the AWS key policy of a key for a request, for use in `decision`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kms.access import key_policy, step_up
from kms.access.circumstances import Circumstances
from kms.access.key_policy import Asked, KeyPolicy, Malformed, Statement
from kms.access.key_policy.actions import EVERY
from kms.access.model import Caller
from kms.access.policy import BOUND_BY_CONTEXT, Permission
from kms.encryption_context import context_of
from kms.keys.model import Key

_FOR_EVER = datetime.max.replace(tzinfo=UTC)
_AT_ONCE = datetime.min.replace(tzinfo=UTC)  # what it said is over at once, whichever way a clock is set
_RE_ENCRYPT = {
    Permission.KEYS_DECRYPT: ("ReEncryptFrom",),
    Permission.KEYS_ENCRYPT: ("ReEncryptTo",),
}
"""AWS's ReEncrypt is two actions on two keys."""
_OF_NO_KEY = frozenset({"ListKeys", "ListAliases", "ListRetirableGrants"})
"""AWS's actions that look at many keys, each of which is described."""


@dataclass(frozen=True, slots=True)
class StatementRule:
    """A statement whose conditions are about the encryption context of each message."""

    statement: Statement
    moment: key_policy.Circumstances

    def admits(self, associated_data: bytes | None) -> bool:
        """Whether it is about what is bound to `associated_data`. Where that is not known, what denies is."""
        if associated_data is None:
            return self.statement.effect == "deny"
        return self.statement.admits(replace(self.moment, context=context_of(associated_data)))


@dataclass(frozen=True, slots=True)
class Said:
    """What a key policy says: whether it denies, or allows; and rules where that depends on the message."""

    denies: bool
    allows: bool
    denying: tuple[StatementRule, ...]
    allowing: tuple[StatementRule, ...]
    until: datetime


def said(caller: Caller, permission: Permission, key: Key, at: Circumstances) -> Said | None:
    """What the policy of `key` says about the request; None if there is no policy.

    If the request is several AWS actions, each must be allowed, and none denied.
    """
    policy = parsed(key, at)
    if policy is None:
        return None
    each = [
        _said_of(policy, _asked(action, caller, key, at), caller, permission, at)
        for action in _actions(permission, at)
    ]
    if len(each) == 1:
        return each[0]
    return Said(
        denies=any(one.denies or one.denying for one in each),
        allows=all(one.allows for one in each),
        denying=(),
        allowing=(),
        until=min(one.until for one in each),
    )


def parsed(key: Key, at: Circumstances) -> KeyPolicy | None:
    """The parsed policy of a key, None if it has none. A malformed one, from an old release, counts as none."""
    if not key.policy:
        return None
    try:
        return key_policy.parse(key.policy, at.account)
    except Malformed:
        return None


def denies(caller: Caller, permission: Permission, key: Key, at: Circumstances) -> bool:
    """Whether the policy of `key` denies this to `caller`, also where nothing else asks about the key."""
    says = said(caller, permission, key, at)
    return says is not None and says.denies


def names(caller: Caller, key: Key, at: Circumstances) -> bool:
    """Whether a statement of the key's policy that allows something is about `caller`."""
    policy = parsed(key, at)
    asked = _asked("DescribeKey", caller, key, at)
    return policy is not None and any(
        each.effect == "allow" and each.is_about(key.key_id) and each.principals.include(asked, deny=False)
        for each in policy.statements
    )


def statements(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, associated_data: bytes | None
) -> Iterator[tuple[Statement, bool]]:
    """Every statement of the policy of `key`, and whether it is about this request."""
    policy = parsed(key, at)
    asked = [_asked(action, caller, key, at) for action in _actions(permission, at)]
    moment = _moment(caller, at)
    data = associated_data if permission in BOUND_BY_CONTEXT else None
    for each in policy.statements if policy is not None else ():
        concerned = any(each.concerns(one) for one in asked)
        yield each, concerned and _is_met(each, moment, permission, data)


def _said_of(policy: KeyPolicy, asked: Asked, caller: Caller, permission: Permission, at: Circumstances) -> Said:
    rules = policy.rules_for(asked)
    moment = _moment(caller, at)
    conditional = (*rules.denies, *rules.allows)
    met = [each for each in conditional if _is_met(each, moment, permission, None)]
    later = [each for each in conditional if permission in BOUND_BY_CONTEXT and _is_about_context(each)]
    depends_on_moment = any(map(_is_about_moment, conditional))
    now = [each for each in met if each not in later]
    bound = [StatementRule(each, moment) for each in later]
    return Said(
        denies=rules.denied_by is not None or any(each.effect == "deny" for each in now),
        allows=rules.allowed_by is not None or any(each.effect == "allow" for each in now),
        denying=tuple(rule for rule in bound if rule.statement.effect == "deny"),
        allowing=tuple(rule for rule in bound if rule.statement.effect == "allow"),
        until=_AT_ONCE if depends_on_moment else _FOR_EVER,
    )


def _is_met(
    statement: Statement, moment: key_policy.Circumstances, permission: Permission, associated_data: bytes | None
) -> bool:
    """Whether the conditions of a statement are met for a message.

    If the encryption context of the message is unknown, a Deny that depends on it applies, and an Allow does not.
    """
    hides_context = permission in BOUND_BY_CONTEXT or permission is Permission.KEYS_REWRAP
    if associated_data is None and hides_context and _is_about_context(statement):
        return statement.effect == "deny"
    return statement.admits(replace(moment, context=context_of(associated_data or b"")))


def _is_about_context(statement: Statement) -> bool:
    return any(each.key.of_message is not None and each.key.is_settled for each in statement.conditions)


def _is_about_moment(statement: Statement) -> bool:
    """Whether it depends on the time, or on when a second factor was given."""
    return any(each.key.of_message is not None and not each.key.is_settled for each in statement.conditions)


def _moment(caller: Caller, at: Circumstances) -> key_policy.Circumstances:
    given_at, begins = caller.second_factor_at, step_up.counts_from(caller)
    age = (at.now - given_at).total_seconds() if given_at and begins and begins <= at.now else None
    is_session = not (caller.access_key_id or "").startswith("AKIA")
    return key_policy.Circumstances(None, at.now, age, is_session)


def _asked(action: str, caller: Caller, key: Key, at: Circumstances) -> Asked:
    words = {f"client:{caller.client_id}", *(f"role:{role}" for role in caller.roles)}
    if caller.issuer_role:
        words.add(f"issuer-role:{caller.issuer_role}")
    return Asked(
        action=action,
        principals=frozenset(words),
        is_owner=key.owner == caller.client_id,
        key_id=key.key_id,
        source=at.source,
        grant_operations=at.grant_operations,
        grantee=at.grantee,
        retiring=at.retiring,
        grant_constraint=at.grant_constraint,
    )


def _actions(permission: Permission, at: Circumstances) -> tuple[str, ...]:
    """The AWS actions of a request: the one that it names itself, or those to which our operation corresponds."""
    if at.action == "ReEncrypt" and permission in _RE_ENCRYPT:
        return _RE_ENCRYPT[permission]
    if at.action in EVERY - _OF_NO_KEY:
        return (at.action,)
    return key_policy.actions_for(at.action, permission)
