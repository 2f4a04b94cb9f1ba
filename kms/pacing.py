"""Background work that leaves most of the time to others."""

from __future__ import annotations

import time

_LONGEST_SECONDS = 5.0  # also after a piece that waited, for a lock or for another process, and did not work


class Pace:
    """Called between pieces of work, waits so long that the work takes one part in `share` of the time.

    It waits at most five seconds.
    """

    def __init__(self, share: int) -> None:
        self._share = share
        self._began = time.monotonic()

    def __call__(self) -> None:
        """Wait."""
        time.sleep(min((time.monotonic() - self._began) * (self._share - 1), _LONGEST_SECONDS))
        self._began = time.monotonic()
