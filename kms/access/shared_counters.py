"""Counters that the workers of one host share without any other server: a storage for the `limits` library.

A file, mapped into each worker, holds a hash table of fixed size. A slot is the hash of a counter's name, the time
its window ends, and a cell for each process: what that process has counted in which window. A process writes only
its own cells and adds up all of a slot, so counting takes no lock between processes and no system call, either of
which would cost more than the encryption that is counted (docs/decisions/0012). Of two processes that count at the
same moment at least one sees the other, since each writes before it adds up: a limit is never exceeded.

Windows begin and names come and go under a record lock, which the kernel takes back from a worker that is killed.
Names are hashed under a key drawn at each boot, so nobody can aim at another's slots. Where all slots that a name
may take are in use, the one that ends first gives way.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from urllib.parse import parse_qs, urlparse

from limits.storage import Storage

_WORD = 8  # everything in the file is an unsigned integer of 64 bits, aligned, so that it is read and written whole
_SLOTS = 1 << 15
_PROBES = 8
_NAMES_REMEMBERED = 20_000

# The file's header: the key of the name hash, and how many processes have ever had cells.
_KEY_BYTES = 32
_PROCESSES = _KEY_BYTES // _WORD
_HEADER = _PROCESSES + 1
# A slot: the two halves of the name hash, when the window ends (microseconds since 1970), then pairs of a cell's
# window, by its end, and its count.
_ENDS, _CELLS = 2, 3

_SLACK = 1_000_000  # two processes may have looked at the clock in another order than they come here

_SHARED_LOCK = 0  # byte that is locked while something other than a count changes; those after it belong to cells
_DEFAULT_PROCESSES = 8


class SharedCounters(Storage):
    """Fixed windows in `kms-counters:///PATH?processes=N`, for at most N processes at a time."""

    STORAGE_SCHEME = ["kms-counters"]  # noqa: RUF012  # the library declares it so

    def __init__(self, uri: str, wrap_exceptions: bool = False, **_: str | float | bool) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        parts = urlparse(uri)
        (processes,) = parse_qs(parts.query).get("processes", [str(_DEFAULT_PROCESSES)])
        self._table = _table(parts.path, int(processes))

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong here."""
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` to the counter, starting a window of `expiry` seconds where none is open."""
        return self._table.counter(key).add(expiry, amount)

    def counter(self, key: str) -> Counter:
        """What counts under that name, for whoever does so often."""
        return self._table.counter(key)

    def get(self, key: str) -> int:
        """The count of the open window, or 0."""
        return self._table.count(key)

    def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since 1970."""
        return max(self._table.ends(key), time.time())

    def clear(self, key: str) -> None:
        """Close the window."""
        self._table.close_window(key)

    def reset(self) -> int | None:
        """Not offered: one worker must not forget the counts of all."""
        return None

    def check(self) -> bool:
        """Whether the storage works."""
        return True


class _Table:
    """The mapped file as one process sees it."""

    def __init__(self, path: str, processes: int) -> None:
        self._slot = _CELLS + 2 * processes
        size = (_HEADER + _SLOTS * self._slot) * _WORD
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.threads = threading.Lock()
        self._counters: dict[str, Counter] = {}
        with self._shared_lock():
            if os.fstat(self._file).st_size == 0:
                os.posix_fallocate(self._file, 0, size)  # a hole would kill the process once the disk is full
                os.pwrite(self._file, os.urandom(_KEY_BYTES), 0)
            self._map = mmap.mmap(self._file, size)
            self._key = self._map[:_KEY_BYTES]
            self.words = memoryview(self._map).cast("Q")
        self._most = processes
        self.mine = 0  # where its cells are in each slot, once it has counted something

    def counter(self, name: str) -> Counter:
        """The counter of that name."""
        found = self._counters.get(name)
        if found is None:
            if len(self._counters) >= _NAMES_REMEMBERED:
                self._counters.clear()
            found = self._counters[name] = Counter(self, name)
        return found

    def count(self, name: str) -> int:
        """What all processes have counted in the open window."""
        at, ends = self.open_slot(*self.hashed(name), time.time_ns() // 1000)
        return self.total(at, ends) if ends else 0

    def ends(self, name: str) -> float:
        """When the open window ends, in seconds since 1970; 0 where there is none."""
        return self.open_slot(*self.hashed(name), time.time_ns() // 1000)[1] / 1_000_000

    def close_window(self, name: str) -> None:
        """End the window of `name`, if there is one."""
        with self.threads, self._shared_lock():
            at, ends = self.open_slot(*self.hashed(name), time.time_ns() // 1000)
            if ends:
                self.words[at + _ENDS] = 0

    def total(self, at: int, ends: int) -> int:
        """What all processes have counted in the slot `at`, in the window that ends at `ends`."""
        cells = self.words[at + _CELLS : at + _CELLS + 2 * self.words[_PROCESSES]].tolist()
        return sum(count for window, count in zip(cells[::2], cells[1::2], strict=True) if window == ends)

    def hashed(self, name: str) -> tuple[int, int, int]:
        """The two halves of the hash of `name`, and where the slots begin that it may take."""
        digest = blake2b(name.encode("utf-8", "surrogateescape"), key=self._key, digest_size=16).digest()
        first, second = int.from_bytes(digest[:8]), int.from_bytes(digest[8:])
        return first, second, _HEADER + first % (_SLOTS // _PROBES) * _PROBES * self._slot

    def open_slot(self, first: int, second: int, begin: int, now: int, latest: int = 2**63) -> tuple[int, int]:
        """Where the slot of a hashed name is and when its window ends; (0, 0) where no window is open.

        One that ends after `latest` began when the clock was ahead, and is not open.
        """
        words = self.words
        for at in range(begin, begin + _PROBES * self._slot, self._slot):
            ends = words[at + _ENDS]  # before the name, which is written before it
            if now < ends <= latest and words[at] == first and words[at + 1] == second:
                return at, ends
        return 0, 0

    def begin(self, first: int, second: int, begin: int, now: int, ends: int) -> tuple[int, int]:
        """Begin a window that ends at `ends`, unless another process has just done it."""
        words = self.words
        with self._shared_lock():
            latest = ends + _SLACK
            at, found = self.open_slot(first, second, begin, now, latest)
            if found:
                return at, found
            slots = range(begin, begin + _PROBES * self._slot, self._slot)
            at = min(slots, key=lambda each: words[each + _ENDS] if words[each + _ENDS] <= latest else 0)
            words[at + _ENDS] = 0
            words[at], words[at + 1] = first, second
            words[at + _ENDS] = ends
        return at, ends

    def claim_cells(self) -> int:
        """Take the first cells that no living process has; the kernel keeps them locked until this one ends."""
        with self._shared_lock():
            for number in range(self._most):
                with suppress(OSError):
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _SHARED_LOCK + 1 + number)
                    self.words[_PROCESSES] = max(self.words[_PROCESSES], number + 1)
                    self.mine = _CELLS + 2 * number
                    return self.mine
        raise OSError(f"more than {self._most} processes count here")

    def _shared_lock(self) -> _RecordLock:
        return _RecordLock(self._file)


class Counter:
    """The counter of one name; it remembers its slot in the table."""

    __slots__ = ("_at", "_hash", "_table")

    def __init__(self, table: _Table, name: str) -> None:
        self._table = table
        self._hash = table.hashed(name)
        self._at = self._hash[2]

    def add(self, seconds: int, amount: int) -> int:
        """Count `amount`, in a new window of `seconds` where none is open; give the count of all processes.

        Raises OSError where there are no cells for one more process.
        """
        table, at, (first, second, begin) = self._table, self._at, self._hash
        words, now = table.words, time.time_ns() // 1000
        window = seconds * 1_000_000
        latest = now + window + _SLACK
        with table.threads:
            ends = words[at + _ENDS]  # before the name, which is written before it
            if not now < ends <= latest or words[at] != first or words[at + 1] != second:
                at, ends = table.open_slot(first, second, begin, now, latest)
                if not ends:
                    at, ends = table.begin(first, second, begin, now, now + window)
                self._at = at
            cell = at + (table.mine or table.claim_cells())
            if words[cell] == ends:
                words[cell + 1] = count = words[cell + 1] + amount
            else:
                words[cell] = 0  # while the two halves do not belong together
                words[cell + 1] = count = amount
                words[cell] = ends
        return count if words[_PROCESSES] == 1 else table.total(at, ends)


class _RecordLock:
    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _SHARED_LOCK)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _SHARED_LOCK)


def _table(path: str, processes: int) -> _Table:
    """The one table of this process for a file: two would not know of each other's cells."""
    with _opening:
        mine = (path, os.getpid())  # a forked process must not count in the cells of its parent
        if mine not in _tables:
            _tables[mine] = _Table(str(Path(path)), processes)
        return _tables[mine]


_opening = threading.Lock()
_tables: dict[tuple[str, int], _Table] = {}
