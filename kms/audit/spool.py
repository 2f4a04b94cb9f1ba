"""Where a worker appends the entries that do not go through the database: a file of its own.

The file is mapped into memory and an entry is copied to its end. That is as durable as a `write`: what was copied
belongs to the kernel and survives the death of the process. But it takes no system call, so that the thread keeps
the interpreter's lock; handing that lock over costs more than the copy (docs/decisions/0011). Disk space is
allocated before it is written to: a file with a hole would kill the process once the disk is full.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from kms.errors import Unavailable
from kms.files import private_directory

_REFUSED = "The audit log cannot be written, so nothing is done. Free some disk space."
_PATTERN = "spool-*.jsonl"
_TAIL_BYTES = 1 << 20
_ALLOCATED_AT_ONCE = 1 << 18
_NEWLINE = 10


class Spool:
    """One append-only file, named by the moment and the process it belongs to.

    While the process lives the file ends in zeros, which no entry contains.
    """

    def __init__(self, directory: Path, *, fsync: bool) -> None:
        private_directory(directory)
        name = _PATTERN.replace("*", f"{time.time_ns():020d}-{os.getpid()}")
        self._path = directory / name
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # until this process ends
        self._fsync = fsync
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0
        self._window: mmap.mmap | None = None
        self._begin = self._at = self._room = 0  # where the window begins in the file; in it: next entry, and end

    def append(self, line: bytes) -> None:
        """Append one entry. It survives the death of the process, with `fsync` also a power cut.

        Raises Unavailable, leaving no part of the line behind.
        """
        try:
            with self._writing:
                begin, length = self._at, len(line)
                if begin + length >= self._room:
                    self._allocate(length + 1)
                    begin = self._at
                window, newline = self._window, begin + length
                window[begin:newline] = line  # type: ignore[index]  # there is one, since there is room
                window[newline] = _NEWLINE  # type: ignore[index]  # last: a line without it was not finished
                self._at = newline + 1
                if self._fsync:
                    self._written += 1
                    mine = self._written
            if self._fsync:
                self._sync_up_to(mine)
        except OSError:
            raise Unavailable(_REFUSED, retry_after=5) from None

    def _allocate(self, needed: int) -> None:
        """Move the window on to where there is room for `needed` bytes more. Raises OSError."""
        end = self._begin + self._at
        begin = end - end % mmap.ALLOCATIONGRANULARITY
        room = end - begin + max(needed, _ALLOCATED_AT_ONCE)
        os.posix_fallocate(self._file, begin, room)
        window = mmap.mmap(self._file, room, offset=begin)
        if self._window is not None:
            self._window.close()
        self._window, self._begin, self._at, self._room = window, begin, end - begin, room

    def _sync_up_to(self, mine: int) -> None:
        # Whoever gets the lock syncs for all who wrote before; they then find their work done.
        with self._syncing:
            if self._synced < mine:
                written = self._written
                os.fsync(self._file)
                self._synced = written

    def close(self) -> None:
        """Cut the file to its entries and close it."""
        with self._writing:
            length = self._begin + self._at
            os.ftruncate(self._file, length)
            if not length:
                self._path.unlink(missing_ok=True)
            if self._window is not None:
                self._window.close()
            os.close(self._file)
            self._window, self._room, self._file = None, 0, -1  # what comes too late is refused


def tidy(directory: Path) -> None:
    """Close what processes left behind that have ended: cut spools to their entries, remove empty ones."""
    for path in directory.glob(_PATTERN):
        with suppress(FileNotFoundError), path.open("r+b") as file:  # another worker may have removed it
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody writes it
            length = _length(file)
            if length:
                file.truncate(length)
            else:
                path.unlink(missing_ok=True)


def _length(file: BinaryIO) -> int:
    """How long the entries in a spool are: what follows are zeros, and perhaps a line that was not finished."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _ALLOCATED_AT_ONCE)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def sizes(directory: Path) -> list[int]:
    """The size of every spool in bytes, with what is allocated ahead."""
    found = []
    for path in directory.glob(_PATTERN):
        with suppress(FileNotFoundError):  # an empty one is removed
            found.append(path.stat().st_size)
    return found


def latest_lines(directory: Path) -> list[bytes]:
    """The newest lines of every spool, up to a mebibyte of each, in no order."""
    lines: list[bytes] = []
    for path in directory.glob(_PATTERN):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES - _ALLOCATED_AT_ONCE))
            is_whole = file.tell() == 0
            complete, _, _ = file.read().rpartition(b"\n")
            found = complete.split(b"\n")
            lines.extend(found if is_whole else found[1:])
    return [line for line in lines if line]
