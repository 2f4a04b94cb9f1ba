"""The scheduler of the run that is under way; a process simulates one run at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.scheduler import Scheduler

scheduler: Scheduler
committed: Callable[[Any, Any], None]
"""Called with the state of the database before and after a commit."""
leased: Callable[[Any, int], None]
"""Called with the process that has a new lease, and the epoch that it has caught up with."""
announced: Callable[[int], None]
"""Called with an epoch that is announced to a host."""
