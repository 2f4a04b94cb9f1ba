"""Diffie-Hellman over the finite-field groups of RFC 7919.

`cryptography` 50 announces that it will drop finite-field Diffie-Hellman one day; `x25519` is the modern
choice and the groups stay for peers that need them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric import dh
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning

from kms.crypto.agreement import AgreementGroup
from kms.crypto.pkcs8 import load_private, private_der
from kms.errors import ValidationFailed

warnings.filterwarnings(
    "ignore", "Diffie-Hellman over finite fields", CryptographyDeprecationWarning, module=r"kms\.crypto"
)

# RFC 7919, appendix A: p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + x) * 2^64 - 1, with these x.
_OFFSET = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}


@dataclass(frozen=True)
class FiniteFieldGroup(AgreementGroup):
    """One group of RFC 7919: a safe prime with generator 2 of the subgroup of order (p - 1) / 2."""

    bits: int

    @property
    def name(self) -> str:
        """The group's name in RFC 7919."""
        return f"ffdhe{self.bits}"

    @cached_property
    def prime(self) -> int:
        """The modulus p."""
        e = _floor_of_e_times_power_of_two(self.bits - 130)
        return (1 << self.bits) - (1 << (self.bits - 64)) + ((e + _OFFSET[self.bits]) << 64) - 1

    def generate(self) -> bytes:
        """A new private key as PKCS#8 DER; the exponent has the length that RFC 7919 asks for."""
        return private_der(self._parameters.generate_private_key())

    def owns(self, peer: PublicKeyTypes) -> bool:
        """Whether `peer` is a public key with exactly this group's parameters."""
        if not isinstance(peer, dh.DHPublicKey):
            return False
        numbers = peer.public_numbers().parameter_numbers
        return numbers.p == self.prime and numbers.g == 2 and numbers.q in (None, self.prime >> 1)

    def exchange(self, private: bytes, peer: PublicKeyTypes) -> bytes:
        """The shared secret Z, left-padded to the length of p (SP 800-56A rev. 3, section 5.7.1.1).

        Raises ValidationFailed unless the peer's value is in the subgroup (the same, section 5.6.2.3.1).
        """
        assert isinstance(peer, dh.DHPublicKey)
        y = peer.public_numbers().y
        # For a safe prime the subgroup of prime order is that of the squares, and the Jacobi symbol tells
        # squares in milliseconds where y^q mod p would hold the interpreter for a second (8192 bits).
        if not 2 <= y <= self.prime - 2 or _jacobi(y, self.prime) != 1:
            raise ValidationFailed("peer_public_key: the value is not in the group's prime-order subgroup.")
        key = load_private(private, dh.DHPrivateKey)
        return key.exchange(dh.DHPublicNumbers(y, self._parameters.parameter_numbers()).public_key())

    @cached_property
    def _parameters(self) -> dh.DHParameters:
        return dh.DHParameterNumbers(self.prime, 2).parameters()


def _floor_of_e_times_power_of_two(power: int) -> int:
    """floor(e * 2^power), summing 1/k! with 64 guard bits."""
    term = total = 1 << (power + 64)
    k = 1
    while term:
        term //= k
        total += term
        k += 1
    return total >> 64


def _jacobi(a: int, n: int) -> int:
    """The Jacobi symbol (a/n) for odd n > 0; for a prime n it is 1 exactly for the squares."""
    result = 1
    a %= n
    while a:
        twos = (a & -a).bit_length() - 1
        a >>= twos
        if twos % 2 and n % 8 in (3, 5):
            result = -result
        if a % 4 == 3 and n % 4 == 3:
            result = -result
        a, n = n % a, a
    return result if n == 1 else 0
