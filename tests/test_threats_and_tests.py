"""docs/explanation/threats-and-tests.md: no threat without a row, no row without a test, and each test is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPLANATION = ROOT / "docs" / "explanation"
PAGE = EXPLANATION / "threats-and-tests.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
DEFENDED, NOT_DEFENDED = "What is defended against", "What is not"
ELSEWHERE, HERE = "What went wrong elsewhere", "What went wrong here"


def rows_under(heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def threats() -> tuple[list[str], list[str]]:
    """What the threat model has in bold type in its two lists: each threat, in order."""
    text = (EXPLANATION / "threat-model.md").read_text()
    _, defended, rest = re.split(r"^(?:Not d|D)efended against:$", text, flags=re.MULTILINE)

    def bold(of: str) -> list[str]:
        bullets = re.findall(r"^- (.*?)(?=^- |^\n|\Z)", of, re.DOTALL | re.MULTILINE)
        found = [re.findall(r"\*\*(.+?)\*\*", " ".join(bullet.split())) for bullet in bullets]
        assert bullets and all(found), "each bullet says in bold type what the threat is"
        return [each for some in found for each in some]

    return bold(defended), bold(rest)


@cache
def defined_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_each_threat_of_the_model_has_its_row() -> None:
    defended, not_defended = threats()
    assert [row[0] for row in rows_under(DEFENDED)] == defended
    assert [row[0] for row in rows_under(NOT_DEFENDED)] == not_defended


@pytest.mark.parametrize("heading", [DEFENDED, NOT_DEFENDED, ELSEWHERE, HERE])
def test_each_row_has_a_test_or_says_why_it_has_none(heading: str) -> None:
    rows = rows_under(heading)
    assert rows
    for row in rows:
        assert len(row) == 3 and all(row), row
        assert NAMED.search(row[2]) or re.match("no test: .{10}", row[2]), row
        rest = NAMED.sub("", row[2]) if not row[2].startswith("no test") else ""
        assert set(rest) <= {",", " "}, f"each test as file::function: {row[2]}"


def test_what_is_defended_against_has_a_test() -> None:
    assert not [
        row[0] for heading in (DEFENDED, ELSEWHERE, HERE) for row in rows_under(heading) if "no test:" in row[2]
    ]


def test_each_test_that_is_named_is_there() -> None:
    named = NAMED.findall(PAGE.read_text())
    assert len(named) > 200
    missing = [f"{file}::{test}" for file, test in named if test not in defined_in(ROOT / file)]
    assert missing == []


def test_weaknesses_are_named_once_each() -> None:
    numbers = re.findall(r"CVE-\d{4}-\d{4,}", " ".join(row[0] for row in rows_under(ELSEWHERE)))
    assert len(numbers) > 50
    assert {each for each in numbers if numbers.count(each) > 1} <= {"CVE-2025-55003"}  # two faults have that number
