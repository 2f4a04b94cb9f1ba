"""Diffie-Hellman over the finite-field groups of RFC 7919.

`cryptography` 50 announces that it will drop finite-field Diffie-Hellman one day; `x25519` is the modern
choice and the groups stay for peers that need them.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dh
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.utils import CryptographyDeprecationWarning

from kms.crypto.pkcs8 import halves
from kms.crypto.primitives import Agreement
from kms.errors import ValidationFailed

warnings.filterwarnings(
    "ignore", "Diffie-Hellman over finite fields", CryptographyDeprecationWarning, module=r"kms\.crypto"
)

_DH_KEY_AGREEMENT = bytes.fromhex("06092a864886f70d010301")  # PKCS#3: 1.2.840.113549.1.3.1

_SHORTEST_EXPONENT = 200  # a random one of 225 bits is this short once in 2^25

# RFC 7919, appendix A: p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + x) * 2^64 - 1, with these x.
_OFFSET = {2048: 560316, 3072: 2625351, 4096: 5736041, 6144: 15705020, 8192: 10965728}


@cache
def prime(bits: int) -> int:
    """The modulus p of the group; 2 generates its subgroup of order (p - 1) / 2."""
    e = _floor_of_e_times_power_of_two(bits - 130)
    return (1 << bits) - (1 << (bits - 64)) + ((e + _OFFSET[bits]) << 64) - 1


def generate(bits: int) -> dh.DHPrivateKey:
    """A new private key; the exponent has the length that RFC 7919 asks for."""
    return dh.DHParameterNumbers(prime(bits), 2).parameters().generate_private_key()


def owns(bits: int, key: PublicKeyTypes) -> bool:
    """Whether `key` is a public key with exactly this group's parameters."""
    if not isinstance(key, dh.DHPublicKey) or key.key_size != bits:
        return False
    numbers = key.public_numbers().parameter_numbers
    return numbers.p == prime(bits) and numbers.g == 2 and numbers.q in (None, prime(bits) >> 1)


def spki(key: PublicKeyTypes) -> bytes:
    """`key` as SubjectPublicKeyInfo DER with the parameters p and g of PKCS#3, as `openssl` writes these groups.

    The library adds q and so makes it a key of X9.42, which `openssl` does not let agree with the other kind.
    """
    assert isinstance(key, dh.DHPublicKey)
    numbers = key.public_numbers()
    parameters = _tlv(0x30, _integer(numbers.parameter_numbers.p) + _integer(numbers.parameter_numbers.g))
    return _tlv(0x30, _tlv(0x30, _DH_KEY_AGREEMENT + parameters) + _tlv(0x03, b"\0" + _integer(numbers.y)))


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _tlv(tag: int, content: bytes) -> bytes:
    """DER: tag, length, value (X.690, section 8.1)."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else size.to_bytes((size.bit_length() + 7) // 8)
    prefix = b"" if size < 0x80 else bytes([0x80 | len(length)])
    return bytes([tag]) + prefix + length + content


def validate(key: PublicKeyTypes) -> None:
    """Raise ValidationFailed unless the value is in the prime-order subgroup (SP 800-56A, section 5.6.2.3.1)."""
    assert isinstance(key, dh.DHPublicKey)
    numbers = key.public_numbers()
    p = numbers.parameter_numbers.p
    # For a safe prime the subgroup of prime order is that of the squares, and the Jacobi symbol tells
    # squares in milliseconds where y^q mod p would hold the interpreter for a second (8192 bits).
    if not 2 <= numbers.y <= p - 2 or _jacobi(numbers.y, p) != 1:
        raise ValidationFailed("peer_public_key: the value is not in the group's prime-order subgroup.")


def validate_private(key: dh.DHPrivateKey) -> None:
    """Raise ValidationFailed for a private key that can be guessed (RFC 7919, section 5.2: 225 bits and more)."""
    if key.private_numbers().x.bit_length() < _SHORTEST_EXPONENT:
        raise ValidationFailed("wrapped_key: the private exponent is too short.")


class DhKey(Agreement):
    """One key of a finite-field group."""

    def __init__(self, key: Any) -> None:
        self._private: dh.DHPrivateKey
        self._private, self._public = halves(key)

    def exchange(self, peer: PublicKeyTypes) -> bytes:
        """The shared secret Z, left-padded to the length of p (SP 800-56A rev. 3, section 5.7.1.1)."""
        assert isinstance(peer, dh.DHPublicKey)
        validate(peer)
        own = self._private.private_numbers().public_numbers.parameter_numbers
        return self._private.exchange(dh.DHPublicNumbers(peer.public_numbers().y, own).public_key())


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
