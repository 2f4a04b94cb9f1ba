"""What stands in the place of `threading`, `Future`, `time` and file locks: the same promises, on the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kms.errors import Unavailable
from tests.simulation import current
from tests.simulation.scheduler import Process
from tests.simulation.scheduler import Thread as Logical

_PATIENCE_SECONDS = 10.0


def steady_seconds() -> float:
    """The clock of the machine on which the running thread is."""
    world = current.scheduler
    world.point()
    return world.local_time()


def sleep(seconds: float) -> None:
    """As `time.sleep`, by the clock of the machine."""
    current.scheduler.say("sleeps", f"{seconds:.4f} s")
    current.scheduler.block(seconds)


class Lock:
    """As `threading.Lock`."""

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting: list[Logical] = []

    def __enter__(self) -> None:
        world = current.scheduler
        world.point()
        while self._is_taken:
            self._waiting.append(world.current)
            world.block(None)
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False
        if self._waiting:
            current.scheduler.wake(self._waiting.pop(0))


class Condition(Lock):
    """As `threading.Condition`."""

    def __init__(self) -> None:
        super().__init__()
        self._sleeping: list[Logical] = []

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until `predicate`, at most so many seconds."""
        world = current.scheduler
        until = world.local_time() + timeout
        while not (result := predicate()):
            left = until - world.local_time()
            if left <= 0:
                break
            me = world.current
            self._sleeping.append(me)
            self.__exit__()
            if not world.block(left):
                self._sleeping.remove(me)
            self.__enter__()
        return result

    def notify_all(self) -> None:
        """Wake everybody who waits."""
        sleeping, self._sleeping = self._sleeping, []
        for thread in sleeping:
            current.scheduler.wake(thread)


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Logical] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        current.scheduler.point()
        return self._is_set

    def set(self) -> None:
        """Wake everybody who waits."""
        current.scheduler.point()
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for thread in waiting:
            current.scheduler.wake(thread)

    def clear(self) -> None:
        """Take it back."""
        current.scheduler.point()
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most so many seconds."""
        world = current.scheduler
        world.point()
        if not self._is_set:
            me = world.current
            self._waiting.append(me)
            if not world.block(timeout):
                self._waiting.remove(me)
        return self._is_set


class Thread:
    """As `threading.Thread`; it belongs to the process of the thread that starts it."""

    def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._target, self._name = target, name

    def start(self) -> None:
        """Begin."""
        world = current.scheduler
        world.spawn(self._name, world.current.process, self._target)

    def is_alive(self) -> bool:
        """Nobody stops a memory here: processes are killed."""
        return False


class Future:
    """As `concurrent.futures.Future`."""

    def __init__(self) -> None:
        self._result: Any = None
        self._fault: BaseException | None = None
        self._done = Event()

    def set_result(self, result: Any) -> None:
        """End it well."""
        self._result = result
        self._done.set()

    def set_exception(self, fault: BaseException) -> None:
        """End it otherwise."""
        self._fault = fault
        self._done.set()

    def result(self) -> Any:
        """Wait for it."""
        self._done.wait()
        if self._fault is not None:
            raise self._fault
        return self._result


class FileLock:
    """A lock between the processes of a machine, which the kernel releases when its holder dies."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.holder: Process | None = None
        self._waiting: list[Logical] = []

    def acquire(self) -> None:
        """Take it. Raises Unavailable."""
        world = current.scheduler
        world.point()
        until = world.local_time() + _PATIENCE_SECONDS
        me = world.current
        while self.holder is not None:
            self._waiting.append(me)
            woken = world.block(until - world.local_time())
            if not woken:
                self._waiting.remove(me)
                raise Unavailable("Another process is writing and does not end. Try again.", retry_after=1)
        self.holder = me.process
        world.say(f"takes {self.name}")

    def release(self) -> None:
        """Give it back. What a dead process held the kernel has released already (`forget`)."""
        if current.scheduler.current.process.alive:
            current.scheduler.point()
            self._give_back()

    def forget(self, process: Process) -> None:
        """A process died."""
        self._waiting = [each for each in self._waiting if each.process is not process]
        if self.holder is process:
            self._give_back()

    def _give_back(self) -> None:
        self.holder = None
        if self._waiting:
            current.scheduler.wake(self._waiting.pop(0))
