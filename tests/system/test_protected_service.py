"""The real service, run by a user without rights: nothing of it can be looked into, and it works all the same."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import unprivileged
from helpers.running import Running, process_of, wait_until
from helpers.support import free_port
from helpers.under_gunicorn import GUNICORN

ROOT = Path(__file__).parents[2]
INTRUDER = ROOT / "tests" / "helpers" / "intruder.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["granian", "gunicorn"])
def service(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A service with two workers whose processes do not see each other in /proc."""
    if request.param == "gunicorn":
        pytest.importorskip("gunicorn")
    folder, port = unprivileged.folder(Path(tempfile.mkdtemp())), free_port()
    environ = {name: value for name, value in os.environ.items() if "CA_BUNDLE" not in name}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "KMS_PORT": str(port),
        "KMS_WORKERS": "2",
        "KMS_BOOTSTRAP_FILE": "admin.json",
        "KMS_SEAL": "passphrase",
        "KMS_SEAL_PASSPHRASE": "correct horse battery staple",
    }
    program = [sys.executable, str(ROOT / "app.py")] if request.param == "granian" else GUNICORN
    command = unprivileged.command(program, hide_others=os.getuid() == 0)
    log = Path(tempfile.mkstemp()[1])
    running = Running(folder, port, process_of(command, folder, log, environ), log, environ)
    answers = ["curl", "-skf", f"{running.url}/readyz"]
    wait_until(lambda: subprocess.run(answers, capture_output=True, check=False).returncode == 0, log.read_text, 0.2)
    running.token = running.login(running.admin)
    yield running
    if running.process.poll() is None:
        running.stop()
    shutil.rmtree(folder)
    log.unlink()


def ways_into(pid: int) -> set[str]:
    """How another process of the same user got in."""
    command = unprivileged.command([sys.executable, str(INTRUDER), str(pid)])
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_nothing_of_it_can_be_looked_into_and_it_works(service: Running) -> None:
    workers = service.worker_pids()
    assert len(workers) == 2
    for pid in (service.process.pid, *workers):
        assert ways_into(pid) == set()
        assert b"correct horse" not in Path(f"/proc/{pid}/environ").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Umask:\t0077" in status
        assert Path(f"/proc/{pid}/limits").read_text().split("Max core file size")[1].split()[:2] == ["0", "0"]
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
    held = "kms_leases_held 2.0"
    wait_until(
        lambda: held in service.curl("GET", "/metrics").text, lambda: service.curl("GET", "/metrics").text, 0.3
    )
    descriptors = len(list(Path(f"/proc/{workers[0]}/fd").iterdir()))
    found = re.search(r"^kms_open_descriptors ([0-9.]+)", service.curl("GET", "/metrics").text, re.MULTILINE)
    assert found and float(found[1]) > 1.5 * descriptors  # of both
    made = [each for each in service.folder.rglob("*") if each.is_file()]
    assert {each.name for each in made if each.stat().st_mode & 0o077} == {"server.crt"}  # public


def test_a_killed_worker_is_replaced_and_the_pair_is_renewed(service: Running) -> None:
    before = set(service.worker_pids())
    os.kill(min(before), signal.SIGSEGV)
    service.wait_for_workers(2, {min(before)})
    assert not list(service.folder.rglob("core*"))
    for pid in service.worker_pids():
        assert ways_into(pid) == set()
    service.process.send_signal(signal.SIGHUP)  # which starts another process for a moment, to try the pair
    wait_until(lambda: service.curl("GET", "/livez").status == 200)
    wait_until(lambda: service.curl("POST", "/generate_symmetric_key", {}).status == 200)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0, service.log.read_text()
