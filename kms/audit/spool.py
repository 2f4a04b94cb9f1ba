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
from pathlib import Path

import structlog

from kms.audit.spool_files import ALLOCATED_AT_ONCE, Place, move_aside
from kms.audit.spool_lines import Codes, first_line
from kms.clock import steady_seconds
from kms.errors import StartError, Unavailable
from kms.files import fault_of, private_directory, sync_directory

_LONG_ENTRY_BYTES = 4096
_LOOK_SECONDS = 1.0
_MOVES_ON_AT_BYTES = 16 << 20
_MOVES_ON_AFTER_SECONDS = 3600.0
_NEWLINE = 10
_LOG = structlog.get_logger()


class Spool:
    """One append-only file, named by the moment and the process it belongs to.

    While the process lives, the rest of the file is zero bytes, which no entry contains. If somebody moves, removes
    or replaces the file, the process puts it back within a second, with all that it has written, and calls `lost`. If
    somebody cuts it, the process goes on in a new one. It also does so after 16 MiB or an hour, so that what is
    folded can be removed. `key` is the service's for the codes of the lines (see `spool_lines`); None where the vault
    has none yet. `stalled` is told why nothing can be written, once it begins.
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
        self._process = self._new_process()
        self._go_on_in(0, *self._create(0))

    @staticmethod
    def _new_process() -> str:
        return f"spool-{time.time_ns():020d}-{os.getpid()}"

    def _create(self, position: int) -> tuple[Path, int]:
        """A new file for what follows after `position`, with the line that names it. Raises StartError or OSError."""
        directory = private_directory(self._directory)
        path = directory / f"{Place(self._process, position)}.jsonl"
        if os.path.lexists(path):
            move_aside(path)  # no process of the service has made it
        file = self._locked(path)
        try:
            if self._key is not None:
                os.pwrite(file, first_line(path.stem), 0)
            if self._fsync:
                sync_directory(directory)
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(file)
            raise
        return path, file

    @staticmethod
    def _locked(path: Path) -> int:
        """A new file that is this process's until it ends. Raises OSError."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _go_on_in(self, position: int, path: Path, file: int) -> None:
        self._path, self._file, self._position = path, file, position
        self._codes = Codes(self._key, path.stem) if self._key is not None else None
        self._named = self._begin = len(first_line(path.stem)) if self._codes is not None else 0
        self._at = self._room = 0
        self._moves_on_at = steady_seconds() + _MOVES_ON_AFTER_SECONDS

    def append(self, line: bytes, leaf: bytes) -> None:
        """Append an entry with the leaf hash `leaf`. It survives the death of the process, with `fsync` a power cut.

        Raises Unavailable, leaving no part of the line behind.
        """
        try:
            with self._writing:
                if steady_seconds() > self._look_at:
                    self._look()
                if self._codes is not None:
                    line = self._codes.coded(line, leaf, self._begin + self._at)
                # Never with the last bytes, also for a shorter entry: `require` cannot know how long the next is.
                if self._at + max(len(line), _LONG_ENTRY_BYTES) >= self._room:
                    self._allocate(len(line) + _LONG_ENTRY_BYTES)
                begin = self._at
                window, newline = self._window, begin + len(line)
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
        """Check that the file is still there under its name, else put it back. Raises StartError or OSError."""
        status = os.fstat(self._file)
        try:
            named = self._path.stat(follow_symlinks=False)
            is_there = (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino)
        except FileNotFoundError:
            is_there = False
        is_cut = status.st_size < self._begin + self._room  # writing beyond its end kills the process
        if not is_there:
            self._put_back(status.st_size)
        if not is_there or is_cut:
            _LOG.error("A FILE OF THE AUDIT LOG WAS TAKEN AWAY OR CUT: it is written anew", file=self._path.name)
            self._lost()
        if is_cut or self._is_to_move_on():
            self._move_on()
        self._look_at = steady_seconds() + _LOOK_SECONDS

    def _is_to_move_on(self) -> bool:
        end = self._begin + self._at
        return end > self._named and (end >= _MOVES_ON_AT_BYTES or steady_seconds() >= self._moves_on_at)

    def _move_on(self) -> None:
        """Leave this file to whoever folds it, and go on in another. Raises StartError or OSError."""
        end = self._begin + self._at
        position = self._position + end
        if self._key is None:  # what has no codes gets other lengths, so nothing can stand behind it
            self._process, position = self._new_process(), 0
        path, file = self._create(position)
        with self._syncing:
            if os.fstat(self._file).st_size > end:
                os.ftruncate(self._file, end)
            if self._fsync:
                os.fsync(self._file)
            self._synced = self._written
            os.close(self._file)
            self._close_window()
            self._go_on_in(position, path, file)

    def _put_back(self, size: int) -> None:
        """Write a file that was taken away, of which `size` bytes are left, anew under its name, and go on in it."""
        end = self._begin + self._at
        directory = private_directory(self._directory)
        unfinished = directory / f".{self._path.name}"
        unfinished.unlink(missing_ok=True)
        file = self._locked(unfinished)
        try:
            _copy(self._file, file, min(end, size))
            if self._fsync:
                os.fsync(file)
            if os.path.lexists(self._path):
                move_aside(self._path)
            unfinished.rename(self._path)  # in one step: whoever folds must not find what follows without it
            if self._fsync:
                sync_directory(directory)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            os.close(file)
            raise
        with self._syncing:
            if size > end:
                os.ftruncate(self._file, end)  # for whoever has moved it
            self._synced = self._written
            os.close(self._file)
            self._file = file
        self._close_window()
        self._begin, self._at, self._room = end, 0, 0

    def _close_window(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None

    def _allocate(self, needed: int) -> None:
        """Move the window on to where there is room for `needed` bytes more. Raises OSError."""
        end = self._begin + self._at
        begin = end - end % mmap.ALLOCATIONGRANULARITY
        room = end - begin + max(needed, ALLOCATED_AT_ONCE)
        os.posix_fallocate(self._file, begin, room)
        window = mmap.mmap(self._file, room, offset=begin)
        self._close_window()
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
            self._close_window()
            os.close(self._file)
            self._room, self._file = 0, -1  # what comes too late is refused


def _copy(source: int, target: int, length: int) -> None:
    at = 0
    while at < length and (copied := os.sendfile(target, source, at, length - at)):
        at += copied
