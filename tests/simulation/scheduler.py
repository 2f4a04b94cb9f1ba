"""Threads that take turns where the seed says, and a time that goes on only as they do.

Each logical thread is a greenlet. Exactly one runs, until it comes to a `point`: whatever it shares with others is
read or written just after one. There the seed says how long the thread takes to go on, mostly microseconds, now and
then much longer, and whoever is due first goes on. So one seed replays a run exactly.
"""

from __future__ import annotations

import random
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from greenlet import getcurrent, greenlet

_TRACED = 5000


class Killed(BaseException):
    """The process of this thread is dead: it does nothing any more, not even in its `finally`."""


class Violation(Exception):
    """A promise was broken. `trace` is what was done last, in words."""

    def __init__(self, reason: str, seed: int, step: int, trace: list[str]) -> None:
        super().__init__(f"seed {seed}, step {step}: {reason}")
        self.reason, self.seed, self.step, self.trace = reason, seed, step, trace


@dataclass(eq=False)
class Machine:
    """A host: its clock goes `rate` times as fast as the simulated time; `node_id` is its row among the nodes."""

    name: str
    rate: float = 1.0
    offset: float = 1000.0
    node_id: str = ""


@dataclass(eq=False)
class Process:
    """A process on a machine. It can be stopped (`paused`) and go on; once it is not `alive` it is gone."""

    name: str
    machine: Machine
    alive: bool = True
    paused: bool = False
    threads: list[Thread] = field(default_factory=list)
    parked: list[tuple[Thread, int]] = field(default_factory=list)


class Thread:
    """A logical thread of a process."""

    __slots__ = ("greenlet", "name", "process", "token", "woken")

    def __init__(self, name: str, process: Process, run: Callable[[], None]) -> None:
        self.name, self.process = name, process
        self.token = 0
        self.woken = False
        self.greenlet = greenlet(run)


@dataclass(frozen=True)
class Temper:
    """How a run behaves: seconds between points, how often a thread stalls at one, and for how long at most."""

    quick: float
    stall_probability: float
    longest_stall: float


class Scheduler:
    """Runs the threads of all processes, one at a time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self._random = self.rng.random
        self.now = 0.0
        self.steps = 0
        self.most = 0
        self.temper = Temper(1e-5, 0.0, 0.0)
        self.trace: deque[tuple[float, Thread, str, Any]] = deque(maxlen=_TRACED)
        self.violation: str | None = None
        self.finished = False
        self._heap: list[tuple[float, int, Thread, int]] = []
        self._order = 0
        self._hub = getcurrent()
        self.nature = Process("nature", Machine("world"))
        self.current = Thread("hub", self.nature, lambda: None)

    def run(self, steps: int) -> None:
        """Let everything run until `finished`, or for so many steps. Raises Violation."""
        self.most = steps
        self._hub = getcurrent()
        hub = self.current
        self._go_on()
        self.current = hub
        if self.violation is not None:
            raise Violation(self.violation, self.seed, self.steps, self.told())

    def told(self, last: int = _TRACED) -> list[str]:
        """What was done last, in words."""
        lines = []
        for now, thread, what, value in list(self.trace)[-last:]:
            shown = "" if value is None else f": {value}"
            lines.append(f"{now:12.6f}  {thread.process.name}/{thread.name}  {what}{shown}")
        return lines

    def fail(self, reason: str) -> None:
        """Note that a promise was broken, and let nothing go on."""
        if self.violation is None:
            self.violation = reason
            self.say("BREAKS A PROMISE", reason)
        self._go_on()

    def say(self, what: str, value: Any = None) -> None:
        """Note for the trace what the running thread does."""
        self.trace.append((self.now, self.current, what, value))

    def spawn(self, name: str, process: Process, target: Callable[[], None]) -> Thread:
        """A new thread of `process`."""

        def run() -> None:
            try:
                target()
            except Killed:
                return  # to `kill`
            except BaseException:  # noqa: BLE001  # nobody else would see it
                self.violation = self.violation or f"{process.name}/{name} ended by {traceback.format_exc()}"
            process.threads.remove(thread)
            self._go_on()

        thread = Thread(name, process, run)
        process.threads.append(thread)
        self._push(self.now, thread)
        return thread

    def point(self, likely: float = 1.0) -> None:
        """Somebody else may go on here; a stall is so many times as `likely` as at most points."""
        thread = self.current
        if not thread.process.alive:
            raise Killed
        self.steps += 1
        chance, temper = self._random(), self.temper
        if chance >= temper.stall_probability * likely:
            when = self.now + temper.quick * chance
        else:
            when = self.now + temper.longest_stall * 10 ** (-3 * self._random())
        heap = self._heap
        if heap and heap[0][0] < when:
            self._push(when, thread)
            self._go_on()
        elif self.steps >= self.most:
            self._go_on()
        else:
            self.now = when

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass."""
        thread = self.current
        if not thread.process.alive:
            raise Killed
        self.steps += 1
        self._push(self.now + max(0.0, seconds), thread)
        self._go_on()

    def block(self, seconds: float | None) -> bool:
        """Wait until `wake` is called for this thread, or so long by its own clock; returns whether it was woken."""
        thread = self.current
        if not thread.process.alive:
            raise Killed
        self.steps += 1
        thread.token += 1
        thread.woken = False
        if seconds is not None:
            self._push(self.now + max(0.0, seconds) / thread.process.machine.rate, thread)
        self._go_on()
        return thread.woken

    def wake(self, thread: Thread) -> None:
        """Let a thread that blocks go on."""
        if thread.process.alive and not thread.woken:
            thread.token += 1
            thread.woken = True
            self._push(self.now + self.temper.quick * self._random(), thread)

    def local_time(self) -> float:
        """What the clock of the running thread's machine shows, in seconds."""
        machine = self.current.process.machine
        return machine.offset + machine.rate * self.now

    def kill(self, process: Process) -> None:
        """End a process at the points where its threads are."""
        process.alive = False
        killer = self.current
        for thread in list(process.threads):
            if thread is killer:
                continue
            self.current = thread
            thread.greenlet.parent = getcurrent()
            with suppress(Killed):  # from one that had not begun
                thread.greenlet.throw(Killed)
        process.threads.clear()
        process.parked.clear()
        self.current = killer

    def resume(self, process: Process) -> None:
        """Let a process that was stopped go on."""
        process.paused = False
        for thread, token in process.parked:
            if thread.token == token:
                self._push(self.now + self.temper.quick * self._random(), thread)
        process.parked.clear()

    def _push(self, when: float, thread: Thread) -> None:
        self._order += 1
        heappush(self._heap, (when, self._order, thread, thread.token))

    def _go_on(self) -> None:
        """Switch to the thread that is due first."""
        if self.violation is not None or self.finished or self.steps >= self.most:
            self._hub.switch()
            return
        heap, me = self._heap, self.current
        while heap:
            when, _, thread, token = heappop(heap)
            process = thread.process
            if thread.token != token or not process.alive:
                continue
            if process.paused:
                process.parked.append((thread, token))
                continue
            if when > self.now:
                self.now = when
            if thread is not me:
                self.current = thread
                thread.greenlet.switch()
            return
        self.violation = "nothing goes on any more"
        self._hub.switch()
