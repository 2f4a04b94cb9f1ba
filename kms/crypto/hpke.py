"""Hybrid public-key encryption (RFC 9180), base mode, one suite for each type of key.

The suites of ML-KEM and of the hybrid are those of draft-ietf-hpke-pq.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite

from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Hpke
from kms.errors import DecryptionFailed, ValidationFailed


class HpkeKey(Hpke):
    """A key of any type that HPKE has a KEM for."""

    def __init__(self, key: Any) -> None:
        self._private, self._public = halves(key)

    @property
    def suite(self) -> str:
        """KEM, KDF and AEAD by their names in the registry of RFC 9180."""
        return _suite(self._public)[1]

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        try:
            return _suite(self._public)[0].encrypt(plaintext, self._public, info)
        except ValueError:  # a public key with which nobody can agree on a secret
            raise ValidationFailed("public_key: HPKE cannot encrypt to this key.") from None

    def open(self, sealed: bytes, info: bytes) -> bytes:
        try:
            return _suite(self._public)[0].decrypt(sealed, self._private, info)
        except (InvalidTag, ValueError):
            raise DecryptionFailed from None


_BY_CURVE = {
    "secp256r1": (KEM.P256, KDF.HKDF_SHA256, "DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM"),
    "secp384r1": (KEM.P384, KDF.HKDF_SHA384, "DHKEM(P-384, HKDF-SHA384), HKDF-SHA384, AES-256-GCM"),
    "secp521r1": (KEM.P521, KDF.HKDF_SHA512, "DHKEM(P-521, HKDF-SHA512), HKDF-SHA512, AES-256-GCM"),
}
_BY_KIND = (
    (x25519.X25519PublicKey, KEM.X25519, KDF.HKDF_SHA256, "DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM"),
    (mlkem.MLKEM768PublicKey, KEM.MLKEM768, KDF.HKDF_SHA256, "ML-KEM-768, HKDF-SHA256, AES-256-GCM"),
    (mlkem.MLKEM1024PublicKey, KEM.MLKEM1024, KDF.HKDF_SHA384, "ML-KEM-1024, HKDF-SHA384, AES-256-GCM"),
    (MLKEM768X25519PublicKey, KEM.MLKEM768_X25519, KDF.HKDF_SHA256, "MLKEM768-X25519, HKDF-SHA256, AES-256-GCM"),
)


def _suite(recipient: Any) -> tuple[Suite, str]:
    if isinstance(recipient, ec.EllipticCurvePublicKey):
        kem, kdf, name = _BY_CURVE[recipient.curve.name]
    else:
        kem, kdf, name = next(entry[1:] for entry in _BY_KIND if isinstance(recipient, entry[0]))
    return Suite(kem, kdf, AEAD.AES_256_GCM), name
