"""Retention: entry bundles that are old enough are dropped, and their hashes stay, so that every proof stays valid.

Before bundles are dropped the log gets an entry that says which: so what somebody else has dropped can be told apart.
Bundles are dropped from the beginning of the log on, whole, and only where all of their entries are old enough.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from kms.audit.entry import entry_of, time_of, timestamp
from kms.audit.tiles import ENTRIES, TILE_WIDTH, Tiles, bundle_path
from kms.audit.tree import Unverified

DROPPED = "audit_entries_dropped"
"""The operation of the entry that says that entries are dropped; its target is `FIRST-LAST`, their numbers."""
OF_FOLDING = "fold"
"""The `request_id` of entries of the log about itself."""
MOST_AT_ONCE = 128  # bundles: more than the entries that are folded meanwhile
_MOST_MISSING = 64
_TARGET = re.compile(r"(0|[1-9][0-9]{0,18})-([1-9][0-9]{0,18})")


class Retention:
    """Finds and drops the bundles in `directory` whose entries are older than `keep`; None keeps them for ever."""

    def __init__(self, directory: Path, keep: timedelta | None) -> None:
        self._directory, self._keep = directory, keep
        self._tiles = Tiles.in_directory(directory)
        self._first: int | None = None  # the first bundle that was there when it was looked for
        self._newest_in_first = ""  # the time of its newest entry, once it was read

    def due(self, size: int, now: datetime) -> range:
        """The bundles of the tree of `size` entries that are to be dropped now, a few at a time. Raises OSError."""
        if self._keep is None:
            return range(0)
        older_than = timestamp(now - self._keep)
        if self._newest_in_first >= older_than:
            return range(0)
        first = self._first_there(size // TILE_WIDTH)
        end = first
        while end < min(first + MOST_AT_ONCE, size // TILE_WIDTH):
            newest = self._newest(end, size)
            if newest is None or newest >= older_than:
                break
            end += 1
        if end == first < size // TILE_WIDTH:
            self._newest_in_first = self._newest(first, size) or ""
        return range(first, end)

    def drop(self, bundles: range) -> None:
        """Remove them, the oldest first. Raises OSError."""
        for index in bundles:
            path = self._directory / bundle_path(index)
            path.unlink(missing_ok=True)
            if index % 1000 == 999:
                with suppress(OSError):  # it is not empty, where somebody put something there
                    path.parent.rmdir()
        self._first, self._newest_in_first = bundles.stop, ""

    def _first_there(self, bundles: int) -> int:
        """The first bundle that is not dropped, as the files say: so a crash between two of them does no harm."""
        if self._first is not None and self._is_there(self._first):
            return self._first
        low, high = 0, bundles
        while low < high:
            middle = (low + high) // 2
            if self._is_there(middle):
                high = middle
            else:
                low = middle + 1
        self._first = low
        return low

    def _is_there(self, index: int) -> bool:
        return (self._directory / bundle_path(index)).exists()

    def _newest(self, index: int, size: int) -> str | None:
        """The time of the newest entry in a bundle; None where it is missing, or malformed and kept to be seen."""
        try:
            entries = self._tiles.bundle(index, size)
        except Unverified:
            return None
        return max(map(time_of, entries), default="")


def target_of(bundles: range) -> str:
    """The target of the entry about these bundles: the numbers of their first and last entry."""
    return f"{bundles.start * TILE_WIDTH}-{bundles.stop * TILE_WIDTH - 1}"


def dropped_up_to(tiles: Tiles, size: int) -> int:
    """Up to which entry, which is not among them, retention has dropped entries, as the log itself says.

    What it says is proven only once the log is verified. It is read from the end of the log back, and only where its
    first bundle is missing. Raises OSError.
    """
    if size < TILE_WIDTH or _bundle(tiles, 0, size) is not None:
        return 0
    missing = 0
    for index in range((size - 1) // TILE_WIDTH, 0, -1):
        entries = _bundle(tiles, index, size)
        missing = missing + 1 if entries is None else 0
        if missing == _MOST_MISSING:  # not a hole that somebody made: here retention, or somebody, has begun
            break
        for place, line in reversed([*enumerate(entries or ())]):
            end = _end_said(line)
            if end is not None and end <= index * TILE_WIDTH + place:
                return end
    return 0


def _bundle(tiles: Tiles, index: int, size: int) -> list[bytes] | None:
    try:
        tiles.content(ENTRIES, index, size)
    except Unverified:
        return None
    try:
        return tiles.bundle(index, size)
    except Unverified:
        return []


def _end_said(line: bytes) -> int | None:
    """The number after the last entry that is dropped, where this is the service's own entry about that."""
    if DROPPED.encode() not in line:
        return None
    entry = entry_of(line)
    if entry is None:
        return None
    found = _TARGET.fullmatch(entry.target or "")
    if (entry.operation, entry.request_id, entry.client_id) != (DROPPED, OF_FOLDING, None) or found is None:
        return None
    return int(found[2]) + 1
