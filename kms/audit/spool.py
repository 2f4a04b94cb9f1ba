"""Where a worker appends the entries that do not go through the database: a file of its own, one write each."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from kms.errors import Unavailable
from kms.files import private_directory

_REFUSED = "The audit log cannot be written, so nothing is done. Free some disk space."
_PATTERN = "spool-*.jsonl"
_TAIL_BYTES = 1 << 20


class Spool:
    """One append-only file, named by the moment and the process it belongs to."""

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        private_directory(directory)
        name = _PATTERN.replace("*", f"{time.time_ns():020d}-{os.getpid()}")
        self._file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._fsync = fsync
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0

    def append(self, line: bytes) -> None:
        """Append one entry. It survives the death of the process, with `fsync` also a power cut.

        Raises Unavailable, leaving no part of the line behind.
        """
        record = line + b"\n"
        try:
            with self._writing:
                done = os.write(self._file, record)
                if done != len(record):  # the disk is full
                    os.ftruncate(self._file, os.fstat(self._file).st_size - done)
                    raise Unavailable(_REFUSED, retry_after=5)
                self._written += 1
                mine = self._written
            if self._fsync:
                self._sync_up_to(mine)
        except OSError:
            raise Unavailable(_REFUSED, retry_after=5) from None

    def _sync_up_to(self, mine: int) -> None:
        # Whoever gets the lock syncs for all who wrote before; they then find their work done.
        with self._syncing:
            if self._synced < mine:
                written = self._written
                os.fsync(self._file)
                self._synced = written

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def latest_lines(directory: Path) -> list[bytes]:
    """The newest lines of every spool, up to a mebibyte of each, in no order."""
    lines: list[bytes] = []
    for path in directory.glob(_PATTERN):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            complete, _, _ = file.read().rpartition(b"\n")
            found = complete.split(b"\n")
            lines.extend(found[1:] if size > _TAIL_BYTES else found)
    return [line for line in lines if line]
