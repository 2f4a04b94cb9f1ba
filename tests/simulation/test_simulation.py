"""The promises of the vault's changes hold in the simulation, and each fault that is put in on purpose is found."""

from __future__ import annotations

import pytest

from tests.simulation import current
from tests.simulation.faults import FAULTS, with_fault
from tests.simulation.run import simulate
from tests.simulation.scheduler import Violation

_FOUND_WITHIN_STEPS = 3_000_000  # most are found within a tenth of that
_FROM_SEED = 1
_FOUND_SOONEST = ["not-announced", "no-wait-for-leases", "follower-passed-over", "refused-change-stays"]


def test_the_promises_hold() -> None:
    outcome = simulate(seed=1, steps=40_000)
    assert outcome.done["uses"] > 100
    assert outcome.done["changes"] > 10


@pytest.mark.slow
def test_the_promises_hold_for_longer() -> None:
    simulate(seed=1000, steps=1_000_000)


def test_one_seed_replays_a_run() -> None:
    runs = []
    for _ in range(2):
        simulate(seed=7, steps=3_000)
        runs.append(current.scheduler.told())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_can_be_put_in(name: str) -> None:
    with with_fault(name):
        pass


def _find(name: str) -> Violation:
    with with_fault(name), pytest.raises(Violation) as found:
        simulate(seed=_FROM_SEED, steps=_FOUND_WITHIN_STEPS)
    return found.value


@pytest.mark.parametrize("name", _FOUND_SOONEST)
def test_a_fault_is_found(name: str) -> None:
    violation = _find(name)
    assert "BREAKS A PROMISE" in violation.trace[-1]
    assert f"seed {violation.seed}" in str(violation)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAULTS) - set(_FOUND_SOONEST)))
def test_every_fault_is_found(name: str) -> None:
    _find(name)
