"""Compares the whole index with the tiles: it must have everything that they give, and nothing else."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from secrets import token_bytes

from kms.audit.index import PART_BUNDLES, Index
from kms.audit.index_file import IndexState, state_in
from kms.audit.tiles import ENTRIES, TILE_WIDTH, width_in
from kms.audit.tree import Unverified, root_at

_Row = tuple[int, str, object]
"""The bundle that a row is about, its table, and what stands in it."""


def check(index: Index, size: int) -> str | None:
    """What is wrong with the index, after all of it was compared with the tiles of the tree of `size` entries.

    None where nothing is. Entries that are not indexed yet are no fault. Raises IndexUnusable, and Unverified where
    the tiles cannot be read.
    """
    key = token_bytes(32)
    sums: Counter[int] = Counter()  # by bundle: what it has to have, less what it has

    def value(row: _Row) -> int:
        return int.from_bytes(blake2b(repr(row).encode(), key=key, digest_size=16).digest(), "big")

    with index.reading() as database:
        state = state_in(database)
        if not _is_of_this_log(index, state, size):
            return f"The index is not of this log, or of one that is longer: it has {state.size} entries."
        for row in _wanted(index, state, size):
            sums[row[0]] += value(row)
        for row in _found(database):
            sums[row[0]] -= value(row)
    wrong = min((bundle for bundle, rest in sums.items() if rest), default=None)
    if wrong is None:
        return None
    first = max(wrong, 0) * TILE_WIDTH
    return f"The index does not say what the tiles say of the entries {first} to {first + TILE_WIDTH - 1}."


def _is_of_this_log(index: Index, state: IndexState, size: int) -> bool:
    try:
        return state.size <= size and root_at(state.size, index.tiles.at(size)) == state.root
    except Unverified:
        return False


def _wanted(index: Index, state: IndexState, size: int) -> Iterator[_Row]:
    for bundle in range(state.begin // TILE_WIDTH, -(-state.size // TILE_WIDTH)):
        width = width_in(ENTRIES, bundle, state.size)
        for leaf in index.leaves_of(bundle, size)[:width]:
            yield bundle, "leaves", leaf
        postings, span = index.postings_of(bundle, size, width)
        for posting in postings:
            yield bundle, "postings", posting
        yield bundle, "spans", span


def _found(database: sqlite3.Connection) -> Iterator[_Row]:
    for leaf in database.execute("SELECT part, prefix, place FROM leaves"):
        yield _bundle(leaf[0], _number(leaf[2]) // TILE_WIDTH), "leaves", leaf
    for posting in database.execute("SELECT part, term, bundle, places FROM postings"):
        yield _bundle(posting[0], posting[2]), "postings", posting
    for span in database.execute("SELECT bundle, earliest, latest FROM spans"):
        yield _number(span[0]), "spans", span


def _bundle(part: object, bundle: object) -> int:
    return _number(part) * PART_BUNDLES + _number(bundle)


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
