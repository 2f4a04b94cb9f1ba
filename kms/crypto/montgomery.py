"""X25519 (RFC 7748)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kms.crypto.agreement import AgreementGroup
from kms.crypto.pkcs8 import load_private, private_der
from kms.errors import ValidationFailed


class X25519Group(AgreementGroup):
    """Curve25519 as RFC 7748 uses it."""

    name = "x25519"

    def generate(self) -> bytes:
        return private_der(x25519.X25519PrivateKey.generate())

    def owns(self, peer: PublicKeyTypes) -> bool:
        return isinstance(peer, x25519.X25519PublicKey)

    def exchange(self, private: bytes, peer: PublicKeyTypes) -> bytes:
        assert isinstance(peer, x25519.X25519PublicKey)
        try:
            return load_private(private, x25519.X25519PrivateKey).exchange(peer)
        except ValueError:  # the all-zero secret of RFC 7748, section 6.1
            raise ValidationFailed("peer_public_key: a low-order point; it would fix the secret.") from None
