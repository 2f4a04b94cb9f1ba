"""RSA moduli that somebody can factor, refused wherever a key comes from outside.

Size and exponent by FIPS 186-5, appendix A.1.1; small factors; close primes (Fermat's method); and the moduli of
the library of CVE-2017-15361 (ROCA: Nemec et al., ACM CCS 2017), which are powers of 65537 modulo small primes.
"""

from __future__ import annotations

from functools import cache
from math import gcd, isqrt, prod

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kms.errors import ValidationFailed

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = 1 << 16, 1 << 64  # the library takes no larger ones everywhere
_FERMAT_ROUNDS = 100
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)  # where it tells most


def validate(key: PublicKeyTypes) -> None:
    """Raise ValidationFailed for an RSA key that is known to be weak."""
    assert isinstance(key, RSAPublicKey)
    numbers = key.public_numbers()
    n, e = numbers.n, numbers.e
    if not _SMALLEST_EXPONENT < e < _LARGEST_EXPONENT or e % 2 == 0:
        raise ValidationFailed("public_key: the RSA exponent must be odd, above 2^16 and below 2^64.")
    if gcd(n, _small_primes()) != 1 or _has_close_primes(n) or _has_roca_form(n) or _is_no_product(n):
        raise ValidationFailed("public_key: this RSA modulus can be factored. Make a new key.")


@cache
def _small_primes() -> int:
    """The product of the primes below 2000."""
    return prod(n for n in range(2, 2000) if all(n % divisor for divisor in range(2, isqrt(n) + 1)))


def _has_close_primes(n: int) -> bool:
    a = isqrt(n - 1) + 1
    for candidate in range(a, a + _FERMAT_ROUNDS):
        difference = candidate * candidate - n
        if isqrt(difference) ** 2 == difference:
            return True
    return False


@cache
def _powers_of_65537(prime: int) -> frozenset[int]:
    return frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1))


def _is_no_product(n: int) -> bool:
    """Whether n is a prime, or a power of one (SP 800-89, section 5.3.3)."""
    return pow(2, n - 1, n) == 1 or any(_root(n, degree) ** degree == n for degree in (3, 5, 7, 11, 13))


def _root(n: int, degree: int) -> int:
    """The integer part of the root, by Newton's method."""
    root = 1 << -(-n.bit_length() // degree)
    while True:
        smaller = ((degree - 1) * root + n // root ** (degree - 1)) // degree
        if smaller >= root:
            return root
        root = smaller


def validate_private(key: RSAPrivateKey) -> None:
    """Raise ValidationFailed unless the modulus has two factors of half its size (FIPS 186-5, appendix A.1.1)."""
    numbers = key.private_numbers()
    half = key.key_size // 2
    if numbers.p.bit_length() != half or numbers.q.bit_length() != half or numbers.d.bit_length() > key.key_size:
        raise ValidationFailed("wrapped_key: the factors of an RSA modulus have half its bits each.")


def _has_roca_form(n: int) -> bool:
    return all(n % prime in _powers_of_65537(prime) for prime in _ROCA_PRIMES)
