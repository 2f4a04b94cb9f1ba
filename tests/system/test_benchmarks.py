"""The benchmarks run. What they measure is for people to read: nothing here depends on how fast it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.shell import ROOT


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed; .ci/install-services installs it")
    figures, chart = tmp_path / "figures.json", tmp_path / "chart.svg"
    command = [sys.executable, "-m", "benchmarks", "--rounds", "1", "--seconds", "1", "--only", "P-256"]
    command += ["--json", str(figures), "--chart", str(chart)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    assert set(measured) == {"echo", "Flask view", "sign P-256", "verify P-256", "create P-256"}
    assert all(each["per second"] > 0 and each["errors"] == 0 for each in measured.values())
    assert chart.read_text().startswith("<svg")
    assert "memory of a worker" in done.stdout


@pytest.mark.slow
def test_a_short_run_of_what_folding_costs() -> None:
    if shutil.which("wrk") is None:
        pytest.skip("wrk is not installed; .ci/install-services installs it")
    command = [sys.executable, "-m", "benchmarks.audit", "--rounds", "1", "--seconds", "4"]
    done = subprocess.run(
        [*command, "--entries", "2000", "--rate", "2000"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "a fold alone: 2000 entries" in done.stdout
    folded = re.search(r"folded beside: ([\d,]+) entries/s", done.stdout)
    assert folded is not None
    assert int(folded[1].replace(",", "")) > 0
