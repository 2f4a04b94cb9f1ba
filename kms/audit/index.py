"""The index beside the tiles: where the entries of a client, a key … are, and which number a leaf hash has.

It follows from the tiles alone, and nothing rests on it: whatever it says is compared with the tiles, and where it is
missing, damaged, of another format or of another log it is made anew. One damage cannot be seen by whoever searches:
that rows are gone, or say less than they did. `index_check` finds it.

Everything is kept in parts of 65,536 entries, so that what is written next to each other is read together, adding to
a long log costs what adding to a short one does, and what retention drops lies in one place.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from struct import iter_unpack

from kms.audit.index_file import IndexFile, IndexState, damaged, state_in
from kms.audit.postings import postings_of
from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileMissing, Tiles
from kms.audit.tree import HASH_BYTES, Unverified, root_at

PART_BUNDLES = 256
PART_ENTRIES = PART_BUNDLES * TILE_WIDTH
_MOST_AT_ONCE = 20_480

_Leaf = tuple[int, int, int]
_Posting = tuple[int, int, int, bytes]
_Span = tuple[int, str, str, bytes]


class Index:
    """The index of the log in `directory`, in `file`, by default `index.db` in that directory.

    `catch_up` and `forget_before` keep the file open until `close`; for that an object belongs to one process. Where
    several hosts share the directory, each needs a file of its own.
    """

    def __init__(self, directory: Path, file: Path | None = None) -> None:
        self.tiles = Tiles.in_directory(directory)
        self.file = IndexFile(file or directory / "index.db")

    def catch_up(self, size: int, most: int = _MOST_AT_ONCE) -> int:
        """Index about `most` further entries of the tree of `size` entries; returns how many are then still missing.

        Call it until that is 0. Each call is one transaction. Raises Unverified where the log cannot be read,
        OSError, IndexUnusable.
        """
        return self.file.changed(lambda database: self._caught_up(database, size, most))

    def _caught_up(self, database: sqlite3.Connection, size: int, most: int) -> int:
        state = self._fitting(database, size)
        if state.size >= size:
            return 0
        if state.size <= state.begin:
            state = state._replace(begin=max(state.begin, self._first_kept(state.begin, size)))
        first = max(state.size, state.begin) // TILE_WIDTH
        end = min(size, (first + max(most // TILE_WIDTH, 1)) * TILE_WIDTH)
        self._add(database, range(first, -(-end // TILE_WIDTH)), size)
        now = end, root_at(end, self.tiles.at(size)), state.begin
        database.execute("UPDATE state SET size = ?, root = ?, begin = ?", now)
        return size - end

    def _fitting(self, database: sqlite3.Connection, size: int) -> IndexState:
        """What the index has of this log. Raises sqlite3.DatabaseError where it is of another."""
        state = state_in(database)
        with suppress(Unverified):
            if root_at(state.size, self.tiles.at(max(size, state.size))) == state.root:
                return state
        raise damaged(f"it has {state.size} entries of another log")

    def forget_dropped(self, size: int) -> None:
        """Drop what is known of the bundles that retention has dropped from the beginning of the tree of that size.

        Raises IndexUnusable, OSError.
        """
        begin = self.state().begin
        if begin < size and not self._is_there(begin // TILE_WIDTH, size):
            self.forget_before(self._first_kept(begin, size))

    def _is_there(self, bundle: int, size: int) -> bool:
        try:
            self.tiles.content(ENTRIES, bundle, size)
        except TileMissing:
            return False
        return True

    def _first_kept(self, begin: int, size: int) -> int:
        """The number of the first entry whose bundle retention has kept, which drops those before it."""
        low, high = begin // TILE_WIDTH, (size - 1) // TILE_WIDTH
        middle = low
        while low < high:
            if self._is_there(middle, size):
                high = middle
            else:
                low = middle + 1
            middle = (low + high) // 2
        return low * TILE_WIDTH

    def _add(self, database: sqlite3.Connection, bundles: range, size: int) -> None:
        """Index these bundles, of which the first may have been added in part before."""
        leaves: list[_Leaf] = []
        postings: list[_Posting] = []
        spans: list[_Span] = []
        for index in bundles:
            leaves += self.leaves_of(index, size)
            of_bundle, span = self.postings_of(index, size)
            postings += of_bundle
            spans.append(span)
        leaves.sort()  # in the order in which they lie in the file
        postings.sort()
        database.executemany("INSERT OR IGNORE INTO leaves VALUES (?, ?, ?)", leaves)
        database.executemany("INSERT OR REPLACE INTO postings VALUES (?, ?, ?, ?)", postings)
        database.executemany("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?)", spans)

    def leaves_of(self, index: int, size: int) -> list[_Leaf]:
        """The rows that the tree of `size` entries gives for the leaf hashes of bundle `index`. Raises Unverified."""
        part, bundle = divmod(index, PART_BUNDLES)
        hashes = iter_unpack(">q24x", self.tiles.hashes(0, index, size))
        return [(part, prefix, place) for place, (prefix,) in enumerate(hashes, bundle * TILE_WIDTH)]

    def postings_of(self, index: int, size: int, width: int = TILE_WIDTH) -> tuple[list[_Posting], _Span]:
        """The rows that the first `width` entries of a bundle give. Raises Unverified."""
        part, bundle = divmod(index, PART_BUNDLES)
        found = postings_of(self.tiles.bundle(index, size)[:width])
        postings = [(part, term, bundle, places) for term, places in found.places]
        return postings, (index, found.earliest, found.latest, found.requests)

    def discard(self) -> None:
        """Remove the file, so that the next `catch_up` makes it anew. Raises OSError."""
        self.file.discard()

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """One state of the file, for the search. Raises IndexUnusable."""
        return self.file.reading()

    def state(self) -> IndexState:
        """How far the index has come. Raises IndexUnusable."""
        with self.reading() as database:
            return state_in(database)

    def number_of(self, leaf: bytes, size: int) -> int | None:
        """The number of the entry with this leaf hash in the tree of `size` entries, or None where none is indexed.

        It is compared with the tile of that tree. Raises IndexUnusable, and Unverified where the tile cannot be read.
        """
        if len(leaf) != HASH_BYTES:
            return None
        (prefix,) = next(iter_unpack(">q24x", leaf))
        with self.reading() as database:
            end = min(state_in(database).size, size)
            for part in range((end - 1) // PART_ENTRIES, -1, -1):
                of_part = "SELECT place FROM leaves WHERE part = ? AND prefix = ?"
                for (place,) in database.execute(of_part, (part, prefix)):
                    if not isinstance(place, int) or not 0 <= place < PART_ENTRIES:
                        raise damaged("a leaf has no place")
                    number = part * PART_ENTRIES + place
                    if number < end and self._leaf(number, size) == leaf:
                        return number
        return None

    def _leaf(self, number: int, size: int) -> bytes:
        index, place = divmod(number, TILE_WIDTH)
        return self.tiles.hashes(0, index, size)[place * HASH_BYTES : (place + 1) * HASH_BYTES]

    def forget_before(self, number: int) -> None:
        """Drop what is known of the bundles that lie wholly before entry `number`, as retention drops the bundles.

        Raises IndexUnusable, OSError.
        """
        self.file.changed(lambda database: self._forget(database, number // TILE_WIDTH))

    @staticmethod
    def _forget(database: sqlite3.Connection, bundle: int) -> None:
        if bundle * TILE_WIDTH <= state_in(database).begin:
            return
        part, rest = divmod(bundle, PART_BUNDLES)
        for statement, values in (
            ("DELETE FROM leaves WHERE part < ?", (part,)),
            ("DELETE FROM leaves WHERE part = ? AND place < ?", (part, rest * TILE_WIDTH)),
            ("DELETE FROM postings WHERE part < ?", (part,)),
            ("DELETE FROM postings WHERE part = ? AND bundle < ?", (part, rest)),
            ("DELETE FROM spans WHERE bundle < ?", (bundle,)),
            ("UPDATE state SET begin = ?", (bundle * TILE_WIDTH,)),
        ):
            database.execute(statement, values)
