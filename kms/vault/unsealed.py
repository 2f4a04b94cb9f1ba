"""What was unsealed, in memory that a process shares with those that it forks.

The process that unseals the vault starts the workers, and starts others in place of those that die. When a worker
learns of a new root key, those that come later must have it too, and the seal may want a person. So the keyset is in
an anonymous shared page, which is never written anywhere.
"""

from __future__ import annotations

import mmap
import threading
import time
from hashlib import sha256

from kms.vault.keyset import Keyset

_SIZE = 4096
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
        self._write(keyset)

    def keyset(self) -> Keyset:
        """The newest that any of the processes has learned."""
        for _ in range(_TRIES):
            length = int.from_bytes(self._page[:_LENGTH_BYTES])
            ends = _LENGTH_BYTES + length
            content, found = self._page[_LENGTH_BYTES:ends], self._page[ends : ends + _HASH_BYTES]
            if sha256(content).digest() == found:
                return Keyset.decoded(content)
            time.sleep(0.001)  # another process is writing
        raise RuntimeError("the shared page of the keyset cannot be read")

    def learn(self, keyset: Keyset) -> None:
        """Put `keyset` there, unless that is as new already."""
        with self._lock:
            there = self.keyset()
            if (keyset.newest, keyset.oldest) > (there.newest, there.oldest):
                self._write(keyset)

    def _write(self, keyset: Keyset) -> None:
        content = keyset.encoded()
        written = len(content).to_bytes(_LENGTH_BYTES) + content + sha256(content).digest()
        if len(written) > _SIZE:
            raise ValueError("too many root keys")
        self._page[: len(written)] = written
