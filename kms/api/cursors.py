"""Cursors of lists as REST shows them: where a page ended, in a form that only this service makes."""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

from kms.errors import ValidationFailed
from kms.vault.sealing import DerivedKeys

_CODE_BYTES = 9


class Cursors:
    """Makes and opens cursors: unpadded base64url of a code and the position, which the code binds to its list."""

    def __init__(self, derived_keys: DerivedKeys) -> None:
        self._keys = derived_keys

    def opened(self, operation: str, request: Any) -> Any:
        """The request with the position in place of its cursor. Raises ValidationFailed for one that no list gave."""
        cursor = getattr(request, "cursor", None)
        return request if cursor is None else msgspec.structs.replace(request, cursor=self._open(operation, cursor))

    def shown(self, operation: str, answer: Any) -> Any:
        """The answer with a cursor in place of the position where the page ended."""
        position = getattr(answer, "next_cursor", None)
        if position is None:
            return answer
        content = self._code(operation, position) + position.encode()
        cursor = urlsafe_b64encode(content).rstrip(b"=").decode()
        return msgspec.structs.replace(answer, next_cursor=cursor)

    def _open(self, operation: str, cursor: str) -> str:
        try:
            content = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            position = content[_CODE_BYTES:].decode()
        except (binascii.Error, ValueError):
            raise _unknown() from None
        if not hmac.compare_digest(content[:_CODE_BYTES], self._code(operation, position)):
            raise _unknown()
        return position

    def _code(self, operation: str, position: str) -> bytes:
        return self._keys.credential_hash("cursor", operation.encode(), position.encode())[:_CODE_BYTES]


def _unknown() -> ValidationFailed:
    return ValidationFailed("cursor: give the next_cursor of the page before, as this list gave it.")
