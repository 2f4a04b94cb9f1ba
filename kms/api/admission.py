"""No client may starve the others of threads.

A worker has few threads. Two things hold one for long: a body that does not arrive (the server underneath has
no timeout for it) and work that may wait: computing that takes long, the database, other nodes. So one client's
requests hold at most a quarter of the threads while they read their body, another quarter while they do anything but
a hot operation, and slow operations hold at most half of them. Whoever comes next waits briefly, but not behind
holders that are plainly stuck.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from kms.clock import steady_seconds
from kms.errors import Unavailable
from kms.operations import Operation

_UNPROVEN = "everybody unproven"  # no client id has a space
_WORKING = "everybody working"
_PATIENCE = 0.1
_LONGEST_WAIT = 1.0


class Admission:
    """The threads of one worker, shared out."""

    def __init__(self, threads: int) -> None:
        self._of_client = max(1, threads // 4)
        self._unproven = max(1, threads // 2)
        self._working = max(1, threads * 3 // 4)
        self._slow = max(1, threads // 2)
        self._slow_waiting = max(1, threads // 4)
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._held: dict[str, list[float]] = {}
        self._slow_held = 0
        self._slow_queue = 0
        self._waiting = 0

    @contextmanager
    def of_client(self, client: str) -> Iterator[None]:
        """Hold one of the client's threads. Raises Unavailable."""
        began = self.enter(client)
        try:
            yield
        finally:
            self.leave(client, began)

    @contextmanager
    def working(self, client: str) -> Iterator[None]:
        """Hold a thread for what may wait for the database or for other nodes. Raises Unavailable.

        A client has as many of these as for its bodies, apart from them, so that what it changes never keeps what it
        uses from being answered. All clients together leave a quarter of the threads.
        """
        with self.of_client(f"{client} working"):
            began = self.enter(_WORKING, self._working)
            try:
                yield
            finally:
                self.leave(_WORKING, began)

    @contextmanager
    def unproven(self, who: str) -> Iterator[None]:
        """Hold a thread while a body arrives that comes before the proof of who sends it. Raises Unavailable.

        `who` is who that may be. All such bodies together hold at most half of the threads.
        """
        with self.of_client(f"unproven {who}"):
            began = self.enter(_UNPROVEN, self._unproven)
            try:
                yield
            finally:
                self.leave(_UNPROVEN, began)

    @contextmanager
    def for_operation(self, operation: Operation, client: str) -> Iterator[None]:
        """Hold what an operation of a client needs: nothing where it is hot. Raises Unavailable."""
        if operation.hot:
            yield
            return
        with self.working(client), self.slow() if operation.slow else nullcontext():
            yield

    def enter(self, client: str, most: int | None = None) -> float:
        """Begin what `of_client` does; the value is for `leave`, which must follow. Raises Unavailable."""
        most = most or self._of_client
        with self._lock:
            held = self._held.get(client)
            if held is None:
                held = self._held[client] = []
            elif len(held) >= most:
                held = self._wait_for_one(client, most)
            began = steady_seconds()
            held.append(began)
            return began

    def leave(self, client: str, began: float) -> None:
        """Let go of what `enter` took."""
        with self._lock:
            held = self._held[client]
            held.remove(began)
            if not held:
                del self._held[client]
            if self._waiting:
                self._freed.notify_all()

    def _wait_for_one(self, client: str, most: int) -> list[float]:
        """The moments at which the client's holders came, once there are fewer than it may have."""
        deadline = steady_seconds() + _LONGEST_WAIT
        while len(held := self._held.setdefault(client, [])) >= most:
            # A holder that has only just come will soon be gone; where the youngest is old, none will.
            patience = min(held[-1] + _PATIENCE, deadline) - steady_seconds()
            if patience <= 0:
                raise Unavailable("This client has too many requests under way. Finish some first.", retry_after=1)
            self._waiting += 1
            self._freed.wait(patience)
            self._waiting -= 1
        return held

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Hold one of the threads that slow operations may have. Raises Unavailable."""
        with self._lock:
            if self._slow_held >= self._slow:
                self._wait_for_slow()
            self._slow_held += 1
        try:
            yield
        finally:
            with self._lock:
                self._slow_held -= 1
                self._freed.notify_all()

    def _wait_for_slow(self) -> None:
        busy = Unavailable("Too many keys are being made. Try again.", retry_after=2)
        if self._slow_queue >= self._slow_waiting:
            raise busy
        self._slow_queue += 1
        try:
            if not self._freed.wait_for(lambda: self._slow_held < self._slow, timeout=_LONGEST_WAIT):
                raise busy
        finally:
            self._slow_queue -= 1
