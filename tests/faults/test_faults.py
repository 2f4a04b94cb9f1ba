"""A small run of every fault, by its seed; `python -m tests.faults` makes the whole one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.databases import KINDS, Databases
from faults.flips import in_rows
from faults.outcome import Outcome, Skipped
from faults.report import Line, keep, kept, page
from faults.runner import Fault, every_fault, run

SEED = 16
BRIEF = [
    ("sqlite", "kill-service", 1),
    ("sqlite", "kill-in-commit", 20),
    ("sqlite", "full-disk-database", 1),
    ("sqlite", "full-disk-audit-log", 1),
    ("sqlite", "read-only-audit-log", 1),
    ("sqlite", "file-deleted-alone", 1),
    ("sqlite", "flip-rows", 10),
    ("sqlite", "flip-files", 10),
    ("sqlite", "root-key", 1),
    ("sqlite", "put-back", 1),
    ("postgresql", "kill-worker", 1),
    ("postgresql", "kill-backend", 2),
    ("postgresql", "kill-in-commit", 8),
    ("postgresql", "file-read-only", 1),
    ("postgresql", "flip-rows", 6),
    ("postgresql", "root-key", 1),
    ("postgresql", "put-back", 1),
]
"""Each kind briefly, on both databases: the kind of database, the fault, and how often it is made."""


@pytest.fixture(scope="module")
def databases() -> Iterator[dict[str, Databases]]:
    made = {kind: Databases(kind) for kind in KINDS}
    yield made
    for each in made.values():
        each.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "rounds"), BRIEF)
def test_a_fault_loses_nothing_and_revives_nothing(
    databases: dict[str, Databases], kind: str, name: str, rounds: int
) -> None:
    (fault,) = (each for each in every_fault() if each.name == name)
    try:
        outcome = run(fault, databases[kind], SEED, rounds)
    except Skipped as skipped:
        pytest.skip(str(skipped))
    assert outcome.tries > 0
    assert outcome.is_clean, outcome.findings


def test_what_must_not_be_is_counted_once_and_shown(tmp_path: Path) -> None:
    outcome = Outcome(tries=1)
    for _ in range(2):
        outcome.find("lost", "a key")
    assert (outcome.lost, outcome.is_clean) == (1, False)
    fault = Fault("name", "a title", in_rows, 1)
    keep(tmp_path / "results", Line(fault, "sqlite", outcome, "--seed 1"))
    keep(tmp_path / "results", Line(fault, "postgresql", "no server"))
    text = page(kept(tmp_path / "results", [fault]))
    assert "| a title | sqlite | 1 | 0 | 0 | 0 | 1 | 0 | 0 | – |" in text
    assert "- a title (sqlite): lost: a key" in text
    assert "not made: no server" in text
    assert "tests.faults --seed 1`" in text
