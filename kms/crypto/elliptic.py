"""ECDSA over the NIST curves (FIPS 186-5), named as RFC 7518, section 3.4 does; signatures are R ‖ S."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from kms.crypto.hashing import SHA2, check_digest
from kms.crypto.pkcs8 import load_private, private_der
from kms.crypto.primitives import Signer

CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}

_ALGORITHM = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class EcdsaKey(Signer):
    """One ECDSA private key; its curve fixes the hash."""

    def __init__(self, pkcs8: bytes) -> None:
        self._private = load_private(pkcs8, ec.EllipticCurvePrivateKey)
        self._public = self._private.public_key()
        self.algorithms = (_ALGORITHM[self._private.curve.name],)
        self._digest: hashes.HashAlgorithm = SHA2[self.algorithms[0][2:]]
        self._scalar_bytes = (self._private.curve.key_size + 7) // 8

    def sign(self, message: bytes, algorithm: str, *, prehashed: bool) -> bytes:
        r, s = decode_dss_signature(self._private.sign(message, self._scheme(message, prehashed)))
        return r.to_bytes(self._scalar_bytes) + s.to_bytes(self._scalar_bytes)

    def verify(self, message: bytes, signature: bytes, algorithm: str, *, prehashed: bool) -> bool:
        scheme = self._scheme(message, prehashed)
        if len(signature) != 2 * self._scalar_bytes:
            return False
        r, s = signature[: self._scalar_bytes], signature[self._scalar_bytes :]
        try:
            self._public.verify(encode_dss_signature(int.from_bytes(r), int.from_bytes(s)), message, scheme)
        except InvalidSignature:
            return False
        return True

    def _scheme(self, message: bytes, prehashed: bool) -> ec.ECDSA:
        if prehashed:
            check_digest(message, self._digest)
        return ec.ECDSA(Prehashed(self._digest) if prehashed else self._digest)


def generate(curve: str) -> bytes:
    """A new key on `curve` (a name of `CURVES`) as PKCS#8 DER."""
    return private_der(ec.generate_private_key(CURVES[curve]))
