"""AES key wrapping: KW (RFC 3394) and KWP (RFC 5649), both SP 800-38F."""

from __future__ import annotations

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)

from kms.crypto.primitives import KeyWrapper
from kms.errors import DecryptionFailed, ValidationFailed


class AesKw(KeyWrapper):
    """AES-KW: keys of 16 bytes and more, in multiples of 8."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.wrapping_algorithms: tuple[str, ...] = (f"A{len(key) * 8}KW",)

    def wrap(self, key: bytes, algorithm: str) -> bytes:
        if len(key) < 16 or len(key) % 8:
            raise ValidationFailed(f"key: {algorithm} takes 16 bytes and more, in multiples of 8; KWP takes any.")
        return aes_key_wrap(self._key, key)

    def unwrap(self, wrapped: bytes, algorithm: str) -> bytes:
        try:
            return aes_key_unwrap(self._key, wrapped)
        except InvalidUnwrap:
            raise DecryptionFailed from None


class AesKwp(KeyWrapper):
    """AES-KWP: keys of any length from one byte."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.wrapping_algorithms: tuple[str, ...] = (f"A{len(key) * 8}KWP",)

    def wrap(self, key: bytes, algorithm: str) -> bytes:
        if not key:
            raise ValidationFailed("key: there is nothing to wrap.")
        return aes_key_wrap_with_padding(self._key, key)

    def unwrap(self, wrapped: bytes, algorithm: str) -> bytes:
        try:
            return aes_key_unwrap_with_padding(self._key, wrapped)
        except InvalidUnwrap:
            raise DecryptionFailed from None
