"""The documents of key policies: JSON in AWS's policy language, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from kms.access.key_policy.actions import EVERY, actions_like
from kms.access.key_policy.conditions import Condition, condition_of, number
from kms.access.key_policy.decision import KeyPolicy, Statement
from kms.access.key_policy.malformed import Malformed
from kms.access.key_policy.patterns import ARN_PARTS, is_arn_pattern, like
from kms.access.key_policy.principals import Principals, principals_of

LONGEST = 32_768
"""How many characters a policy has at most."""

_WITH_VARIABLES, _WITHOUT_VARIABLES = "2012-10-17", "2008-10-17"


@lru_cache(maxsize=512)
def parse(text: str, account: str) -> KeyPolicy:
    """The policy that is written in `text`, for keys of the AWS account id `account`.

    Raises Malformed for what is no policy, and for what could not be enforced: it names it.
    """
    if len(text) > LONGEST:
        raise Malformed(f"it has more than {LONGEST} characters.")
    document = _members(_decoded(text), "the policy", {"Version", "Id", "Statement"})
    version = document.get("Version", _WITHOUT_VARIABLES)
    if version not in (_WITH_VARIABLES, _WITHOUT_VARIABLES):
        raise Malformed(f"Version must be {_WITH_VARIABLES} or {_WITHOUT_VARIABLES}.")
    _text(document.get("Id", ""), "Id")
    given = document.get("Statement")
    statements = given if isinstance(given, list) else [given]
    if not statements:
        raise Malformed("it has no statement.")
    variables = version == _WITH_VARIABLES
    return KeyPolicy(
        tuple(_statement(index, each, account, variables=variables) for index, each in enumerate(statements))
    )


def _decoded(text: str) -> object:
    try:
        return json.loads(
            text, object_pairs_hook=_once_each, parse_int=number, parse_float=number, parse_constant=_no_number
        )
    except RecursionError:
        raise Malformed("it is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"it is not JSON: {error.msg} at character {error.pos + 1}.") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("it has a member twice.")  # which of them holds would depend on who reads it
    return found


def _no_number(text: str) -> NoReturn:
    raise Malformed(f"{text} is not JSON.")


def _statement(index: int, given: object, account: str, *, variables: bool) -> Statement:
    members = _members(
        given,
        f"statement {index + 1}",
        {"Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "Condition"},
    )
    effect = members.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise Malformed("Effect must be Allow or Deny.")
    principals = _principals(members, effect, account)
    resources = _texts(members.get("Resource", "*"), "Resource")
    return Statement(
        index=index,
        sid=_text(members.get("Sid", ""), "Sid"),
        effect="allow" if effect == "Allow" else "deny",
        principals=principals,
        actions=_actions(members),
        conditions=_conditions(
            members.get("Condition", {}), account, variables=variables, binding=not principals.is_nobody
        ),
        is_about=_resource_test(resources, account, variables=variables),
        is_about_all="*" in resources,
    )


def _principals(members: dict[str, Any], effect: str, account: str) -> Principals:
    name = _one_of(members, "Principal", "NotPrincipal")
    if name == "NotPrincipal" and effect == "Allow":
        raise Malformed("NotPrincipal is for Deny alone.")
    return principals_of(members[name], account, but=name == "NotPrincipal")


def _actions(members: dict[str, Any]) -> frozenset[str]:
    name = _one_of(members, "Action", "NotAction")
    found = frozenset().union(*(actions_like(each) for each in _texts(members[name], name)))
    return found if name == "Action" else EVERY - found


def _conditions(given: object, account: str, *, variables: bool, binding: bool) -> tuple[Condition, ...]:
    """The conditions of a statement; those of one that is about nobody need not be such as can be enforced."""
    found = []
    for operator, keys in _object(given, "Condition").items():
        for name, values in _object(keys, f"Condition {operator[:64]}").items():
            if binding:
                found.append(condition_of(operator, name, values, account, variables=variables))
    return tuple(found)


def _resource_test(resources: list[str], account: str, *, variables: bool) -> Callable[[str], bool]:
    """The test for key ids. As a key is the same in each of its regions, the region of an ARN does not matter."""
    tests = []
    for each in resources:
        if variables and "${" in each:
            raise Malformed("policy variables such as ${aws:username} are not enforced here (in Resource).")
        if not is_arn_pattern(each):
            raise Malformed(f"Resource must be * or the ARN of a key, not {each[:128]!r}.")
        if each == "*":
            return lambda key_id: True
        partition, service, _, owner, resource = each.split(":", ARN_PARTS - 1)[1:]
        if like(partition)("aws") and like(service)("kms") and like(owner)(account):
            tests.append(like(resource))
    return lambda key_id: any(test(f"key/{key_id}") for test in tests)


def _one_of(members: dict[str, Any], name: str, other: str) -> str:
    if (name in members) == (other in members):
        raise Malformed(f"a statement has one of {name} and {other}.")
    return name if name in members else other


def _members(given: object, what: str, known: set[str]) -> dict[str, Any]:
    members = _object(given, what)
    unknown = sorted(members.keys() - known)
    if unknown:
        raise Malformed(f"{what} has a member {unknown[0][:64]!r}, which cannot be enforced here.")
    return members


def _object(given: object, what: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Malformed(f"{what} must be an object.")
    return given


def _texts(given: object, what: str) -> list[str]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise Malformed(f"{what} is empty.")
    return [_text(each, what) for each in values]


def _text(given: object, what: str) -> str:
    if type(given) is not str:
        raise Malformed(f"{what} must be text.")
    return given
