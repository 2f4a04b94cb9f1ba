"""Finds an entry in the tree by its leaf hash."""

from __future__ import annotations

from kms.audit.tiles import TILE_WIDTH, Tiles
from kms.audit.tree import HASH_BYTES

MOST_SEARCHED_TILES = 4096  # a million entries, the newest ones


def number_of(tiles: Tiles, size: int, leaf: bytes) -> int | None:
    """The number of the entry with this leaf hash in the tree of `size` entries, or None.

    The tiles are searched from the newest on, and no more than `MOST_SEARCHED_TILES` of them. Raises TileMissing or
    TileMalformed.
    """
    newest = (size - 1) // TILE_WIDTH
    for index in range(newest, max(-1, newest - MOST_SEARCHED_TILES), -1):
        place = _place_in(tiles.hashes(0, index, size), leaf)
        if place is not None:
            return index * TILE_WIDTH + place
    return None


def _place_in(hashes: bytes, leaf: bytes) -> int | None:
    at = hashes.rfind(leaf)
    while at > 0 and at % HASH_BYTES:  # the end of one hash and the beginning of the next
        at = hashes.rfind(leaf, 0, at + HASH_BYTES - 1)
    return at // HASH_BYTES if at >= 0 else None
