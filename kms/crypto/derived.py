"""Keys that encrypt under a key derived for each context, as Vault's derived and convergent keys do.

A context (a user, a tenant) gives its own AEAD key: HKDF-SHA-256 (RFC 5869) of the key without a salt, the context
as info. Convergent keys also take the nonce from the message, so that equal messages with equal associated data give
equal ciphertexts in one context and say nothing across contexts.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.crypto.primitives import Cipher
from kms.crypto.symmetric import TAG_BYTES
from kms.errors import DecryptionFailed, ValidationFailed

_NONCE_BYTES = 12
_NONCE_SALT = b"kms convergent nonce v1"
NewAead = Callable[[bytes], AESGCM | ChaCha20Poly1305]


class DerivedCipher(Cipher):
    """A cipher that derives a key of its own for each context; without a context it cannot be used."""

    def __init__(self, new_aead: NewAead, key: bytes, *, convergent: bool = False) -> None:
        self._new_aead, self._key, self._convergent = new_aead, key, convergent

    def in_context(self, context: bytes) -> Cipher:
        aead = self._new_aead(_derived(self._key, context, None, len(self._key)))
        nonce_key = _derived(self._key, context, _NONCE_SALT, 32) if self._convergent else None
        return _InContext(aead, nonce_key)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        raise ValidationFailed("context: needed, for a key of this type has another key for each.")

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        raise ValidationFailed("context: needed, for a key of this type has another key for each.")


class _InContext(Cipher):
    """Ciphertexts are nonce (12 bytes) ‖ ciphertext ‖ tag (16), the nonce drawn or taken from the message."""

    def __init__(self, aead: AESGCM | ChaCha20Poly1305, nonce_key: bytes | None) -> None:
        self._aead, self._nonce_key = aead, nonce_key

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        if self._nonce_key is None:
            nonce = os.urandom(_NONCE_BYTES)
        else:
            message = len(associated_data).to_bytes(8) + associated_data + plaintext
            nonce = hmac.digest(self._nonce_key, message, sha256)[:_NONCE_BYTES]
        return nonce + self._aead.encrypt(nonce, plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < _NONCE_BYTES + TAG_BYTES:
            raise DecryptionFailed
        try:
            return self._aead.decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], associated_data)
        except InvalidTag:
            raise DecryptionFailed from None


def _derived(key: bytes, context: bytes, salt: bytes | None, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, context).derive(key)
