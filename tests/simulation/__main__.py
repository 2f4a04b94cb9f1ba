"""`python -m tests.simulation --seed N --steps N [--fault NAME]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.faults import FAULTS, with_fault
from tests.simulation.run import simulate
from tests.simulation.scheduler import Violation


def main() -> int:
    """Simulate, and tell what happened. The exit code is 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first episode; the next ones count up")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--fault", choices=sorted(FAULTS), help="put this fault into the code on purpose")
    parser.add_argument("--trace", type=int, default=60, help="how many of the last steps to tell")
    given = parser.parse_args()
    began = time.perf_counter()
    try:
        with with_fault(given.fault):
            outcome = simulate(given.seed, given.steps)
    except Violation as violation:
        print("\n".join(violation.trace[len(violation.trace) - given.trace :]))
        print(f"\n{violation}\nAgain: --seed {violation.seed}{f' --fault {given.fault}' if given.fault else ''}")
        return 1
    took = time.perf_counter() - began
    print(f"{outcome.steps} steps in {outcome.episodes} episodes, {outcome.seconds:.0f} simulated seconds")
    print(f"{took:.1f} s, {outcome.steps / took:.0f} steps/s")
    print(", ".join(f"{what} {count}" for what, count in sorted(outcome.done.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
