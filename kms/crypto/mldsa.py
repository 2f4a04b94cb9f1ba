"""ML-DSA (FIPS 204), with context and with the message representative μ computed elsewhere."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder

from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Scheme, Signer
from kms.crypto.signing import no_options
from kms.errors import ValidationFailed

_MU_BYTES = 64
_LONGEST_CONTEXT = 255
_ALGORITHM = {
    mldsa.MLDSA44PublicKey: "ML-DSA-44",
    mldsa.MLDSA65PublicKey: "ML-DSA-65",
    mldsa.MLDSA87PublicKey: "ML-DSA-87",
}


class MlDsaKey(Signer):
    """One ML-DSA key; its private form is the 32-byte seed ξ."""

    def __init__(self, key: Any) -> None:
        self._private, self._public = halves(key)
        self.algorithms = tuple(name for kind, name in _ALGORITHM.items() if isinstance(self._public, kind))

    def sign(self, message: bytes, scheme: Scheme) -> bytes:
        _check(message, scheme)
        if scheme.prehashed:
            return bytes(self._private.sign_mu(message))
        return bytes(self._private.sign(message, scheme.context))

    def verify(self, message: bytes, signature: bytes, scheme: Scheme) -> bool:
        _check(message, scheme)
        try:
            if scheme.prehashed:
                self._public.verify_mu(signature, message)
            else:
                self._public.verify(signature, message, scheme.context)
        except InvalidSignature:
            return False
        return True

    def request_certificate(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequest:
        return builder.sign(self._private, None)


def _check(message: bytes, scheme: Scheme) -> None:
    if not scheme.prehashed:
        no_options(scheme, but="context")
        if len(scheme.context) > _LONGEST_CONTEXT:
            raise ValidationFailed(f"context: at most {_LONGEST_CONTEXT} bytes (FIPS 204, section 5.2).")
        return
    no_options(scheme, but="prehashed")
    if len(message) != _MU_BYTES:
        raise ValidationFailed("digest: ML-DSA takes the 64-byte message representative μ (FIPS 204, section 6.2).")
