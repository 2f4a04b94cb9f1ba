"""What was unsealed, in memory that a process shares with those that it forks.

The process that unseals the vault starts the workers, and starts others in place of those that die. When a worker
learns of a new root key, those that come later must have it too, and the seal may want a person. So the keyset is in
an anonymous shared page, which is never written anywhere.

Several processes may learn at once: one writes at a time. The page has two places. What is new goes into the one that
is free, and then the other is wiped, so that a process which is killed as it writes leaves the keyset of before.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from kms.vault.keyset import Keyset

inherited: Unsealed | None = None
"""What the process that forked this one has unsealed, where the WSGI server is not ours and cannot hand it on."""

_SIZE = 4096
_PLACES = (0, _SIZE // 2)
_LENGTH_BYTES = 4
_HASH_BYTES = 32
_TRIES = 100


class Unsealed:
    """A keyset that all processes of a service on one host share."""

    def __init__(self, keyset: Keyset) -> None:
        self._page = mmap.mmap(-1, _SIZE)
        if hasattr(mmap, "MADV_DONTDUMP"):
            self._page.madvise(mmap.MADV_DONTDUMP)
        self._lock = threading.Lock()
        self._turn = _file_to_lock()
        weakref.finalize(self, os.close, self._turn)
        self._write(keyset)

    def keyset(self) -> Keyset:
        """The newest that any of the processes has learned."""
        for _ in range(_TRIES):
            found = [keyset for keyset in map(self._read, _PLACES) if keyset is not None]
            if found:
                return max(found, key=_age)
            time.sleep(0.001)  # it was moved from one place to the other between the two looks
        raise RuntimeError("the shared page of the keyset cannot be read")

    def learn(self, keyset: Keyset) -> None:
        """Put `keyset` there, unless that is as new already."""
        with self._writing():
            if _age(keyset) > _age(self.keyset()):
                self._write(keyset)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """As the only thread of the only process; the kernel takes the lock from a process that dies."""
        with self._lock:
            fcntl.lockf(self._turn, fcntl.LOCK_EX)  # one by `flock` would be of all that were forked, and stop none
            try:
                yield
            finally:
                fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def _write(self, keyset: Keyset) -> None:
        content = keyset.encoded()
        written = len(content).to_bytes(_LENGTH_BYTES) + content + sha256(content).digest()
        room = _SIZE // len(_PLACES)
        if len(written) > room:
            raise ValueError("too many root keys")
        at, before = sorted(_PLACES, key=lambda place: _age(self._read(place)))
        self._page[at : at + room] = written.ljust(room, b"\0")
        self._page[before : before + room] = bytes(room)

    def _read(self, place: int) -> Keyset | None:
        """What is at a place of the page; None for nothing, also while somebody writes there."""
        begins = place + _LENGTH_BYTES
        ends = begins + int.from_bytes(self._page[place:begins])
        content, found = self._page[begins:ends], self._page[ends : ends + _HASH_BYTES]
        return Keyset.decoded(content) if sha256(content).digest() == found else None


def _age(keyset: Keyset | None) -> tuple[int, int]:
    return (keyset.newest, keyset.oldest) if keyset is not None else (0, 0)


def _file_to_lock() -> int:
    """A descriptor of a file without name or content."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kms-unsealed")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
