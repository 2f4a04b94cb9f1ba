"""Shamir's secret sharing over GF(2^8): any `threshold` shares give the secret, fewer say nothing about it.

A. Shamir, "How to share a secret", 1979. Each byte of the secret is the constant term of a random polynomial of its
own; share x is the values of all of them at x. The field is that of AES (FIPS 197, section 4), modulo
x^8 + x^4 + x^3 + x + 1.

All bytes are computed with at once, as the lanes of one integer. The numbers of the shares are public, and every
multiplication is by a public number, so that no branch, no index and no number of steps depends on a secret; tables
of logarithms would tell it by the cache (CVE-2023-25000).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import reduce

MOST_SHARES = 255
_POLYNOMIAL = 0x1B
_BITS = 8


def split(secret: bytes, *, shares: int, threshold: int) -> dict[int, bytes]:
    """`shares` shares by their numbers, from 1, each as long as the secret. Raises ValueError."""
    if not 1 <= threshold <= shares <= MOST_SHARES:
        raise ValueError(f"there are 1 to {MOST_SHARES} shares, and the threshold is not more than they are")
    lanes = _Lanes(len(secret))
    # From the highest power down; the highest may be zero, or fewer shares would say that it is not.
    coefficients = [int.from_bytes(os.urandom(len(secret))) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret))
    return {number: lanes.at(number, coefficients).to_bytes(len(secret)) for number in range(1, shares + 1)}


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from as many shares, by their numbers, as the threshold is. Others give another value, unnoticed.

    Raises ValueError unless all are of one length and their numbers from 1 to 255.
    """
    lengths = {len(share) for share in shares.values()}
    if len(lengths) != 1 or not all(1 <= number <= MOST_SHARES for number in shares):
        raise ValueError("shares have numbers from 1 to 255 and one length")
    (length,) = lengths
    lanes, secret = _Lanes(length), 0
    for number, share in shares.items():
        others = [other for other in shares if other != number]
        secret ^= lanes.times(int.from_bytes(share), _at_zero(number, others))
    return secret.to_bytes(length)


def _at_zero(number: int, others: Iterable[int]) -> int:
    """The value at 0 of the Lagrange polynomial that is 1 at `number` and 0 at `others`."""
    byte = _Lanes(1)
    value = 1
    for other in others:
        value = byte.times(byte.times(value, other), _inverse(other ^ number))
    return value


def _inverse(element: int) -> int:
    """Its 254th power, for the group has 255 elements: the product of the 2nd, 4th, 8th … 128th."""
    byte, inverse = _Lanes(1), 1
    for _ in range(_BITS - 1):
        element = byte.times(element, element)
        inverse = byte.times(inverse, element)
    return inverse


class _Lanes:
    """Elements of the field side by side in one integer of `length` bytes."""

    def __init__(self, length: int) -> None:
        ones = int.from_bytes(b"\x01" * length)
        self._lowest_bits, self._all_but_highest = ones, ones * 0x7F

    def times(self, value: int, factor: int) -> int:
        """Each element of `value` times `factor`, which is public."""
        product = 0
        for bit in range(_BITS):
            product ^= value * (factor >> bit & 1)
            value = self._doubled(value)
        return product

    def at(self, number: int, coefficients: Iterable[int]) -> int:
        """The values at `number` of the polynomials with these coefficients, the highest first (Horner's rule)."""
        return reduce(lambda value, term: self.times(value, number) ^ term, coefficients, 0)

    def _doubled(self, value: int) -> int:
        overflowing = value >> _BITS - 1 & self._lowest_bits
        return (value & self._all_but_highest) << 1 ^ overflowing * _POLYNOMIAL
