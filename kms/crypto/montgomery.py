"""X25519 and X448 (RFC 7748)."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kms.crypto.hpke import HpkeKey
from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Agreement
from kms.errors import ValidationFailed

_LOW_ORDER = "peer_public_key: a low-order point; it would fix the secret."


class MontgomeryKey(Agreement):
    """One key of either function."""

    def __init__(self, key: Any) -> None:
        self._private, self._public = halves(key)

    def exchange(self, peer: PublicKeyTypes) -> bytes:
        try:
            return bytes(self._private.exchange(peer))
        except ValueError:  # the all-zero secret of RFC 7748, section 6
            raise ValidationFailed(_LOW_ORDER) from None


class X25519Key(MontgomeryKey, HpkeKey):
    """An X25519 key, which HPKE knows too."""


def validate(key: PublicKeyTypes) -> None:
    """Raise ValidationFailed for a public key of low order."""
    kind: Any = x25519.X25519PrivateKey if isinstance(key, x25519.X25519PublicKey) else x448.X448PrivateKey
    MontgomeryKey(kind.generate()).exchange(key)
