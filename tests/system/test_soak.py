"""`python -m benchmarks.soak` for some seconds: every answer is one that is right, and descriptors are flat."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from helpers.shell import ROOT


@pytest.mark.slow
def test_a_short_soak() -> None:
    if os.getuid() != 0:
        pytest.skip("only root can look into the processes of the service")
    command = [sys.executable, "-m", "benchmarks.soak", "--warm-up", "0.1", "--minutes", "0.2", "--caches", "500"]
    command += ["--every", "2"]
    environ = {name: value for name, value in os.environ.items() if "CA_BUNDLE" not in name}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert "UNEXPECTED" not in done.stdout, done.stdout
    assert "A worker was replaced" not in done.stdout
    assert re.search(r"worker 2: descriptors \| \d+ \| [+-]\d+ \| flat", done.stdout), done.stdout + done.stderr
    for part in ("uses", "changes", "logins", "console", "refusals", "aws", "vault", "connections"):
        assert re.search(rf"^  {part} ", done.stdout, re.MULTILINE), part
