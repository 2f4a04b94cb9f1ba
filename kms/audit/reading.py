"""The entries of the log as this host can read them: its tree, and what waits to be folded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kms.audit import keys, spool_reading
from kms.audit.log_files import STAGING
from kms.audit.spool_files import processes_of, spools_in
from kms.audit.tiles import TILE_WIDTH, Tiles
from kms.audit.tree import Unverified
from kms.vault import tables
from kms.vault.folded import audit_log, folded_spools
from kms.vault.rows import AuditLog, OutboxEntry
from kms.vault.store import Vault

_MOST_WAITING = 250_000
_ATTEMPTS, _PAUSE_SECONDS = 40, 0.05


@dataclass(frozen=True)
class LogRead:
    """The log at one moment: the first `size` entries of the tree in `directory`, and what is `waiting`."""

    directory: Path
    size: int
    waiting: list[bytes] = field(repr=False)

    def newest_first(self) -> Iterator[bytes]:
        """What waits, newest first, and then the tree's entries from its end, as far back as they are kept."""
        yield from reversed(self.waiting)
        yield from folded(self.directory, self.size)


def read(vault: Vault, directory: Path, spools: Path) -> LogRead:
    """Read what waits, of changes and of this host's spools. Nothing is left out that is folded meanwhile.

    Raises Unavailable.
    """
    before = settled(vault, directory)
    with vault.read() as snapshot:
        column = tables.audit_outbox.c.sequence
        rows = snapshot.select(OutboxEntry, order_by=column.desc(), limit=_MOST_WAITING)[::-1]
        folded_up_to = folded_spools(snapshot, processes_of(spools_in(spools)))
        key = keys.spool_key(snapshot)
    waiting = [row.entry.encode() for row in rows]
    if key is not None and before.origin:
        waiting += spool_reading.waiting(spools, folded_up_to, key)
    else:  # there may be spools of an older release, which have no codes
        waiting += spool_reading.unchecked(spools, folded_up_to)
    after = settled(vault, directory)
    if after.size != before.size:
        tiles = Tiles.in_directory(directory)
        with suppress(Unverified):
            there = set(tiles.entries(before.size, after.size, after.size))
            waiting = [line for line in waiting if line not in there]
    return LogRead(directory, after.size, waiting)


def settled(vault: Vault, directory: Path) -> AuditLog:
    """The tree once its files are there, as they are a moment after the commit."""
    for _ in range(_ATTEMPTS):
        with vault.read() as snapshot:
            log = audit_log(snapshot)
        if not log.staged or not (directory / STAGING / log.staged).exists():
            return log
        time.sleep(_PAUSE_SECONDS)
    return log


def folded(directory: Path, size: int) -> Iterator[bytes]:
    """The first `size` entries of the tree in `directory`, the newest first, as far back as they are kept."""
    tiles = Tiles.in_directory(directory)
    with suppress(Unverified):
        for index in range((size - 1) // TILE_WIDTH, -1, -1):
            yield from reversed(tiles.bundle(index, size))
