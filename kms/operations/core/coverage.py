"""Which rules of approvals cover a call: by what it asks for, and on which keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kms.access import scope
from kms.approvals.execution import Covers
from kms.approvals.model import ApprovalRule
from kms.approvals.rules import OF_RULES, covers
from kms.keys.ids import RELEASED, flat_key_id
from kms.operations.core.asking import asked_for, can_be_covered
from kms.operations.core.declare import Operation, Request
from kms.operations.core.service import Call, Service

_OF_ANY_KEY = "*"
_FLAT_KEYS = {
    "generate_symmetric_key": "symmetric",
    "generate_rsa_key": "rsa",
    "generate_ecc_key": "ecc",
    "generate_dh_key": "dh",
}


def covering(
    service: Service, operation: Operation, call: Call, request: Request, path: Mapping[str, Any]
) -> list[ApprovalRule]:
    """The rules in force that cover this call. Raises Unavailable, IntegrityFailure."""
    asks, own = asked_for(operation, request, path, call.known_caller), _own_rule(operation, path)
    found = [
        rule
        for rule in service.approval_rules.may_cover(operation.name)
        if not rule.is_lifted(call.began) and (rule.name == own or covers(rule, operation.name, asks))
    ]
    if all(rule.key_pattern == _OF_ANY_KEY or rule.name == own for rule in found):
        return found
    is_about = _patterns_in(service, operation, call, request, path)
    return [rule for rule in found if rule.name == own or _is_about(rule.key_pattern, is_about)]


def coverage(service: Service, operation: Operation, call: Call, request: Request, path: Mapping[str, Any]) -> Covers:
    """What `covering` finds among other rules at another time, without reading anything. Raises Unavailable."""
    if not can_be_covered(operation):
        return lambda _rules, _now: []
    asks, own = asked_for(operation, request, path, call.known_caller), _own_rule(operation, path)
    is_about = _patterns_in(service, operation, call, request, path)

    def is_covered(rule: ApprovalRule) -> bool:
        return covers(rule, operation.name, asks) and _is_about(rule.key_pattern, is_about)

    return lambda rules, now: [
        rule for rule in rules if not rule.is_lifted(now) and (rule.name == own or is_covered(rule))
    ]


def _own_rule(operation: Operation, path: Mapping[str, Any]) -> str | None:
    return path.get("rule") if operation.name in OF_RULES else None


def key_names(request: Any, path: Mapping[str, Any]) -> list[str]:
    """The ids and aliases by which a call names keys."""
    members = [getattr(request, "key_id", None), getattr(request, "to_key_id", None)]
    return [name for name in (path.get("key_id"), path.get("alias"), *members) if name]


def _is_about(pattern: str, named: set[str] | None) -> bool:
    """Whether a rule for `pattern` is about a call that names these keys, or patterns; None where none is named."""
    return named is None or any(_overlap(pattern, each) for each in named)


def _overlap(one: str, other: str) -> bool:
    if other.endswith("*"):
        return scope.matches(other, one.rstrip("*")) or (one.endswith("*") and scope.matches(one, other[:-1]))
    return scope.matches(one, other)


def _patterns_in(
    service: Service, operation: Operation, call: Call, request: Any, path: Mapping[str, Any]
) -> set[str] | None:
    """The ids of the keys that a call names, or patterns of ids; None where it names none."""
    named: set[str] = {f"{path['mount']}.*"} if "mount" in path else set()
    if pattern := getattr(request, "key_pattern", None):
        if pattern.endswith("*") and _overlap(pattern, f"{RELEASED}*"):
            return None  # any key may get such an id later, and keep it
        named |= {str(pattern), *_ids(service, pattern)}
    for name in key_names(request, path):
        named |= {name, *_ids(service, name)}
    if kept := getattr(request, "keep_as", None):
        named.add(kept.key_id or "")
    if suffix := _FLAT_KEYS.get(operation.name):
        named.add(flat_key_id(request.client_id or call.known_caller.client_id, suffix))
    if not named and "key_id" in operation.request.__struct_fields__:
        return {""}  # a new key with a random id
    return named or None


def _ids(service: Service, name: str) -> set[str]:
    """The id of a key that is named by its id or alias, and the id that it gave up."""
    key = service.key_cache.find(name)
    return {each for each in (key.key_id, key.former_id) if each} if key is not None else set()
