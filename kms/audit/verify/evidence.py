"""Hashes of one tree by several ways, and which of them the root proves.

Each hash of a tree can be had from the tile that stores it, and again from what stands below it: from the tiles of
leaf hashes, from the entries themselves, from a hint. Where the ways disagree, only what gives the hash above is
right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod

from kms.audit.tiles import TILE_WIDTH
from kms.audit.tree import HASH_BYTES, complete_root, joined, peaks_of

_MOST_TRIALS = 2048

Row = Sequence[bytes | None]
"""Hashes side by side, None where this way does not give one."""


def rows_of(hashes: bytes) -> list[bytes]:
    """Hashes in a row, as a list."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def settle(ways: Sequence[Row], width: int, fold: Callable[[bytes], bytes], expected: bytes) -> bytes | None:
    """The row of `width` hashes over which `fold` gives `expected`, composed of what the ways give, or None.

    Each way is tried by itself, filled up from the others, and then mixtures, as long as they are few.
    """
    options: list[list[bytes]] = []
    for place in range(width):
        given = [way[place] for way in ways if place < len(way)]
        options.append(list(dict.fromkeys(each for each in given if each is not None)))
    if not all(options):
        return None
    for row in _trials(ways, options):
        if fold(row) == expected:
            return row
    return None


def _trials(ways: Sequence[Row], options: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    for way in ways:
        yield b"".join((way[place] if place < len(way) else None) or each[0] for place, each in enumerate(options))
    if prod(map(len, options)) <= _MOST_TRIALS:
        yield from map(b"".join, product(*options))


def raised(roots: Row) -> list[list[bytes | None]]:
    """From the roots of all full tiles of level 0, the hashes at each level of tiles from 1 on."""
    levels = [list(roots)]
    while len(levels[-1]) >= TILE_WIDTH:
        below = levels[-1]
        above: list[bytes | None] = []
        for at in range(0, len(below) - TILE_WIDTH + 1, TILE_WIDTH):
            known = [each for each in below[at : at + TILE_WIDTH] if each is not None]
            above.append(complete_root(b"".join(known)) if len(known) == TILE_WIDTH else None)
        levels.append(above)
    return levels


def root_over(roots: Row, rest: bytes) -> bytes | None:
    """The root over the roots of full tiles of level 0 and the leaf hashes after them; None if one is not known."""
    known = [each for each in roots if each is not None]
    if len(known) < len(roots):
        return None
    return joined([*peaks_of(b"".join(known)), *peaks_of(rest)])
