"""`python -m tests.faults`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `helpers` and this package are for pytest, too

from faults.runner import main

main()
