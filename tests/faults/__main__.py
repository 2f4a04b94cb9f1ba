"""`python -m tests.faults`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `helpers` and this package are for pytest, too

from faults.runner import main

if __name__ == "__main__":  # processes that faults start import this file
    main()
