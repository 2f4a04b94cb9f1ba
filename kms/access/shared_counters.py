"""Counters that the workers of one host share without any other server: a storage for the `limits` library.

A file, mapped into each worker, holds a hash table of fixed size. A slot is the hash of a counter's name, the
time its window ends and its count. Names are hashed under a key drawn at each boot, so nobody can aim at
another's slots. Where all slots that a name may take are in use, the one that ends first gives way.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from urllib.parse import urlparse

from limits.storage import Storage

_SLOT = struct.Struct("<16sdQ")  # name hash, end of window (seconds since 1970), count
_SLOTS = 1 << 16
_PROBES = 8
_STRIPES = 64
_HEADER = 32  # the key of the name hash
_SIZE = _HEADER + _SLOTS * _SLOT.size
_EMPTY = bytes(16)
_NAMES_REMEMBERED = 10_000


class SharedCounters(Storage):
    """Fixed windows in `kms-counters:///PATH`."""

    STORAGE_SCHEME = ["kms-counters"]  # noqa: RUF012  # the library declares it so

    def __init__(self, uri: str, wrap_exceptions: bool = False, **_: str | float | bool) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._table = _table(urlparse(uri).path)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong here."""
        return OSError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` to the counter, starting a window of `expiry` seconds where none is open."""
        return self._table.add(key, expiry, amount)

    def get(self, key: str) -> int:
        """The count of the open window, or 0."""
        with self._table.slot(key) as slot:
            return slot.count if slot.ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since 1970."""
        with self._table.slot(key) as slot:
            return max(slot.ends, time.time())

    def clear(self, key: str) -> None:
        """Close the window."""
        with self._table.slot(key) as slot:
            slot.ends, slot.count = 0.0, 0

    def reset(self) -> int | None:
        """Not offered: one worker must not forget the counts of all."""
        return None

    def check(self) -> bool:
        """Whether the storage works."""
        return True


class _Slot:
    __slots__ = ("count", "ends")

    def __init__(self, ends: float, count: int) -> None:
        self.ends = ends
        self.count = count


class _Table:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            if os.fstat(self._file).st_size < _SIZE:
                os.posix_fallocate(self._file, 0, _SIZE)  # a hole would kill the process once the disk is full
                os.pwrite(self._file, os.urandom(_HEADER), 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._map = mmap.mmap(self._file, _SIZE)
        self._key = self._map[:_HEADER]
        self._places: dict[str, tuple[bytes, int, int]] = {}
        self._latest: dict[str, int] = {}
        # A record lock belongs to a process: threads of one need locks of their own.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def add(self, name: str, expiry: int, amount: int) -> int:
        """What `slot` would do for one that counts up, without what that costs."""
        digest, first, stripe = self._place(name)
        now = time.time()
        with self._stripes[stripe]:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, stripe)
            try:
                offset = self._latest.get(name, _HEADER)
                found, ends, count = _SLOT.unpack_from(self._map, offset)
                if found != digest:
                    offset, slot = self._find(digest, first)
                    ends, count = slot.ends, slot.count
                    if len(self._latest) >= _NAMES_REMEMBERED:
                        self._latest.clear()
                    self._latest[name] = offset
                if ends <= now:
                    ends, count = now + expiry, 0
                count += amount
                _SLOT.pack_into(self._map, offset, digest, ends, count)
                return int(count)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, stripe)

    def _place(self, name: str) -> tuple[bytes, int, int]:
        place = self._places.get(name)
        if place is None:
            digest = blake2b(name.encode("utf-8", "surrogateescape"), key=self._key, digest_size=16).digest()
            first = int.from_bytes(digest[:4]) % (_SLOTS // _PROBES) * _PROBES
            if len(self._places) >= _NAMES_REMEMBERED:
                self._places.clear()
            place = self._places[name] = (digest, first, first // _PROBES % _STRIPES)
        return place

    @contextmanager
    def slot(self, name: str) -> Iterator[_Slot]:
        digest, first, stripe = self._place(name)
        with self._stripes[stripe]:
            # The kernel lets go of this lock also when the worker is killed while it holds it.
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, stripe)
            try:
                offset, slot = self._find(digest, first)
                before = (slot.ends, slot.count)
                yield slot
                if (slot.ends, slot.count) != before:
                    _SLOT.pack_into(self._map, offset, digest, slot.ends, slot.count)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, stripe)

    def _find(self, digest: bytes, first: int) -> tuple[int, _Slot]:
        now = time.time()
        best_offset, best_ends = -1, float("inf")
        for index in range(first, first + _PROBES):
            offset = _HEADER + index * _SLOT.size
            name, ends, count = _SLOT.unpack_from(self._map, offset)
            if name == digest:
                return offset, _Slot(ends, count)
            free_since = ends if ends > now and name != _EMPTY else 0.0
            if free_since < best_ends:
                best_offset, best_ends = offset, free_since
        return best_offset, _Slot(0.0, 0)


@cache
def _table(path: str) -> _Table:
    return _Table(str(Path(path)))
