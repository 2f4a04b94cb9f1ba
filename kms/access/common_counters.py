"""Counters that all nodes share on a Redis or Valkey, and each node's own while that is away.

To refuse everybody while Redis is away would make it one more thing without which no key is used; not to count would
let secrets be guessed without a limit. So a node then counts alone, exactly over its workers (`shared_counters`): a
client may have its limit once at each node. A thread asks every second whether Redis is back, so that only the
requests that notice the outage wait for it, and each of them no longer than `_PATIENCE_SECONDS`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from limits.errors import ConfigurationError, StorageError
from limits.storage import Storage, storage_from_string
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from kms.access.shared_counters import SharedCounters

SCHEME = "kms-common"
_PATIENCE_SECONDS = 0.5
_ASKED_EVERY_SECONDS = 1.0
_ONE_SERVER = ("redis:", "rediss:", "redis+unix:")

T = TypeVar("T")


class CommonCounters(Storage):
    """Fixed windows at the server `common`; in the file `own` (a URI of `SharedCounters`) while it is away."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012  # the library declares it so

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: str | float | bool) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._link = _link(str(options["common"]))
        self._own = SharedCounters(str(options["own"]), wrap_exceptions=True)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong with the node's own counters, when both are out of reach."""
        return OSError

    @property
    def is_away(self) -> bool:
        """Whether this node counts alone now."""
        return self._link.is_away

    def require_accepted(self) -> None:
        """Raise StorageError where the server is there and refuses what we ask: waiting would not help."""
        self._link.require_accepted()

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add `amount` to the counter, starting a window of `expiry` seconds where none is open."""
        return self._counted(lambda storage: storage.incr(key, expiry, amount))

    def get(self, key: str) -> int:
        """The count of the open window, or 0."""
        return self._counted(lambda storage: storage.get(key))

    def get_expiry(self, key: str) -> float:
        """When the open window ends, in seconds since 1970."""
        return self._counted(lambda storage: storage.get_expiry(key))

    def clear(self, key: str) -> None:
        """Close the window."""
        self._counted(lambda storage: storage.clear(key))

    def reset(self) -> int | None:
        """Not offered: one node must not forget the counts of all."""
        return None

    def check(self) -> bool:
        """Whether counts can be kept, here or there; notices where the server is away."""
        return self._link.ask() or self._own.check()

    def _counted(self, count: Callable[[Storage], T]) -> T:
        if not self._link.is_away:
            try:
                return count(self._link.storage)
            except StorageError as error:
                self._link.lost(error)
        return count(self._own)


class _Link:
    """The way to the server, of one process."""

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {}
        if url.startswith(_ONE_SERVER):
            options = {
                "socket_timeout": _PATIENCE_SECONDS,
                "socket_connect_timeout": _PATIENCE_SECONDS,
                "retry": Retry(NoBackoff(), 0),
            }
        storage = storage_from_string(url, wrap_exceptions=True, **options)
        if not isinstance(storage, Storage):  # one for asyncio
            raise ConfigurationError(url)
        self.storage = storage
        self.is_away = False
        self._changing = threading.Lock()
        self._pause = threading.Event()  # never set

    def ask(self) -> bool:
        """Whether the server is there."""
        try:
            self._try()
        except StorageError as error:
            self.lost(error)
            return False
        return True

    def require_accepted(self) -> None:
        """Raise StorageError where the server refuses us."""
        try:
            self._try()
        except StorageError as error:
            if isinstance(error.storage_error, AuthenticationError | ResponseError):
                raise

    def _try(self) -> None:
        self.storage.incr("is it there", 1)  # a count, not a question: a replica or a full server would answer that

    def lost(self, error: StorageError) -> None:
        """Count alone from now on, until the server is back."""
        with self._changing:
            if self.is_away:
                return
            self.is_away = True
        # The name of the fault only: its text may repeat the address with its password.
        structlog.get_logger().warning(
            "RATE LIMITS COUNT PER NODE: Redis cannot be used", fault=type(error.storage_error).__name__
        )
        threading.Thread(target=self._wait_until_back, name="redis", daemon=True).start()

    def _wait_until_back(self) -> None:
        while True:
            self._pause.wait(_ASKED_EVERY_SECONDS)
            try:
                self._try()
            except StorageError:
                continue
            self.is_away = False
            structlog.get_logger().warning("rate limits are counted over all nodes again")
            return


def common_counters(redis_url: str, own: str) -> tuple[str, dict[str, str]]:
    """The URI and the options by which `limits` and Flask-Limiter make one; `own` is a URI of `SharedCounters`."""
    return f"{SCHEME}:///", {"common": redis_url, "own": own}


def _link(url: str) -> _Link:
    """The one link of this process: two would each find out, and say, that the server is away."""
    with _opening:
        mine = (url, os.getpid())
        if mine not in _links:
            _links[mine] = _Link(url)
        return _links[mine]


_opening = threading.Lock()
_links: dict[tuple[str, int], _Link] = {}
