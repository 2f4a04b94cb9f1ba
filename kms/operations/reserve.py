"""A few keys of the slow types, made ahead: an RSA key of 4096 bits takes half a second, a request should not.

They are held in this worker's memory only, each is given once, and only types that were asked for are made ahead,
by a thread that gives way to the others.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import defaultdict, deque
from contextlib import suppress

from kms.crypto.keytype import KeyType

_READY = 2
_GIVES_WAY = 10


class Reserve:
    """Fresh material of any type, from what was made ahead where there is some."""

    def __init__(self) -> None:
        self._ready: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._wanted: queue.SimpleQueue[KeyType] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def generate(self, kind: KeyType) -> bytes:
        """New material of `kind`, given to nobody else. May take seconds, so it is called outside of transactions."""
        if not kind.slow:
            return kind.generate()
        self._wanted.put(kind)
        self._start()
        try:
            return self._ready[kind.name].popleft()
        except IndexError:
            return kind.generate()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._fill, name="key reserve", daemon=True)
                self._thread.start()

    def _fill(self) -> None:
        with suppress(OSError, AttributeError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _GIVES_WAY)
        while True:
            kind = self._wanted.get()
            while len(self._ready[kind.name]) < _READY:
                self._ready[kind.name].append(kind.generate())
