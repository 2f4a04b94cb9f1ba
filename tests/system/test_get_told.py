"""docs/how-to/get-told.md as it is pasted: its receiver, its subscription, and a key that expires."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.running import Running, Start, process_of, wait_until
from helpers.shell import ROOT, blocks, run
from helpers.support import free_port

PAGE = "docs/how-to/get-told.md"
TEXT = (ROOT / PAGE).read_text()


@pytest.fixture(scope="module")
def hook() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(start: Start, hook: int) -> Running:
    running = start("--workers", "2", login=False, KMS_NOTICE_HOSTS=f"localhost:{hook}", KMS_NOTICE_CA="server.crt")
    run(running, "python -m kms login --credentials admin.json")
    return running


@pytest.fixture(scope="module")
def receiver(service: Running, hook: int) -> Iterator[Path]:
    """The log of the page's receiver, which runs once there is a subscription."""
    paste(service, hook, *blocks(PAGE, "Subscribe"))
    (program,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (service.folder / "receiver.py").write_text(program.replace("9443", str(hook)))
    log = service.folder / "receiver.log"
    process = process_of([sys.executable, "receiver.py"], service.folder, log, service.environ)
    yield log
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)


def paste(service: Running, hook: int, *scripts: str) -> str:
    return run(service, "".join(scripts).replace("localhost:9443", f"localhost:{hook}"))


def test_the_page_as_it_is_pasted(service: Running, receiver: Path, hook: int) -> None:
    notice, key = blocks(PAGE, "Try it")
    assert (service.folder / "notice.json").stat().st_mode & 0o777 == 0o600

    def is_tried() -> bool:
        return '"delivered":true' in paste(service, hook, notice)

    wait_until(is_tried, receiver.read_text, every=0.5)
    paste(service, hook, key.replace("P30DT20S", "P30DT5S"))
    wait_until(lambda: "key.expiring" in receiver.read_text(), service.log.read_text, every=0.2)
    line = next(line for line in receiver.read_text().splitlines() if line.startswith("key.expiring"))
    assert '"key_id": "short-lived"' in line
    assert '"days": 30' in line
    of_notice = notice.splitlines(keepends=True)[0]
    shown = paste(service, hook, of_notice, *blocks(PAGE, "Look at what was sent"))
    assert shown.count('"state":"delivered"') == 1
    assert paste(service, hook, of_notice, *blocks(PAGE, "Stop it"))
    assert "whsec_" not in service.log.read_text()


def test_a_setting_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "app.py", "--port", "0"],
        cwd=tmp_path, env={"PATH": "/usr/bin", "KMS_NOTICE_HOSTS": "*"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "notice_hosts" in done.stderr + done.stdout
