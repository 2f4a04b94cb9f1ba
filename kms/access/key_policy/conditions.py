"""Conditions of statements: which keys and operators can be enforced here, and what they say.

A condition on a key that the service cannot know the value of is refused when the policy is set. A key that is known
to be absent (nothing here acts for a service of AWS) is as good as any: AWS says what each operator makes of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from kms.access import addresses
from kms.access.key_policy.asked import Asked, Circumstances
from kms.access.key_policy.malformed import Malformed
from kms.access.key_policy.patterns import Test, arn_like, is_arn_pattern, like

Values = tuple[str, ...]
"""The values of a condition key in a request; none where it is absent."""


class Kind(Enum):
    """The type of a condition key, by which it takes operators."""

    TEXT = auto()
    TRUTH = auto()
    NUMBER = auto()
    TIME = auto()
    ADDRESS = auto()
    ABSENT = auto()


@dataclass(frozen=True, slots=True)
class ConditionKey:
    """A condition key that can be enforced.

    `of_request` reads what stays the same from message to message, `of_message` what does not; one of them is there.
    `is_settled` says that for changing the policy the owner always has the same value.
    """

    kind: Kind
    of_request: Callable[[Asked], Values] | None = None
    of_message: Callable[[Circumstances], Values] | None = None
    is_settled: bool = True


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator, one key and its values. `over` is `all` or `any` for `ForAllValues:` and `ForAnyValue:`."""

    key: ConditionKey
    matches: Test
    negated: bool
    over: str
    if_absent: bool
    is_null: bool = False

    def holds_for(self, values: Values, *, deny: bool) -> bool:
        """Whether it is met where the key has these values.

        AWS leaves open what an operator for one value makes of several. Here all of them have to meet it where it
        allows, and one is enough where it denies.
        """
        if self.is_null:
            return self.matches("true" if not values else "false")
        if not values:
            return self.if_absent
        if self.key.kind is Kind.ADDRESS and None in map(addresses.address, values):
            return deny  # from where it comes is not known: what allows does not hold, and what denies does
        met = (self.matches(each) is not self.negated for each in values)
        return any(met) if self.over == "any" or (deny and self.over == "") else all(met)


def condition_of(operator: str, name: str, given: object, account: str, *, variables: bool) -> Condition:
    """The condition that stands in a document; `variables` says whether its version has policy variables.

    Raises Malformed.
    """
    texts = _texts(name, given)
    if variables and any("${" in text for text in texts):
        raise Malformed(f"policy variables such as ${{aws:username}} are not enforced here (in {name[:128]}).")
    over, bare, if_exists = _taken_apart(operator)
    key = _key(name, account)
    if bare == "Null":
        if over or if_exists:
            raise Malformed(f"there is no condition operator {operator[:64]!r}.")
        return Condition(key, _truths(texts), False, "", False, is_null=True)
    negated = "Not" in bare
    family = _FAMILIES.get(bare)
    if family is None:
        raise Malformed(f"there is no condition operator {operator[:64]!r} that can be enforced here.")
    kinds, test_of = family
    if key.kind not in kinds and key.kind is not Kind.ABSENT:
        raise Malformed(f"the condition operator {operator} is not for {name[:128]}.")
    tests = [test_of(text) for text in texts]
    if_absent = if_exists or over == "all" or (negated and over == "")
    return Condition(key, lambda value: any(test(value) for test in tests), negated, over, if_absent)


class _Number(str):
    """A number of a JSON document, as it was written."""

    __slots__ = ()


def number(text: str) -> str:
    """What to read numbers of JSON as: conditions take them as text, and nothing else takes them."""
    return _Number(text)


def _texts(name: str, given: object) -> list[str]:
    values = given if isinstance(given, list) else [given]
    if not values or not all(isinstance(each, (str, bool)) for each in values):
        raise Malformed(f"the condition on {name[:128]} has no values.")
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def _taken_apart(operator: str) -> tuple[str, str, bool]:
    """The set operator (`all`, `any` or nothing), the operator, and whether it ends in `IfExists`."""
    over = ""
    for prefix, word in (("ForAllValues:", "all"), ("ForAnyValue:", "any")):
        if operator.startswith(prefix):
            over, operator = word, operator.removeprefix(prefix)
    bare = operator.removesuffix("IfExists")
    return over, bare, bare != operator


