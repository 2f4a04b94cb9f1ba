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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from kms.audit.spool_lines import Codes, first_line, name_in
from kms.clock import steady_seconds
from kms.errors import StartError, Unavailable
from kms.files import fault_of, private_directory

PATTERN = "spool-*.jsonl"
ALLOCATED_AT_ONCE = 1 << 18
_LONG_ENTRY_BYTES = 4096
_LOOK_SECONDS = 1.0
_MOVES_ON_AT_BYTES = 16 << 20
_MOVES_ON_AFTER_SECONDS = 3600.0
_NEWLINE = 10
_LOG = structlog.get_logger()


class Spool:
    """One append-only file, named by the moment and the process it belongs to.

    While the process lives, the rest of the file is zero bytes, which no entry contains. If somebody moves or removes
    the file, the process goes on in a new one within a second, copies the entries that would be lost, and calls
    `lost`. It also goes on in a new one after 16 MiB or an hour, so that what is folded can be removed.
    `key` is the service's for the codes of the lines (see `spool_lines`); None where the vault has none yet.
    `stalled` is told why nothing can be written, once it begins.
    """

    def __init__(
        self,
        directory: Path,
        key: bytes | None = None,
        *,
        fsync: bool,
        lost: Callable[[], None] = lambda: None,
        stalled: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._directory, self._key = directory, key
        self._fsync = fsync
        self._lost = lost
        self._stalled = stalled
        self._writing, self._syncing = threading.Lock(), threading.Lock()
        self._written = self._synced = 0
        self._window: mmap.mmap | None = None
        self._begin = self._at = self._room = 0  # where the window begins in the file; in it: next entry, and end
        self._look_at = 0.0
        self._is_failing = False
        self._path, self._file = self._create()
        self._begin_with_name()

    def _begin_with_name(self) -> None:
        """Write the line that names a new spool. Raises OSError."""
        self._codes = Codes(self._key, self._path.stem) if self._key is not None else None
        first = first_line(self._path.stem) if self._codes is not None else b""
        os.pwrite(self._file, first, 0)
        self._named = self._begin = len(first)
        self._at = self._room = 0
        self._moves_on_at = steady_seconds() + _MOVES_ON_AFTER_SECONDS

    def _create(self) -> tuple[Path, int]:
        """A new file. Raises StartError or OSError."""
        name = PATTERN.replace("*", f"{time.time_ns():020d}-{os.getpid()}")
        path = private_directory(self._directory) / name
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)  # until this process ends
        return path, file

    def append(self, line: bytes, leaf: bytes) -> None:
        """Append an entry with the leaf hash `leaf`. It survives the death of the process, with `fsync` a power cut.

        Raises Unavailable, leaving no part of the line behind.
        """
        try:
            with self._writing:
                if steady_seconds() > self._look_at:
                    self._look()
                # Never with the last bytes, also for a shorter entry: `require` cannot know how long the next is.
                if self._at + max(len(line), _LONG_ENTRY_BYTES) >= self._room:
                    self._allocate(len(line) + _LONG_ENTRY_BYTES)
                begin = self._at
                if self._codes is not None:
                    line = self._codes.coded(line, leaf, self._begin + begin)
                length = len(line)
                window, newline = self._window, begin + length
                window[begin:newline] = line  # type: ignore[index]  # there is one, since there is room
                window[newline] = _NEWLINE  # type: ignore[index]  # last: a line without it was not finished
                self._at = newline + 1
                if self._fsync:
                    self._written += 1
                    mine = self._written
            if self._fsync:
                self._sync_up_to(mine)
        except (OSError, StartError) as error:
            raise self._refusal(error) from None

    def require(self) -> None:
        """Raise Unavailable with the reason where the next entry could not be written."""
        try:
            with self._writing:
                self._look()
                if self._at + _LONG_ENTRY_BYTES >= self._room:
                    self._allocate(_LONG_ENTRY_BYTES)
            if self._fsync:
                os.fsync(self._file)
        except (OSError, StartError) as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError | StartError) -> Unavailable:
        """The Unavailable to raise for `error`. The first of a series is logged."""
        reason = fault_of(error) if isinstance(error, OSError) else "its directory is away"
        if not self._is_failing:
            self._is_failing = True
            _LOG.warning("THE AUDIT LOG CANNOT BE WRITTEN: everything is refused", reason=reason, exact=str(error))
            self._stalled(reason)
        return Unavailable(f"The audit log cannot be written ({reason}), so nothing is done.", retry_after=5)

    def _look(self) -> None:
        """Check that the file is still there under its name, else start a new one. Raises StartError or OSError."""
        status = os.fstat(self._file)
        try:
            named = self._path.stat(follow_symlinks=False)
            is_there = (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino)
        except FileNotFoundError:
            is_there = False
        if not is_there or status.st_size < self._begin + self._room:  # writing beyond its end kills the process
            self._replace(status)
        elif self._is_to_move_on():
            self._move_on()
        self._look_at = steady_seconds() + _LOOK_SECONDS

    def _is_to_move_on(self) -> bool:
        end = self._begin + self._at
        return end > self._named and (end >= _MOVES_ON_AT_BYTES or steady_seconds() >= self._moves_on_at)

    def _move_on(self) -> None:
        """Leave this file to whoever folds it, and go on in another. Raises StartError or OSError."""
        path, file = self._create()
        with self._syncing:
            os.ftruncate(self._file, self._begin + self._at)
            if self._fsync:
                os.fsync(self._file)
            self._synced = self._written
            os.close(self._file)
            self._path, self._file = path, file
        if self._window is not None:
            self._window.close()
            self._window = None
        self._begin_with_name()

    def _replace(self, status: os.stat_result) -> None:
        """Go on in a new file. What stood in one that was removed is written there first."""
        end = self._begin + self._at
        kept = end if status.st_nlink == 0 else 0
        path, file = self._create()
        try:
            _copy(self._file, file, min(kept, status.st_size))
            if self._fsync:
                os.fsync(file)
                os.fsync(self._file)
            if not kept and status.st_size >= end:
                os.ftruncate(self._file, end)  # for whoever has moved it
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(file)
            raise
        _LOG.error("A FILE OF THE AUDIT LOG WAS TAKEN AWAY: another is written", was=self._path.name, kept=kept)
        self._lost()
        with self._syncing:
            self._synced = self._written
            os.close(self._file)
            self._path, self._file = path, file
        if self._window is not None:
            self._window.close()
        self._window, self._begin, self._at, self._room = None, kept, 0, 0
        if not kept:
            self._begin_with_name()

    def _allocate(self, needed: int) -> None:
        """Move the window on to where there is room for `needed` bytes more. Raises OSError."""
        end = self._begin + self._at
        begin = end - end % mmap.ALLOCATIONGRANULARITY
        room = end - begin + max(needed, ALLOCATED_AT_ONCE)
        os.posix_fallocate(self._file, begin, room)
        window = mmap.mmap(self._file, room, offset=begin)
        if self._window is not None:
            self._window.close()
        self._window, self._begin, self._at, self._room = window, begin, end - begin, room
        if self._is_failing:
            self._is_failing = False
            _LOG.warning("the audit log is written again")

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
            if length == self._named:
                self._path.unlink(missing_ok=True)
            if self._window is not None:
                self._window.close()
            os.close(self._file)
            self._window, self._room, self._file = None, 0, -1  # what comes too late is refused


