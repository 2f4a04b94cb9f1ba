"""Key agreement with ephemeral keys (SP 800-56A rev. 3) and derivation of the session key by HKDF (RFC 5869)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kms.errors import ValidationFailed


class AgreementGroup(ABC):
    """A group in which two parties can agree on a secret."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The group's name, such as `ffdhe3072` or `x25519`."""

    @abstractmethod
    def generate(self) -> bytes:
        """A new private key as PKCS#8 DER."""

    @abstractmethod
    def owns(self, peer: PublicKeyTypes) -> bool:
        """Whether `peer` is a public key of this group."""

    @abstractmethod
    def exchange(self, private: bytes, peer: PublicKeyTypes) -> bytes:
        """The shared secret of the private key (PKCS#8 DER) and a key that this group owns.

        Raises ValidationFailed for a peer key that would weaken the secret.
        """


def load_peer(pem: str) -> PublicKeyTypes:
    """The public key in PEM text from a peer. Raises ValidationFailed."""
    try:
        return load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValidationFailed("peer_public_key: not a PEM public key of a kind that is known here.") from None


def derive(shared_secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF with SHA-256 (RFC 5869): `length` bytes of key from the shared secret."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(shared_secret)