def _equals(text: str) -> Test:
    return text.__eq__


def _equals_ignoring_case(text: str) -> Test:
    wanted = text.lower()
    return lambda value: value.lower() == wanted


def _truths(texts: list[str]) -> Test:
    tests = [_truth(text) for text in texts]
    return lambda value: any(test(value) for test in tests)


def _truth(text: str) -> Test:
    wanted = text.lower()
    if wanted not in ("true", "false"):
        raise Malformed(f"{text[:64]!r} is neither true nor false.")
    return wanted.__eq__


def _network(text: str) -> Test:
    try:
        network = addresses.network(text, strict=False)
    except ValueError:
        raise Malformed(f"{text[:64]!r} is no address or network.") from None
    return lambda value: (found := addresses.address(value)) is not None and found in network


def _arn(text: str) -> Test:
    if not is_arn_pattern(text):
        raise Malformed(f"{text[:128]!r} is no ARN.")
    return arn_like(text)


def _compared(read: Callable[[str], float], holds: Callable[[float, float], bool]) -> Callable[[str], Test]:
    def test_of(text: str) -> Test:
        wanted = read(text)
        return lambda value: holds(read(value), wanted)

    return test_of


_DECIMAL = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII)
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?",
    re.ASCII,
)


def _number_in(text: str) -> float:
    if not _DECIMAL.fullmatch(text):
        raise Malformed(f"{text[:64]!r} is no number.")
    return float(text)


def _seconds_in(text: str) -> float:
    """A moment, in ISO 8601 or in seconds since 1970, as the latter; one without an offset is in UTC."""
    if _DECIMAL.fullmatch(text):
        return float(text)
    try:
        found = datetime.fromisoformat(text) if _TIME.fullmatch(text) else None
        if found is not None:
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Malformed(f"{text[:64]!r} is no date.")


def _same(value: float, wanted: float) -> bool:
    return math.isclose(value, wanted, rel_tol=0, abs_tol=1e-9)


_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "Equals": _same,
    "NotEquals": _same,
    "LessThan": lambda value, wanted: value < wanted,
    "LessThanEquals": lambda value, wanted: value <= wanted,
    "GreaterThan": lambda value, wanted: value > wanted,
    "GreaterThanEquals": lambda value, wanted: value >= wanted,
}
_WORDS = frozenset({Kind.TEXT, Kind.TRUTH})
_TEXTS = frozenset({Kind.TEXT})
_NUMBERS = frozenset({Kind.NUMBER, Kind.TIME})

_FAMILIES: dict[str, tuple[frozenset[Kind], Callable[[str], Test]]] = {
    "StringEquals": (_WORDS, _equals),
    "StringNotEquals": (_WORDS, _equals),
    "StringEqualsIgnoreCase": (_WORDS, _equals_ignoring_case),
    "StringNotEqualsIgnoreCase": (_WORDS, _equals_ignoring_case),
    "StringLike": (_WORDS, like),
    "StringNotLike": (_WORDS, like),
    "ArnEquals": (_TEXTS, _arn),
    "ArnNotEquals": (_TEXTS, _arn),
    "ArnLike": (_TEXTS, _arn),
    "ArnNotLike": (_TEXTS, _arn),
    "Bool": (frozenset({Kind.TRUTH}), _truth),
    "IpAddress": (frozenset({Kind.ADDRESS}), _network),
    "NotIpAddress": (frozenset({Kind.ADDRESS}), _network),
    **{f"Numeric{word}": (_NUMBERS, _compared(_number_in, holds)) for word, holds in _ORDERS.items()},
    **{f"Date{word}": (frozenset({Kind.TIME}), _compared(_seconds_in, holds)) for word, holds in _ORDERS.items()},
}
"""The operators, apart from `Null`: the kinds of keys that each is for, and the test that it makes of a value."""

_OF_CONTEXT = "kms:encryptioncontext:"


def _key(name: str, account: str) -> ConditionKey:
    """The key of that name, in letters of either case. Raises Malformed."""
    wanted = name.lower()
    if wanted.startswith(_OF_CONTEXT) and len(wanted) > len(_OF_CONTEXT):
        return ConditionKey(Kind.TEXT, of_message=_context_values(wanted.removeprefix(_OF_CONTEXT)))
    if wanted in _ACCOUNTS:
        return ConditionKey(Kind.TEXT, lambda asked: (account,))
    if wanted == "aws:principalarn":
        return ConditionKey(Kind.TEXT, lambda asked: _arn_of(asked, account))
    found = _KEYS.get(wanted)
    if found is None:
        raise Malformed(f"conditions on {name[:128]} cannot be enforced here.")
    return found


