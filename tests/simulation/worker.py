"""One worker: the real vault, memory, nodes and queue, with a point wherever they touch what is shared."""

from __future__ import annotations

import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from unittest import mock

from kms.errors import IntegrityFailure, Unavailable
from kms.key_cache import KeyCache
from kms.keys.model import Alias
from kms.secret import Secret
from kms.vault import change, host, memory, names, nodes, queue, store, tables, transaction
from kms.vault.head import Head
from kms.vault.history import Seen
from kms.vault.host import _COUNTER, EPOCH, Host
from kms.vault.keyset import Keyset
from kms.vault.memory import Cache, Cell, Memory
from kms.vault.queue import Group
from kms.vault.rows import Mount
from kms.vault.sealing import DerivedKeys
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot
from tests.simulation import current, waiting
from tests.simulation.database import Cursor, Database, Engine, Statements
from tests.simulation.scheduler import Machine, Process

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(milliseconds=250)
THINGS = ("a", "b", "c")
_FILE_BYTES = 4096
_HOT = 6.0  # threads stall more often just before they write what others look at
_WORDS = 32
_COUNTERS = slice(8, _WORDS)


class Words:
    """The mapped words of a machine's file. Neither the epoch in it nor the newest of what was seen goes back."""

    def __init__(self) -> None:
        self.values = [0] * _WORDS
        self._newest = 0

    def __getitem__(self, at: int | slice) -> int | list[int]:
        current.scheduler.point()
        return self.values[at]

    def __setitem__(self, at: int, value: int) -> None:
        scheduler = current.scheduler
        scheduler.point(_HOT)
        before, self.values[at] = self.values[at], value
        if at == EPOCH:
            scheduler.say("announces to its host epoch", value)
            current.announced(value)
            if value < before:
                scheduler.fail(f"the epoch of a host went back from {before} to {value}")
            return
        scheduler.say("tells its host that it saw change", value if at == _COUNTER else Seen.in_word(value).counter)
        newest = max(self.values[_COUNTERS])  # the word of the releases before may go back
        if newest < self._newest:
            gone = Seen.in_word(self._newest)
            scheduler.fail(f"what a host has seen went back from {gone} to {Seen.in_word(newest)}")
        self._newest = newest

    def lose(self, kept: list[int]) -> None:
        """The machine lost its power, and only what was `kept` is there again."""
        self.values[:] = kept
        self._newest = max(self.values[_COUNTERS])


class Shared:
    """What the processes of a machine share: the file, and its locks.

    `saw` is the newest counter that it had the time to remember, `saw_written_back` what survives a loss of power.
    Nobody has the time to beat until `beats_from`.
    """

    def __init__(self, machine: Machine, node_id: str) -> None:
        self.machine = machine
        machine.node_id = node_id
        self.started = 0
        self.beats_from = 0.0
        self.distrusted_at: float | None = None
        self.written_back = [0] * _WORDS
        self.saw = self.saw_written_back = 0
        self.words = Words()
        self.map = bytearray(_FILE_BYTES)
        self.turn = waiting.FileLock("the turn of the host")
        self.waiting_room = waiting.FileLock("the waiting room of the host")


