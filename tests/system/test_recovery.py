"""An administrator is let in again on the host of a real service with several workers, while others use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.running import Running, Start

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def recover(service: Running, client_id: str, to: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kms", "client", "recover", client_id, "--yes", "--to", to],
        cwd=service.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "NEW CREDENTIALS" in done.stderr
    return dict(json.loads((service.folder / to).read_text()))


def test_beside_the_running_service_and_without_it(start: Start) -> None:
    service = start("--workers", "3")
    other = service.user("other")
    before = service.token
    new = recover(service, "admin", "new.json")
    for _ in range(12):  # each a new connection, to whichever worker
        assert service.curl("GET", "/api/v1/clients", token=before).status == 401
        assert service.curl("GET", "/api/v1/keys", token=other).status == 200
    service._used_steps.clear()  # of the old secret
    service.token = service.login(new)
    entries = service.curl("GET", "/api/v1/audit/entries?operation=recover_client").json["items"]
    assert [(each["source"], each["target"]) for each in entries] == [("local", "admin")]

    service.stop(signal.SIGKILL)
    newest = recover(service, "admin", "newest.json")
    again = start("--workers", "1", folder=service.folder, login=False)
    assert again.curl("GET", "/api/v1/clients", token=service.token).status == 401
    again.token = again.login(newest)
    found = again.curl("GET", "/api/v1/status").json
    assert any("only one administrator" in sentence for sentence in found["attention"])
