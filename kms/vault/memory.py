"""The cache of a worker, and when it may answer from it.

Each cached value depends on names (see `names`). A name has one small cell, which is on; when a change outdates the
name its cell is switched off, and every value that depends on it becomes invalid. Before a worker answers from the
cache, two conditions must hold. `Memory.require` checks both:

- The worker has caught up with every epoch that a process of this host has announced (see `host`).
- The worker holds a lease on the database. A read of the head gives a lease, counted from the moment at which the
  read *begins*, if this host was among the nodes. While there are other nodes, a change waits for that long before it
  answers (see `nodes`).

docs/decisions/0016 shows why a use that begins after a change has answered never acts on the state before it.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from sqlalchemy import Table

from kms.clock import steady_seconds
from kms.errors import IntegrityFailure, Refusal, Unavailable
from kms.vault.head import ACCEPTED_BEYOND, Head, require_not_retired
from kms.vault.history import Seen
from kms.vault.host import EPOCH
from kms.vault.names import EVERYTHING

if TYPE_CHECKING:
    from kms.vault.store import Vault
    from kms.vault.transaction import Snapshot

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Names = tuple[str, ...]
Follower = Callable[["Snapshot", Head], None]
"""Called with a head under which its table is another. Raises IntegrityFailure where that does not fit."""

_RENEWALS_PER_LEASE = 3
_SHORTEST_PAUSE_SECONDS = 0.02
_PATIENCE_SECONDS = 0.5
_LONGEST_REFRESH_SECONDS = 5.0


class Cell:
    """Whether what rests on a name is still good."""

    __slots__ = ("__weakref__", "on")

    def __init__(self) -> None:
        self.on = True


class Memory:
    """What one worker remembers, kept fresh by a thread of its own from `start` to `stop`.

    `epoch` is what it has caught up with; the lease may be relied on while `steady_seconds()` is before `ends`.
    `failures` counts the times that it could not be renewed.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.words = vault.host.words
        self._seconds = vault.lease_seconds
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self.ends = 0.0
        self.epoch = 0
        self._read_at = 0.0
        self._head: Head | None = None
        self._sealed = b""
        self._cells: weakref.WeakValueDictionary[str, Cell] = weakref.WeakValueDictionary()
        self.caches: list[Cache[Any, Any]] = []
        self.failures = 0
        self._followers: dict[str, Follower] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._renew_forever, name="memory", daemon=True)
        vault.memories.append(self)

    def follow(self, table: Table, follower: Follower) -> None:
        """Have `follower` called whenever the digest of `table` changes. Call this before `start`."""
        self._followers[str(table.name)] = follower

    def start(self) -> None:
        """Take the first lease and keep renewing it."""
        self._thread.start()

    def stop(self) -> None:
        """Let the lease end."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        with suppress(ValueError):
            self._vault.memories.remove(self)

    @property
    def held(self) -> bool:
        """Whether answers from memory are allowed at this moment."""
        return steady_seconds() < self.ends and self.words[EPOCH] <= self.epoch

    def require(self) -> None:
        """Wait until answers from memory are allowed, and return.

        Raises Unavailable after waiting too long, and IntegrityFailure if the database is not trusted.
        """
        if self.words[EPOCH] > self.epoch or steady_seconds() >= self.ends:
            self.catch_up()

    def catch_up(self) -> None:
        """What `require` does where something is new, or the lease is over."""
        self._wake.set()  # the thread reads: a database that is stopped must not stop whoever asks
        with self._changed:
            host, patience = self._vault.host, max(self._seconds, _PATIENCE_SECONDS)
            if host.distrust is None and self._changed.wait_for(lambda: self.held, timeout=patience):
                return
        reason = host.distrust
        if reason is not None:
            raise IntegrityFailure(f"{reason} No key is used until an operator runs `python -m kms vault accept`.")
        raise Unavailable("The database cannot be reached; keys are not used unchecked.", retry_after=1)

    def standing(self, epoch: int, names: Names) -> Standing | None:
        """The Standing of a value that rests on `names` and was read after `epoch`; None if the epoch has moved."""
        with self._changed:
            return Standing(tuple(map(self._cell, names)), epoch) if epoch == self.epoch else None

    def refresh(self) -> None:
        """Return once the head was read after this was called. Raises Unavailable."""
        asked = steady_seconds()
        self._wake.set()
        with self._changed:
            if not self._changed.wait_for(lambda: self._read_at >= asked, timeout=_LONGEST_REFRESH_SECONDS):
                raise Unavailable("The database cannot be reached; keys are not used unchecked.", retry_after=1)

    def committed(self, head: Head, sealed: bytes, names: Collection[str]) -> None:
        """Take over `head`, which this process has just committed, without reading it; `names` are those it outdates.

        Does nothing if there were other commits since the last read, or if a followed table changed.
        """
        with self._changed:
            before = self._head
            is_next = before is not None and head.counter == before.counter + 1
            if not is_next or any(not _same(before, head, table) for table in self._followers):
                return  # it is caught up with as everybody else's
            self._switch_off(names)
            self._head, self._sealed = head, sealed
            self.epoch = max(self.epoch, head.epoch)

    def renew(self) -> None:
        """Read the head once and catch up with it. Raises Unavailable or IntegrityFailure."""
        host = self._vault.host
        began = steady_seconds()
        # What is known now must be in what is read next.
        known, seen, own = host.counter, host.seen, self._head.seen if self._head else None
        oldest = self._vault.derived_keys.oldest
        if self._renewed_at_a_glance(began, known, seen):
            return
        with self._vault.read() as snapshot:
            sealed = snapshot.sealed_head()
            require_not_retired(sealed, oldest)
            head = (
                self._head if self._head and sealed == self._sealed else Head.unsealed(snapshot.derived_keys, sealed)
            )
            head.require_not_before(known, seen, own)
            present = self._vault.nodes.look(snapshot)
            is_new = head is not self._head
            names = snapshot.outdated_since(self.epoch, head.epoch) if is_new else []
            if is_new:
                for table, follower in self._followers.items():
                    if not _same(self._head, head, table):
                        follower(snapshot, head)
        if not present:
            with self._vault.change() as change:
                self._vault.before_joining(change)
                self._vault.nodes.join(change)
            self._wake.set()
            return
        with self._changed:
            current = self._head
            if current is not None and head.counter == current.counter and sealed != self._sealed:
                raise IntegrityFailure("The database was put back, and has another history since.")
            if names is None:
                self._forget_everything()
            else:
                self._switch_off(names)
            if current is None or head.counter > current.counter:
                self._head, self._sealed = head, sealed
            self.epoch = max(self.epoch, head.epoch)
            host.saw(head.seen)
            if host.distrust is not None:
                return  # another thread has just found something
            self.ends = max(self.ends, began + self._seconds)
            self._read_at = began
            self._changed.notify_all()

    def _renewed_at_a_glance(self, began: float, known: int, seen: Seen) -> bool:
        """Renew the lease if nothing has changed, and say whether. At `began` the host knew `known` and `seen`."""
        glance = self._vault.glance()
        if glance is None:
            return False
        sealed, present = glance
        with self._changed:
            if not present or sealed != self._sealed or self._head is None:
                return False
            self._head.require_not_before(known, seen)
            if self._vault.host.distrust is None:
                self.ends, self._read_at = max(self.ends, began + self._seconds), began
                self._changed.notify_all()
        return True

    def _was_accepted_elsewhere(self) -> bool:
        """Whether an operator has accepted the database on another node; then this host trusts it again too."""
        with self._vault.read() as snapshot:
            head = snapshot.head()
        if head.counter < self._vault.host.counter + ACCEPTED_BEYOND // 2:
            return False
        self._vault.host.distrust = None
        return True

    def _cell(self, name: str) -> Cell:
        cell = self._cells.get(name)
        if cell is None:
            cell = self._cells[name] = Cell()
        return cell

    def _switch_off(self, names: Collection[str]) -> None:
        if EVERYTHING in names:
            self._forget_everything()
        for name in names:
            cell = self._cells.pop(name, None)
            if cell is not None:
                cell.on = False

    def _forget_everything(self) -> None:
        self._switch_off(list(self._cells))
        for cache in self.caches:
            cache.drop()

    def _renew_forever(self) -> None:
        while not self._stopping:
            self._wake.clear()
            began = steady_seconds()
            try:
                if self._vault.host.distrust is None or self._was_accepted_elsewhere():
                    self.renew()
                else:
                    self.ends = 0.0
            except IntegrityFailure as failure:
                self.failures += 1
                self._vault.stop_trusting(failure.detail)
            except Refusal as refusal:
                self.failures += 1
                structlog.get_logger().warning("lease not renewed", reason=refusal.detail)
            except Exception:  # noqa: BLE001  # without this thread the worker would refuse for ever
                self.failures += 1
                structlog.get_logger().exception("lease not renewed")
            # From one beginning to the next: a lease counts from there, and the answer may be long on its way.
            pause = began + self._seconds / _RENEWALS_PER_LEASE - steady_seconds()
            self._wake.wait(max(pause, _SHORTEST_PAUSE_SECONDS))


def _same(before: Head | None, head: Head, table: str) -> bool:
    return before is not None and before.digests.get(table) == head.digests.get(table)


class Standing:
    """Whether a cached value is still valid: the cells of its names, and the last epoch at which all were on."""

    __slots__ = ("_cells", "epoch")

    def __init__(self, cells: tuple[Cell, ...], epoch: int) -> None:
        self._cells, self.epoch = cells, epoch

    def holds(self, epoch: int) -> bool:
        """Whether the value is valid at `epoch`, which must be read before the call: cells go off before it moves."""
        if self.epoch != epoch:
            for cell in self._cells:
                if not cell.on:
                    return False
            self.epoch = epoch
        return True


class Cache(Generic[K, V]):
    """Remembered values by key, bounded, the least recently used forgotten first.

    `name` is what the metrics call it. `misses` counts what had to be read; to count hits would cost each use of a
    key something.
    """

    def __init__(self, memory: Memory, size: int, name: str = "") -> None:
        self.name = name
        self.misses = 0
        self._memory = memory
        self._size = size
        self._half = size // 2
        self._entries: OrderedDict[K, tuple[V, Standing]] = OrderedDict()
        memory.caches.append(self)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: K) -> V | None:
        """The remembered value of `key`, None where there is none; for whoever has called `Memory.require`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, standing = entry
        epoch = self._memory.epoch
        if standing.epoch != epoch and not standing.holds(epoch):  # the first is what `holds` asks first
            self._entries.pop(key, None)
            return None
        if len(self._entries) > self._half:  # before that nothing is forgotten
            with suppress(KeyError):  # another thread may have forgotten it; the value in hand is still good
                self._entries.move_to_end(key)
        return value

    def get(self, key: K, load: Callable[[], tuple[V, Names]], since: int | None = None) -> V:
        """As `find`, or what `load` reads now, with the names on which it rests.

        Where `load` makes it of something that was read before, `since` is the epoch from before that. Raises
        Unavailable, IntegrityFailure, and what `load` raises, which is not remembered.
        """
        self._memory.require()
        found = self.find(key)
        if found is not None:
            return found
        epoch = self._memory.epoch if since is None else since
        self.misses += 1
        value, names = load()
        standing = self._memory.standing(epoch, names)
        if standing is not None:
            self._entries[key] = value, standing
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
        return value

    def forget(self, key: K) -> None:
        """Forget one value."""
        self._entries.pop(key, None)

    def drop(self) -> None:
        """Forget everything."""
        self._entries.clear()
