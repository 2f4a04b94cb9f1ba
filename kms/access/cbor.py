"""CBOR as authenticators write it (CTAP 2.1, section 8): without tags, open ends or deep nesting.

A general decoder does more than that, for whoever sends it: with the tags for shared values some two hundred bytes
unfold into more than any memory holds. So what comes from outside is read here before a library sees it.
"""

from __future__ import annotations

from typing import Any

_DEEPEST = 4
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_VALUES = {20: False, 21: True, 22: None}


class MalformedCbor(Exception):
    """This is not CBOR of that form."""


def decoded(data: bytes) -> Any:
    """The one value that `data` is. Raises MalformedCbor."""
    value, end = item(data, 0)
    if end != len(data):
        raise MalformedCbor
    return value


def item(data: bytes, at: int, depth: int = 0) -> tuple[Any, int]:
    """The value that begins `at` that byte, and where it ends. Raises MalformedCbor."""
    kind, number, at = _head(data, at)
    if kind == _UNSIGNED:
        return number, at
    if kind == _NEGATIVE:
        return -1 - number, at
    if kind in (_BYTES, _TEXT):
        end = at + number
        if end > len(data):
            raise MalformedCbor
        return (data[at:end] if kind == _BYTES else _text(data[at:end])), end
    if kind == _SIMPLE and number in _VALUES:
        return _VALUES[number], at
    if kind not in (_ARRAY, _MAP) or depth == _DEEPEST or number > len(data) - at:  # each value has a byte at least
        raise MalformedCbor
    return _array(data, at, number, depth + 1) if kind == _ARRAY else _map(data, at, number, depth + 1)


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """The kind of a value, the number that its first bytes hold, and where they end."""
    if at >= len(data):
        raise MalformedCbor
    kind, number, at = data[at] >> 5, data[at] & 31, at + 1
    if number < 24:
        return kind, number, at
    end = at + (1 << number - 24)
    if number > 27 or kind == _SIMPLE or end > len(data):
        raise MalformedCbor
    return kind, int.from_bytes(data[at:end]), end


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedCbor from None


def _array(data: bytes, at: int, number: int, depth: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(number):
        value, at = item(data, at, depth)
        values.append(value)
    return values, at


def _map(data: bytes, at: int, number: int, depth: int) -> tuple[dict[Any, Any], int]:
    values: dict[Any, Any] = {}
    for _ in range(number):
        key, at = item(data, at, depth)
        if type(key) not in (int, str) or key in values:
            raise MalformedCbor
        values[key], at = item(data, at, depth)
    return values, at
