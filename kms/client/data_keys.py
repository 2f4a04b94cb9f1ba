"""Data keys that are kept for a while, so that not every message asks the service."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from kms.client.uses import DataKey


@dataclass(frozen=True)
class Limits:
    """How long a data key is reused: to encrypt at most so many messages and bytes, and no longer than `age`.

    For up to `age` a key is still used here after it was revoked. `kept` is how many data keys are cached to decrypt.
    """

    messages: int = 1000
    bytes: int = 1 << 30
    age: timedelta = timedelta(minutes=5)
    kept: int = 1000


NOTHING_KEPT = Limits(messages=1, age=timedelta(0), kept=0)
"""Each message has a data key of its own, and each decryption asks the service."""


@dataclass
class _Encrypting:
    key: DataKey
    ends_at: float
    messages: int = 0
    bytes: int = 0


class DataKeyCache:
    """Data keys of one key of the service, by the context that they are bound to; for any number of threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._guard = threading.Lock()
        self._encrypting: dict[bytes, _Encrypting] = {}
        self._decrypting: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._clearings = 0

    def to_encrypt(self, context: bytes, length: int, make: Callable[[], DataKey]) -> DataKey:
        """A data key for a message of so many bytes: one that is kept, or what `make` gives."""
        now = time.monotonic()
        with self._guard:
            found = self._encrypting.get(context)
            if found is not None and self._is_good_for(found, length, now):
                found.messages += 1
                found.bytes += length
                return found.key
            clearings = self._clearings
        made = _Encrypting(make(), now + self._limits.age.total_seconds(), 1, length)
        with self._guard:
            self._forget_old(now)
            if clearings == self._clearings:
                self._encrypting[context] = made
        return made.key

    def to_decrypt(self, wrapped_key: bytes, context: bytes, unwrap: Callable[[], bytes]) -> bytes:
        """The data key that is encrypted as `wrapped_key` for `context`: one that is kept, or what `unwrap` gives."""
        name, now = len(context).to_bytes(2) + context + wrapped_key, time.monotonic()
        with self._guard:
            key, ends_at = self._decrypting.get(name, (b"", 0.0))
            if key and now < ends_at:
                self._decrypting.move_to_end(name)
                return key
            clearings = self._clearings
        key = unwrap()
        with self._guard:
            self._forget_old(now)
            if clearings != self._clearings:
                return key
            self._decrypting[name] = key, now + self._limits.age.total_seconds()
            self._decrypting.move_to_end(name)
            while len(self._decrypting) > self._limits.kept:
                self._decrypting.popitem(last=False)
        return key

    def clear(self) -> None:
        """Forget them all, such as when a key was revoked."""
        with self._guard:
            self._clearings += 1  # what is under way is not kept either
            self._encrypting.clear()
            self._decrypting.clear()

    def _is_good_for(self, found: _Encrypting, length: int, now: float) -> bool:
        limits = self._limits
        return now < found.ends_at and found.messages < limits.messages and found.bytes + length <= limits.bytes

    def _forget_old(self, now: float) -> None:
        for context in [each for each, kept in self._encrypting.items() if now >= kept.ends_at]:
            del self._encrypting[context]
        for name in [each for each, (_, ends_at) in self._decrypting.items() if now >= ends_at]:
            del self._decrypting[name]
