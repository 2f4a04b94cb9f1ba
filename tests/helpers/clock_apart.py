"""`python clock_apart.py SECONDS FLAGS…`: the service on a host whose clock is ahead by so many seconds.

It is what the clock of the service is made of that is moved, before anything else of it is loaded: the programs that
move the clock of a process from outside make Python's waiting fail.
"""

from __future__ import annotations

import runpy
import sys
from datetime import datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from kms import clock

    apart, right = timedelta(seconds=float(sys.argv[1])), clock.utc_now

    def utc_now() -> datetime:
        """The time on that host."""
        return right() + apart

    clock.utc_now = utc_now
    sys.argv = ["app.py", *sys.argv[2:]]
    runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
