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
from collections.abc import Callable
from dataclasses import dataclass
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
        now = time.time()

        def counted(ends: float, count: int) -> tuple[float, int]:
            return (now + expiry, amount) if ends <= now else (ends, count + amount)

        return self._table.update(key, counted)[1]

    def get(self, key: str) -> int:
        """The count of the open window, or 0."""
        ends, count = self._table.update(key, _unchanged)
        return count if ends > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since 1970."""
        return max(self._table.update(key, _unchanged)[0], time.time())

    def clear(self, key: str) -> None:
        """Close the window."""
        self._table.update(key, lambda ends, count: (0.0, 0))

    def reset(self) -> int | None:
        """Not offered: one worker must not forget the counts of all."""
        return None

    def check(self) -> bool:
        """Whether the storage works."""
        return True


def _unchanged(ends: float, count: int) -> tuple[float, int]:
    return ends, count


@dataclass(slots=True)
class _Place:
    """Where a name is looked for, and the offset where it was last."""

    digest: bytes
    first: int
    stripe: int
    offset: int = _HEADER


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
        self._places: dict[str, _Place] = {}
        # A record lock belongs to a process: threads of one need locks of their own.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def update(self, name: str, step: Callable[[float, int], tuple[float, int]]) -> tuple[float, int]:
        """Put what `step` makes of a slot's end and count into it, as one step over all workers, and give it."""
        place = self._place(name)
        with self._stripes[place.stripe]:
            # The kernel lets go of this lock also when the worker is killed while it holds it.
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, place.stripe)
            try:
                before = self._read(place)
                after = step(*before)
                if after != before:
                    _SLOT.pack_into(self._map, place.offset, place.digest, *after)
                return after
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place.stripe)

    def _place(self, name: str) -> _Place:
        place = self._places.get(name)
        if place is None:
            digest = blake2b(name.encode("utf-8", "surrogateescape"), key=self._key, digest_size=16).digest()
            first = int.from_bytes(digest[:4]) % (_SLOTS // _PROBES) * _PROBES
            if len(self._places) >= _NAMES_REMEMBERED:
                self._places.clear()
            place = self._places[name] = _Place(digest, first, first // _PROBES % _STRIPES)
        return place

    def _read(self, place: _Place) -> tuple[float, int]:
        """The end and count of the name's slot, or of an empty one where it has none yet."""
        name, ends, count = _SLOT.unpack_from(self._map, place.offset)
        if name == place.digest:
            return ends, count
        now = time.time()
        soonest = float("inf")
        for index in range(place.first, place.first + _PROBES):
            offset = _HEADER + index * _SLOT.size
            name, ends, count = _SLOT.unpack_from(self._map, offset)
            if name == place.digest:
                place.offset = offset
                return ends, count
            free_since = ends if ends > now and name != _EMPTY else 0.0
            if free_since < soonest:
                place.offset, soonest = offset, free_since
        return 0.0, 0


def _table(path: str) -> _Table:
    """The one table of this process for a file: two would not know of each other's locks."""
    with _opening:
        if path not in _tables:
            _tables[path] = _Table(str(Path(path)))
        return _tables[path]


_opening = threading.Lock()
_tables: dict[str, _Table] = {}
