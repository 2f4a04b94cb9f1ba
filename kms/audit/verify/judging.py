"""Decides what of a log is right: from the root of its checkpoint down to the leaf hashes of every bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kms.audit.checkpoint import Checkpoint
from kms.audit.tiles import TILE_WIDTH, Tiles, tile_path, width_in
from kms.audit.tree import HASH_BYTES, complete_root, joined, leaf_hashes, peaks_of
from kms.audit.verify.evidence import Row, raised, root_over, rows_of, settle
from kms.audit.verify.findings import Finding, Glimpse, Kind, missing, numbers
from kms.audit.verify.reading import Reading, bundle_entries, stored_hashes
from kms.audit.verify.wrong_entries import WrongEntries

Hint = Callable[[int, int], Sequence[bytes | None]]
"""`hint(begin, end)`: what the leaf hashes of these entries are said to be. Used only where a root proves them."""

_MOST = 1000  # findings that are told


class Judgement:
    """What follows from the `reading` of a log's files for the tree of its checkpoint, with a hint or without."""

    def __init__(
        self, tiles: Tiles, checkpoint: Checkpoint, reading: Reading, bundles_from: int, hint: Hint | None = None
    ) -> None:
        self._tiles = tiles
        self._checkpoint = checkpoint
        self._size = checkpoint.size
        self._reading = reading
        self._bundles_from = bundles_from
        self._hint = hint
        self._found: list[Finding] = []
        self._wrong = WrongEntries(tiles, self._size)
        self._levels = [raised(reading.stored), raised(reading.computed)]
        if hint is not None:
            self._levels.append(raised([self._hinted_root(index) for index in range(len(reading.stored))]))
        self._end = -(-self._size // TILE_WIDTH)  # the tiles of level 0 before the end, or where the log is cut
        self._roots = list(reading.stored)  # of full tiles of level 0, once proven the right ones
        self._last_row = b""  # the leaf hashes of the partial tile

    def findings(self, before: Sequence[Checkpoint]) -> list[Finding]:
        """Everything that is wrong, also with regard to the checkpoints of before."""
        cut = self._cut()
        is_proven = self._judge_edge()
        found = [*self._found, *self._wrong.findings(), *([cut] if cut is not None else [])]
        if is_proven:
            return found + [each for each in map(self._fork, before) if each is not None]
        return found if cut is not None else [*found, self._unproven(before)]

    # What the ways to the hashes of a tile are

    def _hinted_root(self, index: int) -> bytes | None:
        row = self._hinted(index, TILE_WIDTH)
        return complete_root(b"".join(each for each in row if each)) if all(row) else None

    def _hinted(self, index: int, width: int) -> Row:
        if self._hint is None:
            return [None] * width
        begin = index * TILE_WIDTH
        row = [each if each and len(each) == HASH_BYTES else None for each in self._hint(begin, begin + width)]
        return (row + [None] * width)[:width]

    def _ways(self, level: int, index: int, width: int) -> list[Row]:
        stored = stored_hashes(self._tiles, level, index, self._size)
        ways: list[Row] = [rows_of(stored) if stored is not None else [None] * width]
        if level == 0:
            entries = bundle_entries(self._tiles, index, self._size) or []
            return [*ways, (leaf_hashes(entries) + [None] * width)[:width], self._hinted(index, width)]
        begin = index * TILE_WIDTH
        ways += [levels[level - 1][begin : begin + width] for levels in self._levels]
        if level > 1:
            below = [stored_hashes(self._tiles, level - 1, each, self._size) for each in range(begin, begin + width)]
            ways.append([complete_root(each) if each is not None else None for each in below])
        return ways

    # From the root down

    def _judge_edge(self) -> bool:
        """Judge the partial tiles of each level, which make the root together, and all below them."""
        edge: list[tuple[int, int, int]] = []
        level = 0
        while hashes := self._size >> (8 * level):
            if width := hashes % TILE_WIDTH:
                edge.insert(0, (level, hashes // TILE_WIDTH, width))
            level += 1
        every = [self._ways(*each) for each in edge]
        most = max(map(len, every), default=0)
        columns: list[list[bytes | None]] = [[] for _ in range(most)]
        for (_, _, width), ways in zip(edge, every, strict=True):
            for number, column in enumerate(columns):
                column += ways[number] if number < len(ways) else [None] * width
        widths = [width for _, _, width in edge]
        row = settle(columns, sum(widths), lambda hashes: _edge_root(hashes, widths), self._checkpoint.root)
        at = 0
        for (level, index, width), ways in zip(edge, every, strict=True):
            settled = rows_of(row[at : at + width * HASH_BYTES]) if row is not None else _assumed(ways, level, width)
            at += width * HASH_BYTES
            self._judge_row(level, index, settled)
        return row is not None

    def _judge_row(self, level: int, index: int, row: Row) -> None:
        """Judge a tile, whose hashes are `row`, and all below it. None is a hash that nothing gives."""
        known = b"".join(each for each in row if each is not None)
        if len(known) == len(row) * HASH_BYTES:
            self._judge_tile(level, index, known)
            if level == 0:
                self._last_row = known
                self._judge_bundle(index, known)
        for place, expected in enumerate(row if level else ()):
            if expected is not None:
                self._judge_full(level - 1, index * TILE_WIDTH + place, expected)

    def _judge_full(self, level: int, index: int, expected: bytes) -> None:
        """Judge a full tile over which the hash is `expected`."""
        if level == 0:
            stored, self._roots[index] = self._reading.stored[index], expected
            if stored == expected and index not in self._reading.differing:
                return
        ways = self._ways(level, index, TILE_WIDTH)
        row = settle(ways, TILE_WIDTH, complete_root, expected)
        if row is not None:
            self._judge_row(level, index, rows_of(row))
            return
        span = TILE_WIDTH << (8 * level)
        first, last = index * span, (index + 1) * span - 1
        if level == 0 and index in self._reading.missing:
            if index < self._end:
                self._found.append(missing(first, last, self._size))
            return
        self._found.append(Finding(Kind.CHANGED, _among(first, last), first, last, is_exact=False))
        if level:
            self._judge_row(level, index, _assumed(ways, level, TILE_WIDTH))

    def _judge_tile(self, level: int, index: int, row: bytes) -> None:
        stored = stored_hashes(self._tiles, level, index, self._size)
        if stored == row or len(self._found) >= _MOST:
            return
        path = tile_path(level, index, len(row) // HASH_BYTES)
        if stored is None:
            sentence = f"{path} is missing or malformed."
        else:
            place = next(at for at in range(0, len(row), HASH_BYTES) if stored[at : at + 32] != row[at : at + 32])
            first = (index * TILE_WIDTH + place // HASH_BYTES) << (8 * level)
            last = first + (1 << (8 * level)) - 1
            sentence = f"{path} is wrong, first in its hash of {numbers(first, last)}."
        self._found.append(Finding(Kind.TILE, sentence, path=path))

    def _judge_bundle(self, index: int, row: bytes) -> None:
        entries = bundle_entries(self._tiles, index, self._size)
        if entries is None and (index + 1) * TILE_WIDTH <= self._bundles_from:
            return
        # After one that is wrong its entries may have moved up, so that it is looked at with that.
        if entries is None and index < self._size // TILE_WIDTH and not self._wrong.is_last(index - 1):
            self._found.append(missing(index * TILE_WIDTH, (index + 1) * TILE_WIDTH - 1, self._size))
        elif entries is None or b"".join(leaf_hashes(entries)) != row:
            self._wrong.add(index, row)

    # What is left where the root proves nothing, and what older checkpoints say

    def _cut(self) -> Finding | None:
        """The end of the log, if neither entries nor hashes are there."""
        while self._end - 1 in self._reading.missing:
            self._end -= 1
        if self._end * TILE_WIDTH >= self._size:
            return None
        left = bundle_entries(self._tiles, self._end, self._size, or_narrower=True) or []
        return missing(self._end * TILE_WIDTH + len(left), self._size - 1, self._size)

    def _unproven(self, before: Sequence[Checkpoint]) -> Finding:
        """Something was changed with all hashes above it; older checkpoints may say where it was not."""
        first, last = 0, self._size - 1
        for checkpoint in sorted(before, key=lambda each: each.size):
            if self._root_at(checkpoint.size) == checkpoint.root:
                first = max(first, checkpoint.size)
            elif checkpoint.size:
                last = min(last, checkpoint.size - 1)
        return Finding(Kind.CHANGED, _among(first, last), first, last, is_exact=False)

    def _row(self, index: int) -> bytes:
        """The leaf hashes of a tile, as far as they are proven."""
        width = width_in(0, index, self._size)
        ways = self._ways(0, index, width)
        expected = self._roots[index] if index < len(self._roots) else None
        row = settle(ways, width, complete_root, expected) if expected is not None else self._last_row
        return row or b"".join(each or b"" for each in ways[0])

    def _root_at(self, size: int) -> bytes | None:
        full, rest = divmod(size, TILE_WIDTH)
        return root_over(self._roots[:full], self._row(full)[: rest * HASH_BYTES] if rest else b"")

    def _fork(self, older: Checkpoint) -> Finding | None:
        """What the log has in place of what an older checkpoint says, if it does not continue that."""
        if self._root_at(older.size) == older.root:
            return None
        told = f"The log does not continue the older checkpoint of {older.size} entries: two histories are signed."
        forked = Finding(Kind.FORK, told, 0, max(older.size - 1, 0), is_exact=False)
        number = self._first_other(older) if self._hint is not None else None
        if number is None:
            return forked
        entries = bundle_entries(self._tiles, number // TILE_WIDTH, self._size) or []
        place = number % TILE_WIDTH
        glimpse = Glimpse.of(entries[place]) if place < len(entries) else None
        sentence = f"{told} Entry {number} is the first that was another."
        return replace(forked, sentence=sentence, first=number, last=number, is_exact=True, glimpse=glimpse)

    def _first_other(self, older: Checkpoint) -> int | None:
        """The first entry that differs from what the hint says, if the older checkpoint proves the hint."""
        full, rest = divmod(older.size, TILE_WIDTH)
        hinted = [self._hinted_root(index) for index in range(full)]
        row = self._hinted(full, rest) if rest else []
        if not all(row) or root_over(hinted, b"".join(each or b"" for each in row)) != older.root:
            return None
        for index in range(full + bool(rest)):
            if index < full and hinted[index] == self._roots[index]:
                continue
            width = TILE_WIDTH if index < full else rest
            pairs = zip(self._hinted(index, width), rows_of(self._row(index)), strict=False)
            for place, (was, now) in enumerate(pairs):
                if was != now:
                    return index * TILE_WIDTH + place
        return None


def _edge_root(hashes: bytes, widths: Sequence[int]) -> bytes:
    peaks, at = [], 0
    for width in widths:
        peaks += peaks_of(hashes[at : at + width * HASH_BYTES])
        at += width * HASH_BYTES
    return joined(peaks)


def _assumed(ways: Sequence[Row], level: int, width: int) -> Row:
    """What the lower tiles say, where nothing is proven: so that what contradicts them is found nevertheless."""
    order = ways if level == 0 else [*ways[1:], ways[0]]
    return [next((way[place] for way in order if way[place] is not None), None) for place in range(width)]


def _among(first: int, last: int) -> str:
    return (
        f"Among {numbers(first, last)} at least one was changed, dropped or inserted, together with the hashes of it "
        "that are stored. Nothing in this log tells which: an older copy of it, or receipts and exports of these "
        "entries, do."
    )
