"""How many messages a key version has protected, for types whose nonces are drawn from 96 bits.

A worker claims messages in blocks, in a transaction, before it uses them: after a crash too many were counted,
never too few. Halfway to the limit the key is made due for rotation; at the limit the version refuses.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace

from kms.clock import Clock
from kms.errors import KeyExpired
from kms.keys.model import Key, KeyState, KeyVersion
from kms.vault.rows import MessageCount
from kms.vault.store import Vault

_BLOCK = 1 << 16
_VERSIONS_COUNTED = 100_000


class MessageQuota:
    """What this worker has claimed and not used yet."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock
        self._left: defaultdict[tuple[bytes, int], int] = defaultdict(int)
        self._counting = threading.Lock()
        self._claiming = threading.Lock()

    def claim(self, key: Key, version: int, limit: int, messages: int = 1) -> bool:
        """Count `messages`, fewer than a block, towards `limit`, the number that one version may protect.

        Returns True if this had to wait for the database; the caller must then repeat its checks. Raises KeyExpired
        if the limit is reached, and Unavailable.
        """
        if self._took(key.uid, version, messages):
            return False
        with self._claiming:
            if self._took(key.uid, version, messages):
                return True
            self._claim(key, version, limit)
            with self._counting:
                if len(self._left) > _VERSIONS_COUNTED:
                    self._left.clear()  # they count as used
                self._left[key.uid, version] += _BLOCK - messages
        return True

    def _took(self, uid: bytes, version: int, messages: int) -> bool:
        with self._counting:
            if self._left[uid, version] >= messages:
                self._left[uid, version] -= messages
                return True
        return False

    def _claim(self, seen: Key, version: int, limit: int) -> None:
        with self._vault.change() as change:
            before = change.find(MessageCount, seen.uid, version)
            claimed = (before.claimed if before else 0) + _BLOCK
            if claimed > limit:
                raise KeyExpired(
                    f"Version {version} of {seen.key_id} has protected {limit} messages. Rotate the key."
                )
            after = MessageCount(seen.uid, version, claimed)
            if before is None:
                change.insert(after)
            else:
                change.replace(before, after)
            key = change.find(Key, seen.uid)
            now = self._clock()
            latest = change.find(KeyVersion, seen.uid, version)
            if key is None or key.latest_version != version or latest is None or latest.state is not KeyState.ACTIVE:
                return
            if claimed > limit // 2 and key.origin.is_renewable:
                due = min(key.next_rotation_at or now, now)
                change.replace(key, replace(key, next_rotation_at=due))
