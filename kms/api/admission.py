"""Limits how many threads the requests of one client can hold, so that no client can block the others.

A worker has few threads. Two things can hold a thread for long: a body that does not arrive (the HTTP server has no
timeout for it), and work that has to wait, for a long computation, the database or other nodes. So the requests of
one client hold at most a quarter of the threads while they read their body, and another quarter while they do
anything except a hot operation. Slow operations hold at most half of all threads. A request above a limit waits
briefly, but not if those that hold the threads are obviously stuck.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from kms.clock import steady_seconds
from kms.errors import Unavailable
from kms.operations import Operation

_SLOW = "everybody slow"
_UNPROVEN = "everybody unproven"  # no client id has a space
_WORKING = "everybody working"
_PATIENCE = 0.1
_LONGEST_WAIT = 1.0


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits; `began` is set, before `called`, once the place is theirs."""

    called: threading.Event = field(default_factory=threading.Event)
    began: float | None = None


class _Places:
    """The moments at which holders came, in order, and who waits for one to leave: nobody while there is room."""

    __slots__ = ("held", "waiting")

    def __init__(self, began: float) -> None:
        self.held = [began]
        self.waiting: deque[_Waiter] | None = None  # made when somebody waits: most requests find room


class Admission:
    """The threads of one worker, shared out."""

    def __init__(self, threads: int) -> None:
        self._of_client = max(1, threads // 4)
        self._unproven = max(1, threads // 2)
        self._working = max(1, threads * 3 // 4)
        self._slow = max(1, threads // 2)
        self._slow_waiting = max(1, threads // 4)
        self._lock = threading.Lock()
        self._places: dict[str, _Places] = {}

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

    def enter_unproven(self, who: str) -> tuple[float, float]:
        """Hold a thread while a body arrives before who sends it is proven; `leave_unproven` must follow.

        `who`: the client that the still unverified credentials name. All such bodies together hold at most half of
        the threads. No context manager: AWS's hot operations come this way. Raises Unavailable.
        """
        name = f"unproven {who}"
        with self._lock:  # both at once where this is the only one of `who` and there is room, which is nearly always
            everybody = self._places.get(_UNPROVEN)
            if name not in self._places and (everybody is None or len(everybody.held) < self._unproven):
                began = steady_seconds()
                self._places[name] = _Places(began)
                if everybody is None:
                    self._places[_UNPROVEN] = _Places(began)
                else:
                    everybody.held.append(began)
                return began, began
        began = self.enter(name)
        try:
            return began, self.enter(_UNPROVEN, self._unproven)
        except Unavailable:
            self.leave(name, began)
            raise

    def leave_unproven(self, who: str, entered: tuple[float, float]) -> None:
        """Let go of what `enter_unproven` took."""
        with self._lock:
            self._leave(_UNPROVEN, entered[1])
            self._leave(f"unproven {who}", entered[0])

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Hold one of the threads that slow operations may have. Raises Unavailable."""
        with self._lock:
            places = self._places.get(_SLOW)
            is_crowded = places is not None and len(places.waiting or ()) >= self._slow_waiting
        if is_crowded:
            raise _too_many(_SLOW)
        began = self.enter(_SLOW, self._slow, patience=_LONGEST_WAIT)
        try:
            yield
        finally:
            self.leave(_SLOW, began)

    @contextmanager
    def for_operation(self, operation: Operation, client: str) -> Iterator[None]:
        """Hold what an operation of a client needs: nothing where it is hot. Raises Unavailable."""
        if operation.hot:
            yield
            return
        with self.working(client), self.slow() if operation.slow else nullcontext():
            yield

    def enter(self, name: str, most: int | None = None, patience: float = _PATIENCE) -> float:
        """Hold one of the `most` places of that name; the value is for `leave`, which must follow.

        Waits in order, as long as some holder has not been there for longer than `patience` seconds: behind holders
        that are plainly stuck nobody waits. Raises Unavailable.
        """
        with self._lock:
            places = self._places.get(name)
            if places is None:
                began = steady_seconds()
                self._places[name] = _Places(began)
                return began
            if len(places.held) < (most or self._of_client):
                began = steady_seconds()
                places.held.append(began)
                return began
            waiter, waiting = _Waiter(), places.waiting
            if waiting is None:
                waiting = places.waiting = deque()
            waiting.append(waiter)
        deadline = steady_seconds() + _LONGEST_WAIT
        while True:
            with self._lock:
                if waiter.began is not None:
                    return waiter.began
                left = min(places.held[-1] + patience, deadline) - steady_seconds()
                if left <= 0:
                    waiting.remove(waiter)
                    raise _too_many(name)
            waiter.called.wait(left)

    def leave(self, name: str, began: float) -> None:
        """Let go of what `enter` took; who waits longest has it next."""
        with self._lock:
            self._leave(name, began)

    def _leave(self, name: str, began: float) -> None:
        places = self._places[name]
        places.held.remove(began)
        if places.waiting:
            next_one = places.waiting.popleft()
            next_one.began = steady_seconds()
            places.held.append(next_one.began)
            next_one.called.set()
        elif not places.held:
            del self._places[name]


def _too_many(name: str) -> Unavailable:
    if name == _SLOW:
        return Unavailable("Too many keys are being made. Try again.", retry_after=2)
    return Unavailable("This client has too many requests under way. Finish some first.", retry_after=1)
