"""What a loaded key can do. A key type offers an operation by implementing one of these."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Cipher(ABC):
    """Authenticated encryption, or public-key encryption with a bound label."""

    @abstractmethod
    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Encrypt `plaintext`; the result opens only with the same `associated_data`.

        Raises ValidationFailed where the plaintext is too long for the algorithm.
        """

    @abstractmethod
    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Give the plaintext back. Raises DecryptionFailed, never saying why."""


class Signer(ABC):
    """Digital signatures over a message or over its digest; algorithms have their JOSE names."""

    algorithms: tuple[str, ...]
    """The algorithms of this key, its default first."""

    @abstractmethod
    def sign(self, message: bytes, algorithm: str, *, prehashed: bool) -> bytes:
        """Sign `message`, or with `prehashed` the digest that it is.

        Signatures have the form that RFC 7518 gives them: ECDSA is R ‖ S. Raises ValidationFailed for a
        digest of the wrong length.
        """

    @abstractmethod
    def verify(self, message: bytes, signature: bytes, algorithm: str, *, prehashed: bool) -> bool:
        """Whether `signature` is valid; malformed signatures are simply not."""
