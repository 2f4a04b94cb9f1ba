"""The Merkle tree of RFC 6962, section 2.1: hashes, proofs, and their checks (the checks as RFC 9162 writes them).

A hash is 32 bytes of SHA-256. Entries are counted from 0, a subtree of level L holds 2**L entries. Proofs are made
from a function that gives the hash of a complete subtree, so that they read only what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
MAX_SIZE = (1 << 63) - 1  # of a tree, as other implementations count in signed 64 bits
MAX_PROOF_HASHES = 63
EMPTY_ROOT = sha256(b"").digest()

Subtree = Callable[[int, int], bytes]
"""`subtree(level, index)`: the hash over the entries from `index << level` up to `(index + 1) << level`."""


class Unverified(Exception):
    """Something of a log cannot be read or does not check out. The message is a sentence for people."""


_of_leaf = sha256(b"\x00")  # copied for each: OpenSSL takes longer to make one than to hash an entry


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry as a leaf of the tree."""
    hashing = _of_leaf.copy()
    hashing.update(entry)
    return hashing.digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """The hashes of many entries."""
    return list(map(leaf_hash, entries))


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees side by side."""
    return sha256(b"\x01" + left + right).digest()


def complete_root(hashes: bytes) -> bytes:
    """The root over hashes in a row, whose number must be a power of two."""
    while len(hashes) > HASH_BYTES:
        hashes = b"".join([sha256(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, len(hashes), 64)])
    return hashes


def joined(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of falling size, as the bits of a tree's size make them."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def peaks_of(hashes: bytes) -> list[bytes]:
    """The roots of the complete subtrees that hashes in a row divide into, the largest first."""
    peaks, at = [], 0
    while left := (len(hashes) - at) // HASH_BYTES:
        end = at + HASH_BYTES * (1 << (left.bit_length() - 1))
        peaks.append(complete_root(hashes[at:end]))
        at = end
    return peaks


def root_of(hashes: bytes) -> bytes:
    """The root of the tree with these leaf hashes, which stand in a row."""
    return joined(peaks_of(hashes))


def span_hash(begin: int, end: int, subtree: Subtree) -> bytes:
    """The hash over the entries from `begin` up to `end`.

    `begin` must be a multiple of the largest power of two that is not above `end - begin`.
    """
    peaks = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        peaks.append(subtree(level, begin >> level))
        begin += 1 << level
    return joined(peaks)


def root_at(size: int, subtree: Subtree) -> bytes:
    """The root of the tree of the first `size` entries."""
    return span_hash(0, size, subtree)


def _split(length: int) -> int:
    """The largest power of two that is smaller than `length`."""
    return 1 << ((length - 1).bit_length() - 1)


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The audit path of entry `index` in the tree of `size` entries (RFC 6962, section 2.1.1): leaf to root.

    Raises ValueError where there is no such entry.
    """
    if not 0 <= index < size:
        raise ValueError(f"entry {index} is not in a tree of {size} entries")
    path, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(span_hash(middle, end, subtree))
            end = middle
        else:
            path.append(span_hash(begin, middle, subtree))
            begin = middle
    return path[::-1]


def consistency_proof(old_size: int, size: int, subtree: Subtree) -> list[bytes]:
    """That the tree of `size` entries continues that of `old_size` (RFC 6962, section 2.1.2).

    Nothing has to be proven for an empty old tree, nor for one of the same size. Raises ValueError where the old tree
    is the larger one.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {size} entries does not continue one of {old_size}")
    if old_size == 0:
        return []
    path, begin, end, is_whole = [], 0, size, True
    while old_size != end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(span_hash(middle, end, subtree))
            end = middle
        else:
            path.append(span_hash(begin, middle, subtree))
            begin, is_whole = middle, False
    if not is_whole:
        path.append(span_hash(begin, end, subtree))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows that `leaf` is the hash of entry `index` of the tree (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size <= MAX_SIZE or not _are_hashes(leaf, root, *path):
        return False
    node, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree continues the old one (RFC 9162, section 2.1.4.2).

    An empty old tree needs its own root, that of no entry, and an empty path.
    """
    if not 0 <= old_size <= size <= MAX_SIZE or not _are_hashes(old_root, root, *path):
        return False
    if old_size == size:
        return not path and old_root == root and (size > 0 or root == EMPTY_ROOT)
    if old_size == 0:
        return not path and old_root == EMPTY_ROOT
    hashes = list(path)
    if old_size & (old_size - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    found_old = found = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            found_old, found = node_hash(sibling, found_old), node_hash(sibling, found)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found_old == old_root and found == root


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
