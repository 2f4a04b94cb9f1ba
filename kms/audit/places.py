"""Reads the index for a search: where in a part of the log entries may be that have a term."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from kms.audit.index import PART_BUNDLES, Index
from kms.audit.index_file import IndexMissing, IndexState, state_in
from kms.audit.postings import bits_of
from kms.audit.tiles import Tiles
from kms.audit.tree import EMPTY_ROOT

_MOST_KEPT = 400_000  # places of a bundle, with about 100 bytes each
_MOST_PARTS_KEPT = 512  # with about 64 KB each

Lists = dict[int, int]
"""By bundle of a part, counted from 0 in it, the places as the bits of an integer."""


class Places:
    """One state of the index, for several searches in a row, which share what was read."""

    def __init__(self, tiles: Tiles, database: sqlite3.Connection | None) -> None:
        self.tiles = tiles
        self.state = IndexState(0, EMPTY_ROOT, 0) if database is None else state_in(database)
        self._database = database
        self._kept: dict[tuple[int, tuple[int, ...]], Lists] = {}
        self._room = _MOST_KEPT
        self._times: dict[int, dict[int, object]] = {}

    def of(self, part: int, terms: tuple[int, ...]) -> Lists:
        """Where in a part there may be entries with one of the terms. Raises sqlite3.DatabaseError."""
        if self._database is None:
            return {}
        found = self._kept.get((part, terms))
        if found is None:
            found = self._kept[part, terms] = self._read(self._database, part, terms)
            self._room -= len(found) + 1
            if self._room < 0:
                self._kept.clear()
                self._room = _MOST_KEPT
        return found

    @staticmethod
    def _read(database: sqlite3.Connection, part: int, terms: tuple[int, ...]) -> Lists:
        found: Lists = {}
        for each in terms:
            rows = database.execute("SELECT bundle, places FROM postings WHERE part = ? AND term = ?", (part, each))
            for bundle, places in rows:
                found[bundle] = found.get(bundle, 0) | bits_of(places)
        return found

    def times(self, part: int) -> dict[int, object]:
        """Of each bundle of a part the smallest and the largest time, unchecked. Raises sqlite3.DatabaseError."""
        found = self._times.get(part)
        if found is None:
            if len(self._times) >= _MOST_PARTS_KEPT:
                self._times.clear()
            rows = self._of_part("SELECT bundle, earliest, latest FROM spans WHERE bundle BETWEEN ? AND ?", part)
            found = self._times[part] = {bundle: (earliest, latest) for bundle, earliest, latest in rows}
        return found

    def requests(self, part: int) -> dict[int, object]:
        """Of each bundle of a part the marks of its requests, unchecked. Raises sqlite3.DatabaseError."""
        return dict(self._of_part("SELECT bundle, requests FROM spans WHERE bundle BETWEEN ? AND ?", part))

    def _of_part(self, statement: str, part: int) -> Iterable[tuple[Any, ...]]:
        if self._database is None:
            return ()
        first = part * PART_BUNDLES
        return self._database.execute(statement, (first, first + PART_BUNDLES - 1))


@contextmanager
def looking(index: Index) -> Iterator[Places]:
    """The index as it is now, or, where there is no file, one that knows nothing. Raises IndexUnusable."""
    with ExitStack() as stack:
        database = None
        with suppress(IndexMissing):
            database = stack.enter_context(index.reading())
        yield Places(index.tiles, database)