class SharedHost(Host):
    """The real `Host` on a simulated file."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.words = shared.words  # type: ignore[assignment]
        self._map = shared.map  # type: ignore[assignment]
        self.node_id = shared.machine.node_id
        self._seeing = waiting.Lock()  # type: ignore[assignment]
        shared.started += 1
        self._word = _COUNTERS.start + shared.started % (_WORDS - _COUNTERS.start)
        self._turn = shared.turn  # type: ignore[assignment]
        self._waiting_room = shared.waiting_room  # type: ignore[assignment]

    def _own_word(self) -> int:  # type: ignore[override]
        return self._word

    def saw(self, seen: Seen) -> None:
        """Remember it, and for the checks also apart from what is checked."""
        super().saw(seen)
        self.shared.saw = max(self.shared.saw, seen.counter)

    @property
    def distrust(self) -> str | None:
        """Why the database is not trusted."""
        current.scheduler.point()
        return Host.distrust.fget(self)  # type: ignore[attr-defined]

    @distrust.setter
    def distrust(self, reason: str | None) -> None:
        current.scheduler.point()
        current.scheduler.say("trusts the database" if reason is None else "DISTRUSTS the database", reason)
        self.shared.distrusted_at = None if reason is None else current.scheduler.now
        Host.distrust.fset(self, reason)  # type: ignore[attr-defined]


class WatchedMemory(Memory):
    """The real `Memory`; its epoch never goes back."""

    @property  # type: ignore[override]
    def epoch(self) -> int:
        """What it has caught up with."""
        current.scheduler.point()
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        current.scheduler.point(_HOT)
        if value < getattr(self, "_epoch", 0):
            current.scheduler.fail(f"the epoch of a worker went back from {self._epoch} to {value}")
        if value != getattr(self, "_epoch", None):
            current.scheduler.say("has caught up with epoch", value)
        self._epoch = value

    @property  # type: ignore[override]
    def ends(self) -> float:
        """Until when it may answer."""
        current.scheduler.point()
        return self._ends

    @ends.setter
    def ends(self, value: float) -> None:
        current.scheduler.point(_HOT)
        scheduler = current.scheduler
        scheduler.say("has a lease until (by its clock)", f"{value:.6f}")
        is_new, self._ends = value > getattr(self, "_ends", 0.0), value
        if is_new:
            current.leased(scheduler.current.process, self._epoch)


class WatchedCell(Cell):
    """The real `Cell`, with a point wherever it is looked at or switched off."""

    __slots__ = ("_on",)

    @property  # type: ignore[override]
    def on(self) -> bool:
        """Whether what rests on it is still good."""
        current.scheduler.point()
        return self._on

    @on.setter
    def on(self, value: bool) -> None:
        current.scheduler.point(_HOT)
        if not value:
            current.scheduler.say("switches off a cell")
        self._on = value


class Entries(OrderedDict[Any, Any]):
    """The entries of a cache, with a point wherever one is put in."""

    def __setitem__(self, key: Any, value: Any) -> None:
        current.scheduler.point(_HOT)
        super().__setitem__(key, value)


class _Sorted(set[str]):
    """A set in the same order in every process."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))