def _context_values(name: str) -> Callable[[Circumstances], Values]:
    """The values that the encryption context has under a name, in letters of either case: two of its names can be the
    same then."""
    return lambda now: tuple(value for key, value in (now.context or {}).items() if key.lower() == name)


def _arn_of(asked: Asked, account: str) -> Values:
    """The ARN of who asks: that of the role, where a session came by one."""
    for kind, resource in (("issuer-role:", "role/"), ("client:", "user/")):
        found = [each.removeprefix(kind) for each in asked.principals if each.startswith(kind)]
        if found:
            return tuple(f"arn:aws:iam::{account}:{resource}{each}" for each in sorted(found))
    return ()


def _type_of(asked: Asked) -> Values:
    return ("AssumedRole" if any(each.startswith("issuer-role:") for each in asked.principals) else "User",)


def _optional(value: str | None) -> Values:
    return () if value is None else (value,)


def _has_second_factor(now: Circumstances) -> Values:
    if not now.is_session:
        return ()
    return ("false" if now.second_factor_age is None else "true",)


def _second_factor_age(now: Circumstances) -> Values:
    age = now.second_factor_age
    return () if age is None else (str(max(0, int(age))),)


def _current_time(now: Circumstances) -> Values:
    return () if now.now is None else (f"{now.now.timestamp():.6f}",)


def _for_a_service(asked: Asked) -> Values:
    return ("false",) if asked.action in ("CreateGrant", "ListGrants", "RevokeGrant") else ()


_ACCOUNTS = frozenset({"kms:calleraccount", "aws:principalaccount", "aws:resourceaccount"})
_NOT_HERE = ConditionKey(Kind.ABSENT, lambda asked: ())

_KEYS: dict[str, ConditionKey] = {
    "kms:encryptioncontextkeys": ConditionKey(Kind.TEXT, of_message=lambda now: tuple(now.context or ())),
    "kms:grantoperations": ConditionKey(Kind.TEXT, lambda asked: tuple(sorted(asked.grant_operations or ()))),
    "kms:granteeprincipal": ConditionKey(Kind.TEXT, lambda asked: _optional(asked.grantee)),
    "kms:retiringprincipal": ConditionKey(Kind.TEXT, lambda asked: _optional(asked.retiring)),
    "kms:grantconstrainttype": ConditionKey(Kind.TEXT, lambda asked: _optional(asked.grant_constraint)),
    "kms:grantisforawsresource": ConditionKey(Kind.TRUTH, _for_a_service),
    "aws:principaltype": ConditionKey(Kind.TEXT, _type_of),
    "aws:sourceip": ConditionKey(Kind.ADDRESS, lambda asked: _optional(asked.source), is_settled=False),
    "aws:securetransport": ConditionKey(Kind.TRUTH, lambda asked: ("true",)),
    "aws:viaawsservice": ConditionKey(Kind.TRUTH, lambda asked: ("false",)),
    "aws:principalisawsservice": ConditionKey(Kind.TRUTH, lambda asked: ("false",)),
    "aws:multifactorauthpresent": ConditionKey(Kind.TRUTH, of_message=_has_second_factor, is_settled=False),
    "aws:multifactorauthage": ConditionKey(Kind.NUMBER, of_message=_second_factor_age, is_settled=False),
    "aws:currenttime": ConditionKey(Kind.TIME, of_message=_current_time, is_settled=False),
    "aws:epochtime": ConditionKey(Kind.TIME, of_message=_current_time, is_settled=False),
    **dict.fromkeys(
        (
            "aws:calledvia",
            "aws:calledviafirst",
            "aws:calledvialast",
            "aws:principalservicename",
            "aws:principalservicenameslist",
            "aws:sourceaccount",
            "aws:sourcearn",
            "aws:sourceorgid",
            "aws:sourceorgpaths",
            "aws:sourcevpc",
            "aws:sourcevpce",
            "aws:vpcsourceip",
            "kms:viaservice",
        ),
        _NOT_HERE,
    ),
}
"""The keys that can be enforced, in small letters, apart from those that depend on more than their name."""
