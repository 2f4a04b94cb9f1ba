"""EdDSA (RFC 8032): Ed25519 and Ed448, without context and without prehashing; named as in RFC 9864."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509 import CertificateSigningRequest, CertificateSigningRequestBuilder

from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Scheme, Signer
from kms.crypto.signing import no_options
from kms.errors import ValidationFailed


class EddsaKey(Signer):
    """One key on an Edwards curve."""

    def __init__(self, key: Any) -> None:
        self._private, self._public = halves(key)
        is_25519 = isinstance(self._public, ed25519.Ed25519PublicKey)
        self.algorithms = ("Ed25519" if is_25519 else "Ed448",)

    def sign(self, message: bytes, scheme: Scheme) -> bytes:
        no_options(scheme)
        return bytes(self._private.sign(message))

    def verify(self, message: bytes, signature: bytes, scheme: Scheme) -> bool:
        no_options(scheme)
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def request_certificate(self, builder: CertificateSigningRequestBuilder) -> CertificateSigningRequest:
        return builder.sign(self._private, None)


_P25519 = 2**255 - 19
_D25519 = -121665 * pow(121666, -1, _P25519)
_P448 = 2**448 - 2**224 - 1
_D448 = -39081


def validate(key: PublicKeyTypes) -> None:
    """Raise ValidationFailed for a public key that is no point, not canonical, or of small order.

    A key of small order makes signatures valid that nobody signed; the library looks at none of this.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        p, a, d, doublings = _P25519, -1, _D25519, 3  # RFC 8032, section 5.1: cofactor 8
    else:
        assert isinstance(key, ed448.Ed448PublicKey)
        p, a, d, doublings = _P448, 1, _D448, 2  # the same, section 5.2: cofactor 4
    encoded = key.public_bytes_raw()
    y = int.from_bytes(encoded, "little") & ~(1 << (len(encoded) * 8 - 1))
    # a·x² + y² = 1 + d·x²·y² is solved for x²; it is a square exactly for points of the curve.
    x_squared = (y * y - 1) * pow(d * y * y - a, -1, p) % p
    if y >= p or pow(x_squared, (p - 1) // 2, p) not in (0, 1):
        raise ValidationFailed("public_key: not a point of the curve.")
    for _ in range(doublings):
        # y of the double, from x² and y² alone: (y² - a·x²) / (2 - a·x² - y²), with a·x² + y² = 1 + d·x²·y²
        numerator, denominator = y * y - a * x_squared, 2 - a * x_squared - y * y
        y = numerator * pow(denominator, -1, p) % p
        x_squared = (y * y - 1) * pow(d * y * y - a, -1, p) % p
    if y == 1:
        raise ValidationFailed("public_key: a point of small order; anybody could sign for it.")
