"""The lease: for how long a worker may answer from memory (DESIGN section 6 in short).

A worker reads the epoch again and again. From the moment a read *begins* it may use what it has cached for the
length of the lease, if the epoch was the one it cached under; if it was another, everything cached is dropped
first. A change that takes something away waits, after its commit, for the length of the lease: by then every
worker has either read the new epoch or stopped answering.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog

from kms.clock import steady_seconds
from kms.errors import Refusal, Unavailable
from kms.vault.store import Vault

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_RENEWALS_PER_LEASE = 3
_PATIENCE_SECONDS = 0.5


class Lease:
    """Keeps a lease on the vault's epoch with a thread of its own, from `start` to `stop`.

    `epoch` may be relied on while `steady_seconds()` is before `ends`; `require` is the patient way to ask.
    """

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._seconds = vault.lease_seconds
        self._changed = threading.Condition()
        self.ends = 0.0
        self.epoch = 0
        self._caches: list[LeasedCache[Any, Any]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew_forever, name="lease", daemon=True)

    def start(self) -> None:
        """Take the first lease and keep renewing it."""
        self._thread.start()

    def stop(self) -> None:
        """Let the lease end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def held(self) -> bool:
        """Whether answers from memory are allowed at this moment."""
        return steady_seconds() < self.ends

    def require(self) -> int:
        """The epoch under a lease that is held now. Waits for one renewal, but not for ever; raises Unavailable."""
        if steady_seconds() >= self.ends:
            with self._changed:
                if not self._changed.wait_for(lambda: self.held, timeout=max(self._seconds, _PATIENCE_SECONDS)):
                    raise Unavailable("The database cannot be reached; keys are not used unchecked.", retry_after=1)
        return self.epoch

    def keep(self, epoch: int, store: Callable[[], None]) -> None:
        """Call `store` if nothing has changed since `epoch` was read; a stale value is never cached."""
        with self._changed:
            if epoch == self.epoch:
                store()

    def renew(self) -> None:
        """Read the epoch once. Raises Unavailable or IntegrityFailure."""
        began = steady_seconds()
        with self._vault.read() as snapshot:
            epoch = snapshot.epoch()
        with self._changed:
            if epoch < self.epoch:
                structlog.get_logger().critical("the epoch went back: the database was replaced or altered")
                return  # and let the lease end: nothing cached or read here can be trusted
            if epoch != self.epoch:
                for cache in self._caches:
                    cache.drop()
                self.epoch = epoch
            self.ends = began + self._seconds
            self._changed.notify_all()

    def _renew_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self.renew()
            except Refusal as refusal:
                structlog.get_logger().warning("lease not renewed", reason=refusal.detail)
            except Exception:  # noqa: BLE001  # without this thread the worker would refuse for ever
                structlog.get_logger().exception("lease not renewed")
            self._stopping.wait(self._seconds / _RENEWALS_PER_LEASE)


class LeasedCache(Generic[K, V]):
    """Values that may be used while the lease is held, bounded, the least recently used dropped first."""

    def __init__(self, lease: Lease, size: int) -> None:
        self._lease = lease
        self._size = size
        self._half = size // 2
        self._values: OrderedDict[K, V] = OrderedDict()
        lease._caches.append(self)

    def find(self, key: K) -> V | None:
        """The cached value of `key`; None where there is none, and without a lease."""
        if steady_seconds() >= self._lease.ends:  # first: what is found after it was good at this moment
            return None
        value = self._values.get(key)
        if value is not None and len(self._values) > self._half:  # before that nothing is dropped
            with suppress(KeyError):  # another thread may have dropped it; the value in hand is still good
                self._values.move_to_end(key)
        return value

    def get(self, key: K, load: Callable[[], V]) -> V:
        """As `find`, or what `load` reads now. Raises Unavailable without a lease."""
        epoch = self._lease.require()
        value = self.find(key)
        if value is not None:
            return value
        loaded = load()
        self._lease.keep(epoch, lambda: self._store(key, loaded))
        return loaded

    def forget(self, key: K) -> None:
        """Forget one value."""
        self._values.pop(key, None)

    def drop(self) -> None:
        """Forget everything."""
        self._values.clear()

    def _store(self, key: K, value: V) -> None:
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)
