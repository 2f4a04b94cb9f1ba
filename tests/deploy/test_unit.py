"""deploy/kms.service: checked by systemd's own tools, and tried as far as that goes without a systemd."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.deployed import DEPLOY, tool, unit
from helpers.running import Running, process_of, wait_until
from helpers.support import free_port

_PAGE = (DEPLOY.parent / "docs" / "how-to" / "deploy.md").read_text()
_EXPOSURE = float(re.findall(r"an exposure of ([0-9.]+),", _PAGE)[0])
_CONFINED = Path(__file__).parents[1] / "helpers" / "confined.py"
_NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
_APP = Path(__file__).parents[2] / "app.py"


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    text = (DEPLOY / "kms.service").read_text().replace("/opt/kms/venv/bin/kms", sys.executable)
    (tmp_path / "kms.service").write_text(text)
    command = [tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", tmp_path / "kms.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_its_exposure_is_what_is_documented() -> None:
    command = [tool("systemd-analyze"), "security", "--offline=true", DEPLOY / "kms.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"exposure level for kms\.service: ([0-9.]+)", done.stdout)
    assert found and float(found[1]) <= _EXPOSURE, done.stdout


def test_it_serves_where_only_the_allowed_system_calls_work_and_no_memory_is_written_and_run(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute= and SystemCallFilter=, by the kernel itself; the rest of the unit is not tried here."""
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if platform.machine() != "x86_64" or release < (6, 3) or not _NUMBERS.exists():
        pytest.skip("needs Linux 6.3 on x86-64, and the numbers of its system calls (linux-libc-dev)")
    assert unit()["MemoryDenyWriteExecute"] == ["yes"]
    assert unit()["SystemCallErrorNumber"] == ["EPERM"]
    port = free_port()
    serving = [sys.executable, str(_APP), "--port", str(port), "--workers", "2", "--bootstrap-file", "admin.json"]
    command = [sys.executable, str(_CONFINED), ",".join(map(str, _allowed_numbers())), *serving]
    environ = {name: value for name, value in os.environ.items() if "CA_BUNDLE" not in name} | {"PYTHONWARNINGS": ""}
    log = tmp_path / "log"
    service = Running(tmp_path, port, process_of(command, tmp_path, log, environ), log, environ)
    try:
        service.wait_until_ready()
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        service.token = service.login(service.admin)
        for kind in ("rsa-3072", "ml-dsa-65", "x25519", "xaes-256-gcm"):
            assert service.curl("POST", "/api/v1/keys", {"type": kind, "key_id": kind}).status == 201
        sent = service.curl("POST", "/api/v1/keys/xaes-256-gcm/encrypt", {"plaintext": "aGVsbG8="})
        back = service.curl("POST", "/api/v1/keys/xaes-256-gcm/decrypt", {"ciphertext": sent.json["ciphertext"]})
        assert back.json["plaintext"] == "aGVsbG8="
        assert service.curl("GET", "/metrics").status == 200
        wait_until((tmp_path / "kms-data" / "audit-log" / "checkpoint").exists)  # the log is folded
        service.process.send_signal(1)  # SIGHUP: a new TLS pair
    finally:
        code = service.stop()
    assert code == 0, log.read_text()
    assert "Operation not permitted" not in log.read_text()


def _allowed_numbers() -> list[int]:
    """The system calls that the unit's filter leaves, by number."""
    allowed: set[str] = set()
    for line in unit()["SystemCallFilter"]:
        sets = [_calls_of(name) for name in line.removeprefix("~").split()]
        calls = set[str]().union(*sets)
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", _NUMBERS.read_text()))
    return sorted(int(numbers[name]) for name in allowed if name in numbers)


def _calls_of(name: str) -> set[str]:
    """The system calls of a set, and of the sets in it."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.check_output([tool("systemd-analyze"), "syscall-filter", name], text=True)
    names = [line.strip() for line in listed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set[str]().union(*(_calls_of(each) for each in names))
