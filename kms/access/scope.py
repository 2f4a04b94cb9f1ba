"""What a session may be narrowed to: words `PERMISSION@KEY-PATTERN`, or `PERMISSION` alone for every key.

RFC 6749, section 3.3, separates the words by spaces. A scope takes away and never gives: what a session may do is in
its scope *and* allowed to its client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from kms.keys.ids import KEY_ID_PATTERN

_WORD = re.compile(rf"[a-z]+:[a-z-]+(?:@(?:{KEY_ID_PATTERN}|(?:{KEY_ID_PATTERN})?\*))?")
_MOST_WORDS = 50


@dataclass(frozen=True)
class Scope:
    """Pairs of a permission and a pattern of key ids: one id, or the beginning of some and `*`."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def words(self) -> frozenset[str]:
        """It as it is stored and shown."""
        return frozenset(each if pattern == "*" else f"{each}@{pattern}" for each, pattern in self.pairs)

    @property
    def is_metrics_only(self) -> bool:
        """Whether it is for scraping metrics and nothing else, for which a token may live long."""
        return {permission for permission, _ in self.pairs} == {"metrics:read"}

    def allows(self, permission: str) -> bool:
        """Whether the scope has the permission, for any key at all."""
        return any(permission == each for each, _ in self.pairs)

    def allows_on_key(self, permission: str, key_id: str) -> bool:
        """Whether the scope has the permission for this key."""
        return any(permission == each and matches(pattern, key_id) for each, pattern in self.pairs)

    def covers(self, key_id: str) -> bool:
        """Whether any of its words is about this key."""
        return any(matches(pattern, key_id) for _, pattern in self.pairs)

    def allows_on_all(self, permission: str, key_pattern: str) -> bool:
        """Whether the scope has the permission for every key that `key_pattern` can match."""
        return any(permission == each and _within(key_pattern, pattern) for each, pattern in self.pairs)

    def within(self, other: Scope) -> bool:
        """Whether this scope is no wider than `other`."""
        return all(
            any(mine == theirs and _within(pattern, wider) for theirs, wider in other.pairs)
            for mine, pattern in self.pairs
        )


@lru_cache(maxsize=4096)
def parse(words: frozenset[str]) -> Scope:
    """The scope of these words. Raises ValueError naming one that cannot be read."""
    if len(words) > _MOST_WORDS:
        raise ValueError(f"at most {_MOST_WORDS} words")
    for word in sorted(words):
        if _WORD.fullmatch(word) is None:
            raise ValueError(f"{word[:80]!r} is not PERMISSION@KEY-PATTERN")
    pairs = (word.partition("@") for word in sorted(words))
    return Scope(tuple((permission, pattern or "*") for permission, _, pattern in pairs))


def of(words: Iterable[str]) -> Scope | None:
    """The scope of stored words; None where there are none, which is no limit."""
    kept = frozenset(words)
    return parse(kept) if kept else None


def matches(pattern: str, key_id: str) -> bool:
    """Whether `pattern` is that key id, or the beginning of it followed by `*`."""
    return key_id.startswith(pattern[:-1]) if pattern.endswith("*") else key_id == pattern


def _within(pattern: str, wider: str) -> bool:
    return pattern.startswith(wider[:-1]) if wider.endswith("*") else pattern == wider
