"""Compares the whole index with the tiles: it must have everything that they give, and nothing else."""

from __future__ import annotations

import sqlite3

from kms.audit.index import PART_BUNDLES, Index
from kms.audit.index_file import IndexState, state_in
from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileMissing, width_in
from kms.audit.tree import Unverified, root_at

_IN_PART = (
    "SELECT ?1 * 256 + place / 256, 'leaf', prefix, place FROM leaves"
    " WHERE part = ?1 AND NOT place < ?2 * 256 AND (place < ?3 * 256 OR ?3 IS NULL)",
    "SELECT ?1 * 256 + bundle, 'places', term, places FROM postings"
    " WHERE part = ?1 AND NOT bundle < ?2 AND (bundle < ?3 OR ?3 IS NULL)",
    "SELECT bundle, 'span', earliest, latest, requests FROM spans"
    " WHERE NOT bundle < ?1 * 256 + max(?2, 0) AND bundle < ?1 * 256 + coalesce(?3, 256)",
)
_AT_ONCE = 16  # bundles: their rows are held in memory, and those of a whole part read for each time
_LEAST = -(1 << 40)
_BEYOND = (
    "SELECT EXISTS (SELECT 1 FROM leaves WHERE part < ? OR part >= ?)",
    "SELECT EXISTS (SELECT 1 FROM postings WHERE part < ? OR part >= ?)",
    "SELECT EXISTS (SELECT 1 FROM spans WHERE bundle < ? * 256 OR bundle >= ? * 256)",
)

_Row = tuple[object, ...]
"""The number of a bundle, a word for the table, and what stands there."""


def check(index: Index, size: int) -> str | None:
    """What is wrong with the index, after all of it was compared with the tiles of the tree of `size` entries.

    None where nothing is. Entries that are not indexed yet are no fault. Raises IndexUnusable, and Unverified where
    the tiles cannot be read.
    """
    with index.reading() as database:
        wrong, part = _check_part(index, database, size, 0)
        while wrong is None and part is not None:
            wrong, part = _check_part(index, database, size, part)
    return wrong


def check_part(index: Index, size: int, part: int) -> tuple[str | None, int | None]:
    """The same for part `part` of the index, or the next that it has: what is wrong, and which part comes next.

    No part comes next after the last one.
    """
    with index.reading() as database:
        return _check_part(index, database, size, part)


def _check_part(index: Index, database: sqlite3.Connection, size: int, part: int) -> tuple[str | None, int | None]:
    state = state_in(database)
    size = max(size, state.size)  # it may have gone on since
    if not _is_of_this_log(index, state, size):
        return f"The index has {state.size} entries that are not those of this log.", None
    if _is_kept(index, state.begin, size):
        return f"The index has forgotten entries before {state.begin} that the log still has.", None
    first, end = state.begin // TILE_WIDTH, -(-state.size // TILE_WIDTH)
    parts = range(first // PART_BUNDLES, -(-end // PART_BUNDLES))
    part = max(part, parts.start)
    if part < parts.stop:
        bundles = range(max(part * PART_BUNDLES, first), min((part + 1) * PART_BUNDLES, end))
        wrong = _first_wrong(index, database, bundles, state, size)
        return (None, part + 1) if wrong is None else (_sentence(wrong), None)
    for statement in _BEYOND:
        if database.execute(statement, (parts.start, parts.stop)).fetchone() != (0,):
            return "The index says something of entries that the log does not have.", None
    return None, None


def _sentence(bundle: int) -> str:
    first = bundle * TILE_WIDTH
    return f"The index does not say what the tiles say of the entries {first} to {first + TILE_WIDTH - 1}."


def _is_of_this_log(index: Index, state: IndexState, size: int) -> bool:
    try:
        return root_at(state.size, index.tiles.at(size)) == state.root
    except Unverified:
        return False


def _is_kept(index: Index, begin: int, size: int) -> bool:
    """Whether the log has the bundle before entry `begin`."""
    if begin < TILE_WIDTH or begin > size:
        return begin > size
    try:
        index.tiles.content(ENTRIES, begin // TILE_WIDTH - 1, size)
    except TileMissing:
        return False
    return True


def _first_wrong(
    index: Index, database: sqlite3.Connection, bundles: range, state: IndexState, size: int
) -> int | None:
    """The first of these bundles, which are of one part, of which the index does not say what the tiles say."""
    part, place = divmod(bundles.start, PART_BUNDLES)
    for low in range(place - place % _AT_ONCE, PART_BUNDLES, _AT_ONCE):
        first = part * PART_BUNDLES + low
        some = range(max(first, bundles.start), min(first + _AT_ONCE, bundles.stop))
        wanted = _wanted(index, some, state, size)
        wrong = set()
        is_last = some.stop == bundles.stop
        edges = _LEAST if some.start == bundles.start else low, None if is_last else low + _AT_ONCE
        for statement in _IN_PART:
            for row in database.execute(statement, (part, *edges)):
                if row in wanted:
                    wanted.remove(row)
                else:
                    wrong.add(row[0] if isinstance(row[0], int) else bundles.start)
        wrong.update(row[0] for row in wanted if isinstance(row[0], int))
        if wrong:
            return min(wrong)
        if is_last:
            break
    return None


def _wanted(index: Index, bundles: range, state: IndexState, size: int) -> set[_Row]:
    rows: set[_Row] = set()
    for bundle in bundles:
        width = width_in(ENTRIES, bundle, state.size)
        rows.update((bundle, "leaf", prefix, place) for _, prefix, place in index.leaves_of(bundle, size)[:width])
        postings, span = index.postings_of(bundle, size, width)
        rows.update((bundle, "places", term, places) for _, term, _, places in postings)
        rows.add((bundle, "span", *span[1:]))
    return rows
