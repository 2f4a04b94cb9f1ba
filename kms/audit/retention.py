"""Retention: entry bundles that are old enough are dropped, and their hashes stay, so that every proof stays valid.

Before bundles are dropped the log gets an entry that says which: so what somebody else has dropped can be told apart.
Bundles are dropped from the beginning of the log on, whole, and only where all of their entries are old enough.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from kms.audit.entry import OF_FOLDING, entry_of, time_of, timestamp
from kms.audit.tiles import ENTRIES, TILE_WIDTH, Tiles, bundle_path
from kms.audit.tree import Unverified

DROPPED = "audit_entries_dropped"
"""The operation of the entry that says that entries are dropped; its target is `FIRST-LAST`, their numbers."""
MOST_AT_ONCE = 128  # bundles: more than the entries that are folded meanwhile
_MOST_MISSING = 64
_TARGET = re.compile(r"(0|[1-9][0-9]{0,18})-([1-9][0-9]{0,18})")


class Retention:
    """Finds and drops the bundles in `directory` whose entries are older than `keep`; None keeps them for ever.

    It goes on after what the log says is dropped, and believes no file: what was altered, or taken away by somebody
    else, is neither dropped nor said to be, so that it can be seen.
    """

    def __init__(self, directory: Path, keep: timedelta | None) -> None:
        self._directory, self._keep = directory, keep
        self._tiles = Tiles.in_directory(directory)
        self._first = 0  # the first bundle that is not dropped, as the log says in the bundles before `_read_up_to`
        self._read_up_to = 0
        self._newest_in_first = ""  # the time of its newest entry, once it was read
        self._told_of = -1

    def due(self, size: int, root: bytes, now: datetime) -> range:
        """The bundles of the tree of `size` entries that are to be dropped now, a few at a time. Raises OSError."""
        if self._keep is None:
            return range(0)
        older_than = timestamp(now - self._keep)
        if self._newest_in_first >= older_than:
            return range(0)
        full = size // TILE_WIDTH
        if full < self._read_up_to:  # another log was begun
            self._first = self._read_up_to = 0
        if self._first >= full:
            return range(0)
        with suppress(Unverified):  # most often nothing is due, and then nothing more is read
            self._newest_in_first = self._newest(self._first, size, root)
            if self._newest_in_first >= older_than:
                return range(0)
        self._go_on(size, root, older_than)
        end = self._first
        try:
            while end < min(self._first + MOST_AT_ONCE, full) and self._newest(end, size, root) < older_than:
                end += 1
        except Unverified as unverified:
            self._tell(end, unverified)
        return range(self._first, end)

    def _tell(self, index: int, unverified: Unverified) -> None:
        if index == self._told_of:
            return
        import structlog  # here: whoever verifies a copy of a log does without it

        structlog.get_logger().critical(
            "OLD ENTRIES OF THE AUDIT LOG ARE KEPT: they are not as written", reason=str(unverified)
        )
        self._told_of = index

    def drop(self, bundles: range) -> None:
        """Remove them, the oldest first. Raises OSError."""
        for index in bundles:
            path = self._directory / bundle_path(index)
            path.unlink(missing_ok=True)
            if index % 1000 == 999:
                with suppress(OSError):  # it is not empty, where somebody put something there
                    path.parent.rmdir()
        self._first, self._newest_in_first = bundles.stop, ""

    def _go_on(self, size: int, root: bytes, older_than: str) -> None:
        """Read in the log what is dropped by now, also by another node, and drop what a crash has left of that."""
        last = (size - 1) // TILE_WIDTH
        for index in range(last, self._read_up_to - 1, -1):
            said = self._said_in(index, size, root)
            if said is not None:
                for each in said if said.stop > self._first else ():
                    with suppress(Unverified):
                        if self._newest(each, size, root) < older_than:
                            self.drop(range(each, each + 1))
                self._first = max(self._first, said.stop)
                break
        self._read_up_to = size // TILE_WIDTH

    def _said_in(self, index: int, size: int, root: bytes) -> range | None:
        """The bundles that are dropped as the newest entry of a bundle about that says."""
        try:
            if DROPPED.encode() not in self._tiles.content(ENTRIES, index, size)[0]:
                return None
            entries = self._tiles.checked_bundle(index, size, root)
        except Unverified:
            return None
        return next((said for line in reversed(entries) if (said := _said(line)) and said.stop <= index), None)

    def _newest(self, index: int, size: int, root: bytes) -> str:
        """The time of the newest entry in a bundle. Raises Unverified where it is missing or was altered."""
        return max(map(time_of, self._tiles.checked_bundle(index, size, root)), default="")


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
            said = _said(line)
            if said is not None and said.stop * TILE_WIDTH <= index * TILE_WIDTH + place:
                return said.stop * TILE_WIDTH
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


def _said(line: bytes) -> range | None:
    """The bundles that are dropped, where this is the service's own entry about that."""
    if DROPPED.encode() not in line:
        return None
    entry = entry_of(line)
    if entry is None:
        return None
    found = _TARGET.fullmatch(entry.target or "")
    if (entry.operation, entry.request_id, entry.client_id) != (DROPPED, OF_FOLDING, None) or found is None:
        return None
    bundles = range(int(found[1]) // TILE_WIDTH, (int(found[2]) + 1) // TILE_WIDTH)
    return bundles if bundles and target_of(bundles) == found[0] else None
