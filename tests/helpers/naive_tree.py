"""RFC 6962's tree as its section 2.1 defines it, word for word and slow: what `kms.audit.tree` is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256


def power_below(n: int) -> int:
    """The largest power of two smaller than `n`."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def mth(d: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of a list of entries."""
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = power_below(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: Sequence[bytes]) -> list[bytes]:
    """The audit path of entry `m` (section 2.1.1)."""
    if len(d) == 1:
        return []
    k = power_below(len(d))
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: Sequence[bytes]) -> list[bytes]:
    """The consistency proof from the first `m` entries (section 2.1.2)."""
    return subproof(m, d, True)


def subproof(m: int, d: Sequence[bytes], b: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.2."""
    if m == len(d):
        return [] if b else [mth(d)]
    k = power_below(len(d))
    if m <= k:
        return [*subproof(m, d[:k], b), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def tile(d: Sequence[bytes], level: int, index: int) -> list[bytes]:
    """The hashes of a tile as tlog-tiles defines them, each over `256**level` entries."""
    each = 256**level
    begins = [(index * 256 + i) * each for i in range(256)]
    return [mth(d[begin : begin + each]) for begin in begins if begin + each <= len(d)]
