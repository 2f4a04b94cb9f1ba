"""Patterns with `*` (any characters, also none) and `?` (one character), as in policies."""

from __future__ import annotations

import re
from collections.abc import Callable

Test = Callable[[str], bool]
"""Whether a text has some property."""

ARN_PARTS = 6


def like(pattern: str) -> Test:
    """The test for texts that match the whole `pattern`; letters count as they are.

    It takes a number of steps that is linear in the text for each part of the pattern, whatever the text is.
    """
    if "*" not in pattern and "?" not in pattern:
        return pattern.__eq__
    first, *others = (_literal(part) for part in re.sub(r"\*+", "*", pattern).split("*"))
    if not others:
        expression = first
    else:
        # Atomic groups: where a part was found at its first place, a later place is never better.
        middle = "".join(f"(?>.*?{part})" for part in others[:-1])
        expression = f"{first}{middle}.*{others[-1]}"
    found = re.compile(expression, re.DOTALL)
    return lambda text: found.fullmatch(text) is not None


def arn_like(pattern: str) -> Test:
    """The test for ARNs each of whose six parts matches that of `pattern`; a pattern `*` is for every ARN."""
    parts = ["*"] * ARN_PARTS if pattern == "*" else pattern.split(":", ARN_PARTS - 1)
    tests = [like(part) for part in parts]

    def matches(text: str) -> bool:
        found = text.split(":", ARN_PARTS - 1)
        return len(found) == len(tests) == ARN_PARTS and all(map(lambda test, part: test(part), tests, found))

    return matches


def is_arn_pattern(pattern: str) -> bool:
    """Whether `pattern` can be one of ARNs: `*`, or six parts of which the first is `arn`."""
    return pattern == "*" or (pattern.startswith("arn:") and pattern.count(":") >= ARN_PARTS - 1)


def _literal(part: str) -> str:
    return "".join("." if each == "?" else re.escape(each) for each in part)
