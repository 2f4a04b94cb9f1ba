"""Cursors of lists as REST shows them: where a page ended, in a form that only this service makes."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from kms.errors import ValidationFailed
from kms.vault.sealing import DerivedKeys


class Cursors:
    """Makes and opens cursors: unpadded base64url of the position, encrypted for its list (RFC 5297).

    Whoever has one cannot read it: a page may have ended at something that the caller may not see.
    """

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
        content = self._cipher().encrypt(position.encode(), [operation.encode()])
        cursor = urlsafe_b64encode(content).rstrip(b"=").decode()
        return msgspec.structs.replace(answer, next_cursor=cursor)

    def _open(self, operation: str, cursor: str) -> str:
        try:
            content = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            return self._cipher().decrypt(content, [operation.encode()]).decode()
        except (binascii.Error, ValueError, InvalidTag):
            raise _unknown() from None

    def _cipher(self) -> AESSIV:
        """One that needs no nonce: there may be any number of cursors."""
        return AESSIV(b"".join(self._keys.credential_hash("cursor", half) for half in (b"1", b"2")))


def _unknown() -> ValidationFailed:
    return ValidationFailed("cursor: give the next_cursor of the page before, as this list gave it.")
