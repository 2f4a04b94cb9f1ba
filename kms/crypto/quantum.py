"""How strong a key type is, against computers of today and against quantum computers, and who says so.

NIST's categories (call for proposals for post-quantum standards, 2016, section 4.A.5; FIPS 203 and 204 use them): in
category 1 is what is at least as hard to break as a key search on AES-128, in 2 as a collision of SHA-256, in 3 as a
key search on AES-192, in 4 as a collision of SHA-384, in 5 as a key search on AES-256. What Shor's algorithm breaks
is in none of them: 0 here, as in CycloneDX.
"""

from __future__ import annotations

from dataclasses import dataclass

_CATEGORIES = "NIST call for proposals (2016), section 4.A.5"


@dataclass(frozen=True, slots=True)
class Strength:
    """`classical_bits` is the strength today, `category` NIST's category (0: none); `source` says who puts it so."""

    classical_bits: int
    category: int
    source: str

    @property
    def is_post_quantum_safe(self) -> bool:
        """Whether it is in one of NIST's categories."""
        return self.category > 0


def by_key_search(bits: int, note: str = "") -> Strength:
    """The strength of what is broken by searching a key of so many `bits`, and not faster in another way known."""
    category = next((category for least, category in ((256, 5), (192, 3), (128, 1)) if bits >= least), 0)
    return Strength(min(bits, 256), category, f"{_CATEGORIES}{f'; {note}' if note else ''}")


def broken_by_shor(classical_bits: int, source: str) -> Strength:
    """The strength of what rests on factoring or discrete logarithms; `source` says how strong it is today."""
    return Strength(classical_bits, 0, f"{source}; none of NIST's categories: Shor's algorithm breaks it")


def standardised(classical_bits: int, category: int, source: str) -> Strength:
    """The strength of a post-quantum standard, which names the category itself."""
    return Strength(classical_bits, category, source)