def _copy(source: int, target: int, length: int) -> None:
    at = 0
    while at < length and (copied := os.sendfile(target, source, at, length - at)):
        at += copied


def tidy(directory: Path) -> None:
    """Tidy up the spools of processes that have ended: cut off their trailing zeros, and remove empty ones."""
    for path in directory.glob(PATTERN):
        with suppress(FileNotFoundError), path.open("r+b") as file:  # another worker may have removed it
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody writes it
            length = _length(file)
            if length > _length_of_name(file):
                file.truncate(length)
            else:
                path.unlink(missing_ok=True)


def _length(file: BinaryIO) -> int:
    """How long the entries in a spool are: what follows are zeros, and perhaps a line that was not finished."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - ALLOCATED_AT_ONCE)
        file.seek(begin)
        newline = file.read(end - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        end = begin
    return 0


def _length_of_name(file: BinaryIO) -> int:
    file.seek(0)
    first = file.read(_LONG_ENTRY_BYTES).partition(b"\n")[0] + b"\n"
    return len(first) if name_in(first) is not None else 0


def sizes(directory: Path) -> list[int]:
    """The size of every spool in bytes, with what is allocated ahead."""
    found = []
    for path in directory.glob(PATTERN):
        with suppress(FileNotFoundError):  # an empty one is removed
            found.append(path.stat().st_size)
    return found
