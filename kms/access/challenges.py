"""Challenges that authenticators sign: nothing is stored of one before it is used, and each is used once.

A challenge is 16 random bytes ‖ the moment it was made (8 bytes, microseconds since 1970) ‖ HMAC-SHA-256 of both and
of what it is for, under a key of this vault. So every node knows those of every other.
"""

from __future__ import annotations

import hmac
import os
from datetime import UTC, datetime, timedelta

from kms.access.model import UsedAssertion
from kms.access.step_up import CLOCKS_DIFFER_BY
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.sealing import DerivedKeys

LIFETIME = timedelta(minutes=5)
_RANDOM_BYTES, _MOMENT_BYTES, _CODE_BYTES = 16, 8, 32
_LAST_MOMENT = microseconds(datetime(9999, 1, 1, tzinfo=UTC))


def new(keys: DerivedKeys, purpose: str, now: datetime) -> bytes:
    """A challenge for `purpose`, good for five minutes."""
    head = os.urandom(_RANDOM_BYTES) + microseconds(now).to_bytes(_MOMENT_BYTES)
    return head + _code(keys, purpose, head)


def is_good(keys: DerivedKeys, challenge: bytes, purpose: str, now: datetime) -> bool:
    """Whether this service made `challenge` for `purpose` in the last five minutes.

    The caller must still see to it that it is used once. One from well in the future was made by a clock that was
    ahead, and is not good.
    """
    if len(challenge) != _RANDOM_BYTES + _MOMENT_BYTES + _CODE_BYTES:
        return False
    head, code = challenge[:-_CODE_BYTES], challenge[-_CODE_BYTES:]
    if not hmac.compare_digest(code, _code(keys, purpose, head)):
        return False
    made_at = _made_at(challenge)
    return made_at - CLOCKS_DIFFER_BY <= now < made_at + LIFETIME


def use_up(change: Change, challenge: bytes) -> bool:
    """Use up a challenge that `is_good`, for all nodes. False where it was used before, on any of them."""
    used = change.derived_keys.credential_hash("used challenge", challenge)
    if change.find(UsedAssertion, used) is not None:
        return False
    # Remembered for longer than any clock of a node takes it.
    change.insert(UsedAssertion(used, _made_at(challenge) + LIFETIME + 2 * CLOCKS_DIFFER_BY))
    return True


def _made_at(challenge: bytes) -> datetime:
    since = int.from_bytes(challenge[_RANDOM_BYTES : _RANDOM_BYTES + _MOMENT_BYTES])
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=min(since, _LAST_MOMENT))


def _code(keys: DerivedKeys, purpose: str, head: bytes) -> bytes:
    return keys.credential_hash("challenge", purpose.encode(), head)
