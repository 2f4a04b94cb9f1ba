"""A small run of every fault, by its seed; `python -m tests.faults` makes the whole one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.databases import KINDS, Databases
from faults.flips import in_rows
from faults.outcome import Outcome, Skipped
from faults.report import Line, page
from faults.runner import Fault, every_fault, run

SEED = 16


@pytest.fixture(scope="module", params=KINDS)
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    made = Databases(request.param)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", [each for each in every_fault() if each.brief], ids=lambda each: each.name)
def test_a_fault_loses_nothing_and_revives_nothing(databases: Databases, fault: Fault) -> None:
    if databases.kind not in fault.databases:
        pytest.skip("not a fault of this database")
    try:
        outcome = run(fault, databases, SEED, fault.brief)
    except Skipped as skipped:
        pytest.skip(str(skipped))
    assert outcome.tries >= fault.brief
    assert outcome.is_clean, outcome.findings


def test_what_must_not_be_is_counted_once_and_shown() -> None:
    outcome = Outcome(tries=1)
    for _ in range(2):
        outcome.find("lost", "a key")
    assert (outcome.lost, outcome.is_clean) == (1, False)
    fault = Fault("name", "a title", in_rows, 1, 1)
    text = page([Line(fault, "sqlite", outcome), Line(fault, "postgresql", "no server")], "--seed 1")
    assert "| a title | sqlite | 1 | 0 | 0 | 0 | 1 | 0 | 0 | – |" in text
    assert "- a title (sqlite): lost: a key" in text
    assert "not made: no server" in text
