"""Policy decided slowly and obviously: sentence by sentence as the documentation has it, with nothing remembered."""

from __future__ import annotations

import fnmatch
import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from access import reference_key_policy

from kms.access import key_policy

ACCOUNT = "111122223333"
AWS_ACTIONS = {
    "keys:encrypt": ["Encrypt"],
    "keys:decrypt": ["Decrypt"],
    "keys:rewrap": ["ReEncryptFrom", "ReEncryptTo"],
    "keys:wrap": ["Wrap"],
    "keys:recover": ["Recover"],
    "keys:read": ["DescribeKey"],
    "keys:rotate": ["RotateKeyOnDemand"],
    "keys:delete": ["ScheduleKeyDeletion"],
}

ADMIN_ON_ANY = {"keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:delete"}
AUDITOR_ON_ANY = {"keys:read"}
OWNER_MAY = {
    "keys:create", "keys:read", "keys:rotate", "keys:revoke", "keys:update", "keys:delete", "keys:export",
    "keys:encrypt", "keys:decrypt", "keys:rewrap", "keys:sign", "keys:verify", "keys:mac", "keys:verify-mac",
    "keys:wrap", "keys:unwrap", "keys:derive", "keys:agree", "keys:encapsulate", "keys:decapsulate", "keys:seal",
    "keys:open",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A grant in plain words."""

    to: str
    denies: bool
    permissions: frozenset[str]
    owner: str
    pattern: str
    networks: tuple[str, ...] = ()
    begins: datetime | None = None
    ends: datetime | None = None
    factor_within: timedelta | None = None
    context: dict[str, str] = field(default_factory=dict)
    context_must: str = "none"


@dataclass(frozen=True)
class Asked:
    """One question."""

    client: str
    roles: frozenset[str]
    groups: frozenset[str]
    scope: tuple[tuple[str, str], ...] | None
    permission: str
    key: str
    owner: str
    context: dict[str, str] | None
    source: str
    now: datetime
    factor_at: datetime | None
    policy: str = ""


def is_allowed(asked: Asked, rules: list[Rule]) -> bool:
    """The answer."""
    if asked.scope is not None:
        words = [(what, where) for what, where in asked.scope if what == asked.permission]
        if not any(names(where, asked.key) for _, where in words):
            return False
    about_it = [rule for rule in rules if concerns(rule, asked)]
    if any(rule.denies for rule in about_it):
        return False
    said = policy_says(asked)
    if "deny" in said:
        return False
    is_own = asked.owner == asked.client and asked.roles & {"admin", "user"} and asked.permission in OWNER_MAY
    if is_own and (not asked.policy or said == {"allow"}):
        return True
    if asked.owner != asked.client and said == {"allow"} and asked.permission != "keys:recover":
        return True
    if "admin" in asked.roles and asked.permission in ADMIN_ON_ANY:
        return True
    if "auditor" in asked.roles and asked.permission in AUDITOR_ON_ANY:
        return True
    return any(suits(rule, asked) for rule in about_it)


def policy_says(asked: Asked) -> set[str | None]:
    """What the key policy says of each action that this is with AWS; nothing where there is no policy."""
    if not asked.policy:
        return set()
    factor_age = None
    if asked.factor_at is not None and asked.factor_at - timedelta(minutes=5) <= asked.now:
        factor_age = (asked.now - asked.factor_at).total_seconds()
    context: dict[str, str] = dict()  # noqa: C408  # another object than UNKNOWN
    if asked.permission in {"keys:encrypt", "keys:decrypt"}:
        context = reference_key_policy.UNKNOWN if asked.context is None else asked.context
    if asked.permission == "keys:rewrap":
        context = reference_key_policy.UNKNOWN
    now = key_policy.Circumstances(context, asked.now, factor_age)
    who = frozenset({f"client:{asked.client}", *(f"role:{role}" for role in asked.roles)})
    return {
        reference_key_policy.decide(
            asked.policy,
            ACCOUNT,
            key_policy.Asked(action, who, asked.owner == asked.client, asked.key, asked.source),
            now,
        )
        for action in AWS_ACTIONS[asked.permission]
    }


def concerns(rule: Rule, asked: Asked) -> bool:
    """Whether a rule is about the question, but for its encryption context."""
    subjects = {f"client:{asked.client}"}
    subjects |= {f"role:{role}" for role in asked.roles} | {f"group:{group}" for group in asked.groups}
    if rule.to not in subjects or asked.permission not in rule.permissions:
        return False
    if rule.owner not in ("*", asked.owner) or not names(rule.pattern, asked.key):
        return False
    if rule.networks:
        address = ipaddress.ip_address(asked.source)
        if not any(address in ipaddress.ip_network(network) for network in rule.networks):
            return False
    if rule.begins is not None and asked.now < rule.begins:
        return False
    if rule.ends is not None and not asked.now < rule.ends:
        return False
    if rule.factor_within is not None:
        if asked.factor_at is None:
            return False
        return timedelta(minutes=-5) <= asked.now - asked.factor_at < rule.factor_within
    return True


def suits(rule: Rule, asked: Asked) -> bool:
    """Whether the encryption context is one that the rule is for."""
    if rule.context_must == "none" or asked.permission not in {"keys:encrypt", "keys:decrypt"}:
        return True
    if asked.context is None:
        return False
    if rule.context_must == "equals":
        return asked.context == rule.context
    return all(asked.context.get(name) == value for name, value in rule.context.items())


def names(pattern: str, key: str) -> bool:
    """Whether a pattern is about a key."""
    return fnmatch.fnmatchcase(key, pattern)
