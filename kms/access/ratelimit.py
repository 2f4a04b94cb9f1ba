"""Rate limits by class of operation, exact over the workers of a host, and over nodes while Redis is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from limits import RateLimitItem, parse
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from limits.strategies import FixedWindowRateLimiter

from kms.access.common_counters import CommonCounters, common_counters
from kms.access.lockout import network_of
from kms.access.model import Caller
from kms.access.shared_counters import SharedCounters  # registers its scheme with `limits`
from kms.config import Settings
from kms.enums import TextEnum
from kms.errors import RateLimited, StartError, Unavailable
from kms.files import private_directory

_WRONG_URL = "KMS_REDIS_URL must be redis://:PASSWORD@HOST:PORT/NUMBER, or rediss:// for TLS."
_REFUSED = "KMS_REDIS_URL: Redis refuses to count. Is the password right, and is it a primary?"
_NAMES_CACHED = 20_000
_Count = Callable[[int, int], int]  # seconds of a window, how much to count: how much there is in the window then


class RateClass(TextEnum):
    """What shares a limit. Before a caller is proven it counts by source address, afterwards by client."""

    AUTHENTICATE = "authenticate"
    GENERATE = "generate"
    MANAGE = "manage"
    USE = "use"
    PUBLIC = "public"


def storage_of(settings: Settings) -> tuple[str, dict[str, str]]:
    """Where counts are kept, as a URI and options of `limits`: a file of this host, and Redis where it is set."""
    own = _own_counters(settings)
    return common_counters(settings.redis_url, own) if settings.redis_url else (own, {})


def _own_counters(settings: Settings) -> str:
    # Twice as many processes as workers, for while new ones take over from old; and the one that starts them.
    processes = 2 * settings.workers + 2
    path = private_directory(settings.run_dir).absolute() / f"counters-{processes}"  # their number shapes the file
    return f"kms-counters://{path}?processes={processes}"


def identity(caller: Caller | None, source: str) -> str:
    """Who is counted: the client, or before there is one its network."""
    return f"client:{caller.client_id}" if caller else f"source:{network_of(source)}"


class RateLimits:
    """The limits in force. Where they are switched off every hit passes."""

    def __init__(self, settings: Settings) -> None:
        self._counters: dict[tuple[RateClass, str], _Count] = {}
        self.enabled = settings.rate_limit == "on"
        try:
            limits = {name: parse(getattr(settings, f"rate_limit_{name}")) for name in RateClass}
        except ValueError as error:
            raise StartError(f"A rate limit is wrong: {error}. Write for example 60/minute.") from None
        self._in_force = {name: (item, item.amount, item.get_expiry()) for name, item in limits.items()}
        uri, options = storage_of(settings)
        try:
            storage = storage_from_string(uri, wrap_exceptions=True, **options)
        except (ConfigurationError, ValueError):  # its text may repeat the URL with its password
            raise StartError(_WRONG_URL) from None
        self.strategy = FixedWindowRateLimiter(storage)

    @property
    def count_alone(self) -> bool:
        """Whether this node counts alone, because Redis is away."""
        storage = self.strategy.storage
        return isinstance(storage, CommonCounters) and storage.is_away

    def require_storage(self) -> None:
        """Raise StartError where counts cannot be kept, or Redis refuses to; that it is away is only said."""
        storage = self.strategy.storage
        try:
            if isinstance(storage, CommonCounters):
                storage.require_accepted()
            if storage.check():
                return
        except StorageError:
            raise StartError(_REFUSED) from None
        raise StartError("The rate limits cannot be counted.")

    def hit(self, rate_class: RateClass, who: str, cost: int = 1) -> None:
        """Count `cost` requests of `who`. Raises RateLimited, and Unavailable where the counts are out of reach."""
        if not self.enabled:
            return
        item, amount, seconds = self._in_force[rate_class]
        # As FixedWindowRateLimiter.hit does it, which builds the name anew each time.
        count = self._counters.get((rate_class, who)) or self._counter(item, rate_class, who)
        try:
            if count(seconds, cost) > amount:
                ends = self.strategy.get_window_stats(item, who, rate_class).reset_time
                raise limited(rate_class, item, ends)
        except (StorageError, OSError):
            raise Unavailable("The rate limits cannot be counted. Try again.", retry_after=1) from None

    def require(self) -> None:
        """Raise Unavailable where `hit` would, because counts are out of reach."""
        self.hit(RateClass.PUBLIC, "readyz", cost=0)

    def _counter(self, item: RateLimitItem, rate_class: RateClass, who: str) -> _Count:
        name, storage = item.key_for(who, rate_class), self.strategy.storage
        count = storage.counter(name).add if isinstance(storage, SharedCounters) else partial(storage.incr, name)
        if len(self._counters) >= _NAMES_CACHED:
            self._counters.clear()
        self._counters[rate_class, who] = count
        return count


def limited(rate_class: str, item: RateLimitItem, window_ends: float) -> RateLimited:
    """The refusal of a request over the limit `item`, whose window ends at `window_ends` (seconds since 1970)."""
    seconds = max(1, round(window_ends - time.time() + 0.5))
    return RateLimited(
        f"More than {item} of kind {rate_class}. Wait {seconds} s.",
        retry_after=seconds,
        limit=rate_class,
        amount=item.amount,
        window=item.get_expiry(),
    )
