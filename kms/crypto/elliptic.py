"""ECDSA (FIPS 186-5) and ECDH (SP 800-56A rev. 3) over prime curves; algorithms named as in RFC 7518 and 8812."""

from __future__ import annotations

from functools import partial
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder

from kms.crypto.hashing import DIGESTS, SHA2, check_digest
from kms.crypto.hpke import HpkeKey
from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Agreement, Scheme, Signer
from kms.errors import ValidationFailed

CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}

_ALGORITHM = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}


class EcKey(Signer, Agreement):
    """One key on a curve that fixes its hash, unless another is asked for by name."""

    further_algorithms = tuple(f"ECDSA-{digest}" for digest in DIGESTS)

    def __init__(self, key: Any) -> None:
        self._private: ec.EllipticCurvePrivateKey
        self._public: ec.EllipticCurvePublicKey
        self._private, self._public = halves(key)
        self.algorithms = (_ALGORITHM[self._public.curve.name],)
        self._digest = SHA2[self.algorithms[0][2:5]]
        self._scalar_bytes = (self._public.curve.key_size + 7) // 8

    def sign(self, message: bytes, scheme: Scheme) -> bytes:
        der = self._private.sign(message, self._hashing(message, scheme))
        if scheme.der:
            return der
        r, s = decode_dss_signature(der)
        return r.to_bytes(self._scalar_bytes) + s.to_bytes(self._scalar_bytes)

    def verify(self, message: bytes, signature: bytes, scheme: Scheme) -> bool:
        hashing = self._hashing(message, scheme)
        try:
            self._public.verify(self._strict_der(signature, scheme), message, hashing)
        except (InvalidSignature, ValueError):
            return False
        return True

    def request_certificate(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequest:
        return builder.sign(self._private, self._digest)

    def exchange(self, peer: PublicKeyTypes) -> bytes:
        assert isinstance(peer, ec.EllipticCurvePublicKey)
        return self._private.exchange(ec.ECDH(), peer)

    def _strict_der(self, signature: bytes, scheme: Scheme) -> bytes:
        """`signature` as the one DER encoding there is of it. Raises ValueError for every other form."""
        if scheme.der:
            if encode_dss_signature(*decode_dss_signature(signature)) != signature:
                raise ValueError("not DER")
            return signature
        if len(signature) != 2 * self._scalar_bytes:
            raise ValueError("not R ‖ S")
        r, s = signature[: self._scalar_bytes], signature[self._scalar_bytes :]
        return encode_dss_signature(int.from_bytes(r), int.from_bytes(s))

    def _hashing(self, message: bytes, scheme: Scheme) -> ec.ECDSA:
        if scheme.context:
            raise ValidationFailed("context: ECDSA has no context; only ML-DSA has.")
        digest: hashes.HashAlgorithm = self._digest
        if scheme.algorithm in self.further_algorithms:
            digest = DIGESTS[scheme.algorithm.removeprefix("ECDSA-")]
        if scheme.prehashed:
            check_digest(message, digest)
        return ec.ECDSA(Prehashed(digest) if scheme.prehashed else digest)


class NistEcKey(EcKey, HpkeKey):
    """A key on a curve of NIST, which HPKE knows too."""


generate = {name: partial(ec.generate_private_key, curve) for name, curve in CURVES.items()}
"""For each curve what makes a new key on it."""


def owns(curve: str, key: PublicKeyTypes) -> bool:
    """Whether `key` is on `curve`; that its point is valid was checked when it was loaded."""
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == CURVES[curve].name
