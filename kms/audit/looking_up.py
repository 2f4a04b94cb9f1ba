"""Finds an entry in the tree by its leaf hash: by the index, and in the tiles where the index is not yet."""

from __future__ import annotations

from contextlib import suppress

from kms.audit.index import Index
from kms.audit.index_file import IndexUnusable
from kms.audit.tiles import TILE_WIDTH, Tiles
from kms.audit.tree import HASH_BYTES

MOST_SEARCHED_TILES = 4096  # a million entries, the newest ones


def number_of(index: Index, size: int, leaf: bytes) -> int | None:
    """The number of the entry with this leaf hash in the tree of `size` entries, or None.

    What is not indexed is searched from the newest tile on, no more than `MOST_SEARCHED_TILES`. Raises TileMissing or
    TileMalformed.
    """
    indexed = 0
    with suppress(IndexUnusable):
        found = index.number_of(leaf, size)
        if found is not None:
            return found
        indexed = min(index.state().size, size)
    return number_in(index.tiles, indexed, size, leaf)


def number_in(tiles: Tiles, begin: int, size: int, leaf: bytes) -> int | None:
    """The number of the newest entry from `begin` on with this leaf hash, or None. Raises as `number_of`."""
    newest, oldest = (size - 1) // TILE_WIDTH, begin // TILE_WIDTH
    for tile in range(newest, max(oldest - 1, newest - MOST_SEARCHED_TILES), -1):
        place = _place_in(tiles.hashes(0, tile, size), leaf)
        if place is not None:
            return tile * TILE_WIDTH + place
    return None


def _place_in(hashes: bytes, leaf: bytes) -> int | None:
    at = hashes.rfind(leaf)
    while at > 0 and at % HASH_BYTES:  # the end of one hash and the beginning of the next
        at = hashes.rfind(leaf, 0, at + HASH_BYTES - 1)
    return at // HASH_BYTES if at >= 0 else None
