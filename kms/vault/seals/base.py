"""What a seal is."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.errors import StartError
from kms.secret import Secret
from kms.vault.sealing import SealBroken

Parameters = dict[str, str | int]
"""Public values that a seal needs to unseal again; kept in the database, in clear."""

SEAL_KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE_BYTES = 12


class Seal(Protocol):
    """Wraps the keyset of a vault (see `kms.vault.keyset`), so that only the seal can unwrap it."""

    name: str

    def create(self) -> Parameters:
        """Make what is needed to seal a vault, durable before this returns. Raises StartError."""

    def wrap(self, keyset: bytes, context: bytes, parameters: Parameters) -> bytes:
        """`keyset` wrapped and authenticated; it is unwrapped with the same `context` only. Raises StartError."""

    def unwrap(self, wrapped: bytes, context: bytes, parameters: Parameters) -> bytes:
        """What was wrapped. Makes nothing new.

        Raises SealBroken if `wrapped` was not made by this seal in this context, and StartError if the seal cannot
        do its work.
        """


class KeySeal(ABC):
    """A seal that has, or gets from people, a key of 32 bytes, here called the seal key."""

    name: str

    @abstractmethod
    def create(self) -> Parameters:
        """As `Seal.create`."""

    @abstractmethod
    def seal_key(self, parameters: Parameters) -> Secret:
        """The seal key. Raises StartError."""

    def wrap(self, keyset: bytes, context: bytes, parameters: Parameters) -> bytes:
        """AES-256-GCM: format (1 byte) ‖ nonce (12) ‖ ciphertext ‖ tag (16). Raises StartError."""
        return wrap_with(self.seal_key(parameters), keyset, context)

    def unwrap(self, wrapped: bytes, context: bytes, parameters: Parameters) -> bytes:
        """What was wrapped. Raises SealBroken or StartError."""
        return unwrap_with(self.seal_key(parameters), wrapped, context)


def wrap_with(key: Secret, keyset: bytes, context: bytes) -> bytes:
    """AES-256-GCM under a key derived from `key`: format (1 byte) ‖ nonce (12) ‖ ciphertext ‖ tag (16)."""
    nonce = os.urandom(_NONCE_BYTES)
    return _FORMAT + nonce + _cipher(key).encrypt(nonce, keyset, context)


def unwrap_with(key: Secret, wrapped: bytes, context: bytes) -> bytes:
    """What `wrap_with` wrapped. Raises SealBroken."""
    nonce, ciphertext = wrapped[1 : 1 + _NONCE_BYTES], wrapped[1 + _NONCE_BYTES :]
    if wrapped[:1] != _FORMAT or len(ciphertext) < 16:
        raise SealBroken("wrapped keyset of no known format")
    try:
        return _cipher(key).decrypt(nonce, ciphertext, context)
    except InvalidTag:
        raise SealBroken("wrapped keyset does not open") from None


def _cipher(key: Secret) -> AESGCM:
    if len(key.reveal()) != SEAL_KEY_BYTES:
        raise StartError("A seal key has 32 bytes.")
    return AESGCM(HKDF(hashes.SHA256(), 32, b"", b"kms seal v1").derive(key.reveal()))
