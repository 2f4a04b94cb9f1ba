"""Changes one after the other, in the order in which they came, and several of them in one commit.

Whoever changes something takes a turn. While others of this process wait, the next one joins the open transaction
behind a savepoint, and one commit makes all of them durable; each answers after that commit. One that is refused goes
back to its savepoint and leaves the others as they are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from sqlalchemy import RootTransaction

from kms.clock import steady_seconds
from kms.errors import Unavailable
from kms.vault.change import Change
from kms.vault.head import Head

_PATIENCE_SECONDS = 10.0
_MOST_MEMBERS = 100
_LONGEST_SECONDS = 0.02


class Turns:
    """A fair queue of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def take(self) -> None:
        """Wait for a turn. Raises Unavailable after ten seconds."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            called = threading.Event()
            self._waiting.append(called)
        if called.wait(_PATIENCE_SECONDS):
            return
        with self._lock:
            if called.is_set():
                return
            self._waiting.remove(called)
        raise Unavailable("Too many changes are waiting. Try again.", retry_after=1)

    def hand_over(self, prepare: Callable[[], None]) -> bool:
        """If another thread waits, call `prepare` and pass the turn on to it; returns whether one did."""
        with self._lock:
            if not self._waiting:
                return False
            prepare()
            self._waiting.popleft().set()
            return True

    def pass_on(self) -> None:
        """End a turn."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


@dataclass
class Group:
    """The changes that are committed in one transaction. It began with the change `first`.

    `head` is the one that it goes on from, and once it is committed the one that it made. `held` is released at its
    end. `others_alive` says whether other nodes may hold leases. `committed` gets the time of the commit, or the
    exception that ended the group.
    """

    transaction: RootTransaction
    first: Change
    head: Head
    others_alive: bool
    held: ExitStack
    began: float = field(default_factory=steady_seconds)
    committed: Future[float] = field(default_factory=Future)
    members: int = 0
    outdated: set[str] = field(default_factory=set)
    entries: list[str] = field(default_factory=list)
    terms: dict[str, tuple[int, int]] = field(default_factory=dict)
    fault: BaseException | None = None
    oldest_root_key: int = 0

    @property
    def may_grow(self) -> bool:
        """Whether one more change may join."""
        is_young = steady_seconds() - self.began < _LONGEST_SECONDS
        return self.members > 0 and self.fault is None and self.members < _MOST_MEMBERS and is_young

    def join(self) -> Change:
        """The next change."""
        if not self.members:
            return self.first
        change = Change(self.first.connection, self.first.derived_keys)
        change.epoch, change.digests = self.head.epoch, self.head.digests
        change.outdated_before = frozenset(self.outdated)
        change.savepoint()
        return change

    def keep(self, change: Change) -> None:
        """Let a change stay."""
        self.members += 1
        self.outdated |= change.outdated
        self.entries += change.entries
        self.oldest_root_key = max(self.oldest_root_key, change.oldest_root_key)
        for name, (count, total) in change.terms.items():
            before = self.terms.get(name, (0, 0))
            self.terms[name] = before[0] + count, before[1] + total

    def undo(self, change: Change) -> None:
        """Take a change back. Where that cannot be done, none of the group stays; the first one is the group."""
        if self.members:
            try:
                change.back_to_savepoint()
            except BaseException as fault:  # noqa: BLE001  # told to every member
                self.fault = fault

    def next_head(self) -> Head:
        """The head once the group is committed."""
        head = self.head
        epoch = head.epoch + 1 if self.outdated else head.epoch
        last_entry = head.last_entry + len(self.entries)
        oldest = max(head.oldest_root_key, self.oldest_root_key)
        return Head(
            head.counter + 1,
            epoch,
            last_entry,
            head.digests_with(self.terms),
            head.lost_entries,
            oldest,
            head.switches,
            head.history_from,
        )

    def close(self, fault: BaseException | None = None) -> None:
        """Let go of everything, and tell the members how it ended."""
        with suppress(Exception):
            self.transaction.close()  # undoes what was not committed
        with suppress(Exception):
            self.held.close()
        if fault is None:
            self.committed.set_result(steady_seconds())
        else:
            self.committed.set_exception(fault)
