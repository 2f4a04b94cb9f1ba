"""A value that does not show itself."""

from __future__ import annotations

import hmac


class Secret:
    """Bytes that are redacted in `repr` and `str` and compared in constant time.

    `reveal()` is the only way to get the bytes; to find every place that uses them, search for it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(redacted)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key: hashing would leak its equality
