"""The time, as a value that tests can steer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

Clock = Callable[[], datetime]


utc_now: Clock = partial(datetime.now, UTC)
"""The time now, in UTC."""


def rfc3339(moment: datetime) -> str:
    """`moment` as RFC 3339 in UTC with seconds, such as `2026-11-24T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# CLOCK_BOOTTIME goes on while the machine sleeps; a lease must not outlive the time it slept through.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

steady_seconds: Callable[[], float] = partial(time.clock_gettime, _STEADY)
"""Seconds on a clock that never goes back and counts suspended time where the system can."""
