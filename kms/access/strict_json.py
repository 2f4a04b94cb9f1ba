"""JSON objects that no two parsers understand differently (RFC 8259, section 4, and RFC 7493)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Never

_DEEPEST = 16
_LONGEST_INTEGER = 64
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # takes one that never ends too, so that this is linear
_BRACKET = re.compile(r"[\[{\]}]")


class NotStrict(ValueError):
    """It is not such an object; the message is the end of a sentence that begins with "not acceptable JSON:"."""


def json_object(encoded: bytes) -> dict[str, Any]:
    """The JSON object in UTF-8 `encoded`, about which no two parsers disagree. Raises NotStrict.

    Refused are members that come twice at any depth, more than 16 levels, NaN and numbers without end, halves of
    surrogate pairs and U+0000, which no database keeps.
    """
    text = _utf8(encoded)
    _require_depth(text)
    value = _decode(text)
    if not isinstance(value, dict):
        raise NotStrict("it is not an object.")
    if "\\u" in text and any("\0" in each or not _is_unicode(each) for each in _strings(value)):
        raise NotStrict("it has a character that is none.")
    return value


def _utf8(encoded: bytes) -> str:
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrict("it is not UTF-8.") from None


def _decode(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise NotStrict("it cannot be parsed.") from None


def _require_depth(text: str) -> None:
    """Bound the depth before parsing. Brackets in strings do not count; few brackets need no closer look."""
    if text.count("{") + text.count("[") <= _DEEPEST:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            raise NotStrict(f"it is more than {_DEEPEST} levels deep.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrict("a member comes twice.")
    return members


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise NotStrict("a number is too large.")
    return number


def _integer(literal: str) -> int:
    if len(literal) > _LONGEST_INTEGER:
        raise NotStrict("a number is too large.")
    return int(literal)


def _no_constant(literal: str) -> Never:
    raise NotStrict(f"{literal} is not JSON.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer, parse_constant=_no_constant
)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from _strings(each)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
