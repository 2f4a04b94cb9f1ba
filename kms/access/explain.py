"""Why a caller may or may not do something with a key: every rule that was looked at, in plain words.

What is decided comes from `decision.decide`, as for a real request; the reasons only say how that came about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kms.access import decision, key_rules, step_up
from kms.access.circumstances import Circumstances
from kms.access.model import EVERY_OWNER, Caller, ContextRule, Effect, Grant
from kms.access.policy import BOUND_BY_CONTEXT, Permission, by_role
from kms.keys.model import Key


@dataclass(frozen=True)
class Reason:
    """One rule: its name, its effect, whether it applies to this request, and why it does or does not."""

    rule: str
    effect: Effect
    matches: bool
    why: str


@dataclass(frozen=True)
class Explanation:
    """Whether it is allowed, and every rule that was looked at."""

    allowed: bool
    because: tuple[Reason, ...]


def explain(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, associated_data: bytes | None = None
) -> Explanation:
    """Whether `caller` may do this with `key`, for a message bound to `associated_data` (None: none is known)."""
    made = decision.decide(caller, permission, key, at)
    allowed = made.allowed if associated_data is None and made.is_for_any_message else made.admits(associated_data)
    found = list(_reasons(caller, permission, key, at, associated_data))
    effect = Effect.ALLOW if allowed else Effect.DENY
    if not any(reason.matches and reason.effect is effect for reason in found):
        found.append(
            Reason("default", Effect.DENY, matches=True, why="Nothing allows it, and what is not allowed is denied.")
        )
    return Explanation(allowed, tuple(found))


def _reasons(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, associated_data: bytes | None
) -> Iterator[Reason]:
    if caller.scope is not None:
        inside = caller.scope.allows_on_key(permission, key.key_id)
        words = " ".join(sorted(caller.scope.words))
        yield Reason("scope", Effect.DENY, not inside, f"The session is narrowed to {words}.")
    yield from _of_roles(caller, permission, key, at)
    yield from _of_key_policy(caller, permission, key, at, associated_data)
    for grant in caller.grants:
        if grant.owner not in (key.owner, EVERY_OWNER):
            continue  # it is never about this key, and none of its owner's business
        why = _mismatch(grant, caller, permission, key, at, associated_data)
        does = "denies" if grant.effect is Effect.DENY else "allows"
        told = f"It {does} {permission} on {grant.key_pattern} to {grant.subject}."
        yield Reason(f"grant {grant.grant_id}", grant.effect, why is None, why or told)


def _of_roles(caller: Caller, permission: Permission, key: Key, at: Circumstances) -> Iterator[Reason]:
    for role in sorted(caller.roles):
        alone = Caller(caller.client_id, frozenset({role}), ())
        own = key.owner == caller.client_id
        allows = by_role(alone, permission, key.owner)
        if own and allows and not by_role(alone, permission, "") and key_rules.parsed(key, at) is not None:
            why = "The key has a policy, which says what its owner may do."
            yield Reason(f"role {role}", Effect.ALLOW, False, why)
            continue
        whose = "its own keys" if own else "keys of others"
        may = "may" if allows else "may not"
        yield Reason(
            f"role {role}", Effect.ALLOW, allows, f"A client with the role {role} {may} do this with {whose}."
        )


def _of_key_policy(
    caller: Caller, permission: Permission, key: Key, at: Circumstances, associated_data: bytes | None
) -> Iterator[Reason]:
    can_allow = decision.can_be_allowed_by_policy(caller, permission, key)
    for statement, is_met in key_rules.statements(caller, permission, key, at, associated_data):
        name = f'"{statement.sid}"' if statement.sid else str(statement.index + 1)
        effect = Effect(statement.effect)
        if effect is Effect.ALLOW and not can_allow:
            is_met, told = False, f"No key policy can allow {caller.client_id} {permission} on this key."
        elif is_met:
            told = "It denies this." if effect is Effect.DENY else "It allows this."
        else:
            told = "It is about others, about other actions, or under other conditions."
        yield Reason(f"key policy statement {name}", effect, is_met, told)


def _mismatch(
    grant: Grant,
    caller: Caller,
    permission: Permission,
    key: Key,
    at: Circumstances,
    associated_data: bytes | None,
) -> str | None:
    """The reason why a grant does not apply, as a sentence; None if it applies."""
    if permission not in grant.permissions:
        return f"It is about {', '.join(sorted(grant.permissions))}."
    if not decision.is_about(grant, key):
        return f"It is about {grant.key_pattern}."
    if not decision.in_force(grant, caller, at)[0]:
        return _unmet(grant, caller, at)
    if permission in BOUND_BY_CONTEXT and not grant.admits(associated_data):
        asks = "is" if grant.context_rule is ContextRule.EQUALS else "has in it"
        return f"It is for messages whose encryption context {asks} {grant.context}."
    return None


def _unmet(grant: Grant, caller: Caller, at: Circumstances) -> str:
    if grant.not_before is not None and at.now < grant.not_before:
        return f"It begins at {grant.not_before.isoformat()}."
    if grant.not_after is not None and at.now >= grant.not_after:
        return f"It ended at {grant.not_after.isoformat()}."
    within = grant.second_factor_within
    if within is not None and not step_up.is_fresh(caller, within, at.now):
        return f"It asks for a second factor that was given at most {int(within.total_seconds())} s ago."
    return f"It is for callers from {', '.join(sorted(grant.source))}, and not from {at.source}."
