"""Background work that leaves most of the time to others."""

from __future__ import annotations

import time


class Pace:
    """Called between pieces of work, waits so long that the work takes one part in `share` of the time."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._began = time.monotonic()

    def __call__(self) -> None:
        """Wait."""
        time.sleep((time.monotonic() - self._began) * (self._share - 1))
        self._began = time.monotonic()
