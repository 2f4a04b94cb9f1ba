"""Generates keys whose types are slow to generate; an RSA key of 4096 bits takes half a second.

A few threads of low priority do it, so that a service on one core goes on answering. Of each slow type that was asked
for, a few keys are generated in advance. They are held only in the memory of this worker; each is handed out once.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from kms.crypto.keytype import KeyType

_READY = 2
_AT_ONCE = 2
_GIVES_WAY, _GIVES_WAY_TO_THAT = 10, 15


class KeyPool:
    """Gives new key material of any type, generated in advance if there is some."""

    def __init__(self) -> None:
        self._ready: defaultdict[str, deque[bytes]] = defaultdict(deque)
        self._wanted: queue.SimpleQueue[KeyType | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._makers = ThreadPoolExecutor(_AT_ONCE, "key maker", initializer=_give_way, initargs=(_GIVES_WAY,))

    def generate(self, kind: KeyType) -> bytes:
        """New material of `kind`, given to nobody else. May take seconds, so it is called outside of transactions."""
        if not kind.slow:
            return kind.generate()
        self._wanted.put(kind)
        self._start()
        try:
            return self._ready[kind.name].popleft()
        except IndexError:
            return self._makers.submit(kind.generate).result()

    def close(self) -> None:
        """Stop the threads once each has finished the key it is generating. Does not wait for them."""
        self._wanted.put(None)
        self._makers.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._fill, name="key reserve", daemon=True)
                self._thread.start()

    def _fill(self) -> None:
        _give_way(_GIVES_WAY_TO_THAT)
        while (kind := self._wanted.get()) is not None:
            while len(self._ready[kind.name]) < _READY:
                self._ready[kind.name].append(kind.generate())


def _give_way(nice: int) -> None:
    with suppress(OSError, AttributeError):  # where threads have no priority of their own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
