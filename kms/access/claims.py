"""What an issuer's role demands of the claims of a token, and exactly what its patterns match.

A role binds claims to values: `{"sub": "system:serviceaccount:prod:pay-*", "/kubernetes.io/namespace": "prod"}`.
Every bound claim must be in the token and match.

A name is that of a member of the payload; one that begins with `/` is a JSON pointer (RFC 6901) into nested objects.
It does not point into arrays.

A string is a pattern, and a list of strings are patterns of which one must match. The claim is then a string that
matches, or an array of nothing but strings of which one matches (`sub` and `iss`: a string only). A pattern is
compared with the whole claim, character by character, without folding of case or normalisation, except for its
wildcards:

- `*` matches one or more characters, none of them `:` or `/`;
- `**` stands only at the end of a pattern, after `:` or `/`, and matches one or more characters of any kind.

Nothing else is special, and nothing can be escaped. `true`, `false` and a number match the same JSON value and
nothing else: not a string of the same digits, and no array.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kms.access.jwt import Claims, Refused
from kms.errors import ValidationFailed

BoundValue = str | bool | int | float | list[str]
"""What a claim can be bound to."""

_MOST_CLAIMS = _MOST_PATTERNS = 32
_LONGEST = 1024
_STRINGS_ONLY = frozenset({("iss",), ("sub",)})
_NOT_ENOUGH = frozenset({("iss",), ("aud",)})
_NEVER = frozenset({("exp",), ("iat",), ("jti",), ("nbf",)})
_SEPARATOR = re.compile("([:/])")
_Path = tuple[str, ...]


@dataclass(frozen=True)
class BoundClaims:
    """The bound claims of one role: `given` is what the operator wrote."""

    given: Mapping[str, BoundValue]
    _bound: tuple[tuple[str, _Path, BoundValue], ...] = field(repr=False, compare=False)

    def require(self, claims: Claims) -> None:
        """Raise Refused, with `verified` true and the name of the claim, unless all of them match."""
        for name, path, bound in self._bound:
            if not _satisfies(path, _at(claims.members, path), bound):
                raise Refused(f"The role asks for another {name} than the token has.", verified=True, claim=name)


def bound_claims(given: Mapping[str, BoundValue]) -> BoundClaims:
    """Read what a role is bound to. Raises ValidationFailed saying what to write instead.

    A role must be bound by something that tells the subjects of the issuer apart: at least one claim other than
    `iss` and `aud`, and no pattern that consists of wildcards.
    """
    if not 0 < len(given) <= _MOST_CLAIMS:
        raise ValidationFailed(f"claims: bind 1 to {_MOST_CLAIMS} claims, such as sub.")
    bound = tuple((name, _path(name), value) for name, value in given.items())
    paths = {path for _, path, _ in bound}
    if len(paths) < len(bound):
        raise ValidationFailed("claims: a claim is named twice, once as a JSON pointer.")
    if paths & _NEVER:
        raise ValidationFailed("claims: exp, iat, nbf and jti change with every token; bind sub or what is like it.")
    if paths <= _NOT_ENOUGH:
        raise ValidationFailed("claims: iss and aud are the same for everybody; bind sub or what is like it, too.")
    for name, _, value in bound:
        _require_value(name, value)
    return BoundClaims(dict(given), bound)


def matches(pattern: str, value: str) -> bool:
    """Whether `value` is what `pattern` describes, by the rules of this module. Takes linear time."""
    if pattern.endswith("**"):
        start = pattern[:-2]
        separators = len(_SEPARATOR.findall(start))
        parts = _SEPARATOR.split(value, maxsplit=separators)
        return len(parts) == 2 * separators + 1 and parts[-1] != "" and matches(start, "".join(parts[:-1]))
    wanted, found = _SEPARATOR.split(pattern), _SEPARATOR.split(value)
    return len(wanted) == len(found) and all(map(_matches_segment, wanted, found))


def _matches_segment(pattern: str, segment: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == segment
    if not segment.startswith(first):
        return False
    at = len(first)
    for literal in rest[:-1]:
        found = segment.find(literal, at + 1)  # the first place is enough: each wildcard takes what is left over
        if found < 0:
            return False
        at = found + len(literal)
    return len(segment) - len(rest[-1]) > at and segment.endswith(rest[-1])


def _satisfies(path: _Path, claim: object, bound: BoundValue) -> bool:
    if isinstance(bound, bool) or isinstance(claim, bool):
        return claim is bound
    if isinstance(bound, (int, float)):
        return isinstance(claim, (int, float)) and claim == bound
    patterns = bound if isinstance(bound, list) else [bound]
    values = claim if isinstance(claim, list) and path not in _STRINGS_ONLY else [claim]
    strings = [value for value in values if isinstance(value, str)]
    return len(strings) == len(values) and any(matches(pattern, value) for pattern in patterns for value in strings)


def _at(members: Mapping[str, Any], path: _Path) -> object:
    """The claim there; None, which matches nothing, where there is none."""
    found: object = members
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _path(name: str) -> _Path:
    if not 0 < len(name) <= _LONGEST:
        raise ValidationFailed(f"claims: the name of a claim has 1 to {_LONGEST} characters.")
    if not name.startswith("/"):
        return (name,)
    if re.search("~(?![01])", name):
        raise ValidationFailed(f"claims: {name} is not a JSON pointer; write ~0 for ~ and ~1 for / in names.")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in name[1:].split("/"))


def _require_value(name: str, value: object) -> None:
    if isinstance(value, (bool, int, float)):
        return
    patterns = value if isinstance(value, list) else [value]
    if not 0 < len(patterns) <= _MOST_PATTERNS:
        raise ValidationFailed(f"claims: {name}: give 1 to {_MOST_PATTERNS} patterns.")
    for pattern in patterns:
        if not isinstance(pattern, str) or not 0 < len(pattern) <= _LONGEST:
            raise ValidationFailed(
                f"claims: {name}: a pattern is a string of 1 to {_LONGEST} characters; without patterns a claim is "
                "bound to true, false or a number."
            )
        _require_pattern(name, pattern)


def _require_pattern(name: str, pattern: str) -> None:
    if not pattern.strip("*:/"):
        raise ValidationFailed(f"claims: {name}: {pattern} matches everybody; write a part that tells them apart.")
    if "**" in pattern.removesuffix("**") or re.search(r"[^:/]\*\*$", pattern):
        raise ValidationFailed(
            f"claims: {name}: ** stands only at the end of a pattern, after : or /; elsewhere write *, which matches "
            "within one part."
        )