class WatchedGroup(Group):
    """The real `Group`; it knows of every node that is there when its turn begins."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.began = waiting.steady_seconds()
        self.committed = waiting.Future()  # type: ignore[assignment]
        self.outdated = _Sorted()
        connection: Any = self.first.connection
        others = {row[0] for row in connection.seen["nodes"].values()} - {connection.process.machine.node_id}
        if others and not self.others_alive:
            current.scheduler.fail("a change does not know that there is another node")


class Followed:
    """The list that a worker keeps in step with a table, as `kms.revocation` does: below which value each is over."""

    def __init__(self, vault: Vault, memory: Memory) -> None:
        self.below = dict.fromkeys(THINGS, 0)
        self._keys = SimpleNamespace(_revocations=self, _memory=memory)
        memory.follow(tables.aliases, self.follow)

    def follow(self, snapshot: Snapshot, _head: Head) -> None:
        """Read the list."""
        self.below = {row.alias: value_of(row) for row in snapshot.matching(Alias)}
        current.scheduler.say("follows the list", self.below)

    def allow(self, row: Mount) -> bool:
        """Whether the list agrees with a row."""
        return value_of(row) >= self.below[row.mount]

    def require_allowed(self, row: Mount) -> None:
        """Raise IntegrityFailure where it does not."""
        if not self.allow(row):
            raise IntegrityFailure(f"{row.mount} {value_of(row)} is over: the list says {self.below[row.mount]}.")

    def read(self, read: Any) -> Mount:
        """What `read` reads, if the list allows it; by the real code of the cache of keys."""
        return KeyCache._as_revoked(self._keys, read, lambda row: row)  # type: ignore[arg-type]


class Worker:
    """One worker process. Raises Unavailable where the database is away."""

    def __init__(self, process: Process, database: Database, shared: Shared) -> None:
        self.process, self.shared = process, shared
        self.vault = Vault(Engine(database, process), KEYS, LEASE, SharedHost(shared))  # type: ignore[arg-type]
        self.vault.glances = database.glances
        try:
            self.vault.require_newest()
        except IntegrityFailure as failure:
            self.vault.stop_trusting(failure.detail)
        self.memory = WatchedMemory(self.vault)
        self.things: Cache[str, Mount] = Cache(self.memory, 3)
        self.pairs: Cache[tuple[str, str], tuple[int, int]] = Cache(self.memory, 4)
        self.followed = Followed(self.vault, self.memory)
        self.last_used: dict[str, float] = {}
        self.last_changed = -1.0
        self.memory.start()

    def use(self, thing: str, *, looks_first: bool) -> int:
        """The value of a thing, from memory or the database, asked for in one of two ways. Raises Refusal."""
        if not looks_first:  # as `KeyCache.is_mount` does
            return value_of(self._thing(thing))
        self.memory.require()
        found = self.things.find(thing)
        return value_of(found if found is not None else self._thing(thing))

    def use_pair(self, one: str, other: str) -> tuple[int, int]:
        """What is made of two things, each remembered by itself. Raises Refusal."""
        self.memory.require()
        found = self.pairs.find((one, other))
        if found is not None:
            return found
        since = self.memory.epoch
        both = value_of(self._thing(one)), value_of(self._thing(other))
        current.scheduler.point()
        return self.pairs.get((one, other), lambda: (both, (names.of_mount(one), names.of_mount(other))), since)

    def listed(self, thing: str) -> int:
        """Below which value a thing is over, as the list says. Raises Refusal."""
        self.memory.require()
        return self.followed.below[thing]

    def _thing(self, thing: str) -> Mount:
        return self.things.get(
            thing, lambda: (self.followed.read(lambda: self._read(thing)), (names.of_mount(thing),))
        )

    def _read(self, thing: str) -> Mount:
        with self.vault.read() as snapshot:
            found = snapshot.find(Mount, thing)
        assert found is not None
        current.scheduler.say(f"has read {thing}", value_of(found))
        return found


def value_of(row: Mount | Alias) -> int:
    """The value of a thing, or what the list says of it."""
    return (row.created_at - NOW) // timedelta(seconds=1)


def of_value(value: int) -> datetime:
    """How it is stored."""
    return NOW + timedelta(seconds=value)


_ROOT_KEY = Secret(b"simulation".ljust(32, b"!"))
KEYS = DerivedKeys(Keyset.of_one_root_key(_ROOT_KEY, b"simulated vault!"), b"simulated vault!")
_LOG = SimpleNamespace(
    warning=lambda text, reason="": current.scheduler.say(text, reason),
    critical=lambda text, reason="": current.scheduler.say(text, reason),
    exception=lambda text: current.scheduler.fail(f"{text}: {traceback.format_exc()}"),
)
_SILENT = SimpleNamespace(get_logger=lambda: _LOG)
_THREADS = SimpleNamespace(Lock=waiting.Lock, Event=waiting.Event, Condition=waiting.Condition, Thread=waiting.Thread)


@contextmanager
def real_code_on_simulated_ground() -> Iterator[None]:
    """Put the scheduler, the clock and the database under the vault's code, as a context manager."""
    statements = Statements()
    clock = {"steady_seconds": waiting.steady_seconds}
    patches = [
        mock.patch.multiple(
            memory, threading=_THREADS, structlog=_SILENT, Cell=WatchedCell, OrderedDict=Entries, **clock
        ),
        mock.patch.multiple(host, _COUNTERS=_COUNTERS),
        mock.patch.multiple(nodes, _BEAT_SECONDS=0.4, _SILENT_SECONDS=1.5, **clock),
        mock.patch.multiple(queue, threading=_THREADS, **clock),
        mock.patch.multiple(
            store, structlog=_SILENT, Group=WatchedGroup, time=SimpleNamespace(sleep=waiting.sleep), **clock
        ),
        mock.patch.multiple(store, writes_to_its_files=lambda _: True),
        mock.patch.multiple(transaction, MOST_CHANGES_NAMED=6, statements_for=lambda _: statements, cursor_of=Cursor),
        mock.patch.multiple(change, MOST_CHANGES_NAMED=6, _CHANGES_FORGOTTEN_AT_ONCE=3, cursor_of=Cursor),
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def restarted(process: Process, database: Database, shared: Shared) -> Worker | None:
    """A worker in a new process, once the database lets it start; None where it does not yet."""
    with suppress(Unavailable):
        return Worker(process, database, shared)
    return None
