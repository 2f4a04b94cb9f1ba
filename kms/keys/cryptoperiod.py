"""How long a key version protects and how long it may process what it protected (SP 800-57, section 5.3)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_MOST_EARLY, _PART_EARLY = timedelta(hours=1), 100


def next_rotation(since: datetime, period: timedelta | None) -> datetime | None:
    """When a key rotates that has a new version `since` then, None without a `period`.

    A little early, by up to a hundredth of the period and an hour at most: keys that were made together should not
    all fall due in the same second.
    """
    if period is None:
        return None
    return since + period - random.random() * min(period / _PART_EARLY, _MOST_EARLY)  # noqa: S311


@dataclass(frozen=True)
class Cryptoperiods:
    """The periods of new keys and versions: a default, and exceptions by key type.

    `default` and `by_type` are originator-usage periods; `process_after` is added to give the end of the
    recipient-usage period (SP 800-57 table 1 suggests up to three years beyond the originator's). `rotation` is
    the period after which new keys rotate by themselves, None for never.
    """

    default: timedelta = timedelta(days=365)
    by_type: Mapping[str, timedelta] = field(default_factory=dict)
    process_after: timedelta = timedelta(days=3 * 365)
    rotation: timedelta | None = None

    def of(self, key_type: str) -> timedelta:
        """The originator-usage period of `key_type`."""
        return self.by_type.get(key_type, self.default)
