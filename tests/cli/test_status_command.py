"""`kms status`: what an operator, a user, and somebody without a login on the host are shown."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.support import World
from kms import __version__
from kms.client import kept_login

Kms = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]


def test_operators_see_everything(kms: Kms) -> None:
    (found,) = kms("status", by="admin")
    assert (found["service"], found["client_id"]) == ("ready", "admin")
    assert found["answered_by"]["version"] == __version__
    assert found["database"]["kind"] == "sqlite"
    assert any("only one administrator" in sentence for sentence in found["attention"])


def test_users_see_whether_it_is_ready(kms: Kms) -> None:
    (found,) = kms("status", by="alice")
    assert (found["service"], found["lease"], found["audit log"]) == ("ready", "ok", "ok")
    assert "auditor" in found["more"]
    assert "database" not in found


def test_an_ended_session_is_said(kms: Kms) -> None:
    kms("status", by="admin")
    kept_login.save(kept_login.KeptLogin(*_where(), "kms-token-of-nobody", "admin"))
    (found,) = kms("status")
    assert found["service"] == "ready"
    assert "has ended" in found["more"]


def test_it_needs_no_login(kms: Kms, tmp_path: Path, monkeypatch: Any) -> None:
    kms("status", by="admin")
    url, ca = _where()
    kept_login.forget()
    (found,) = kms("status", "--url", url, "--ca-cert", str(ca))
    assert (found["service"], found["url"], "client_id" in found) == ("ready", url, False)
    assert found["integrity check"]
    assert "cannot be reached" in kms("status", "--url", "https://localhost:1", "--ca-cert", str(ca), code=7)[0]


def test_the_reason_why_it_is_not_ready(kms: Kms, shared_world: World) -> None:
    host = shared_world.service.vault.host
    kms("status", by="admin")
    try:
        shared_world.service.vault.stop_trusting("Rows were altered.")
        assert "Rows were altered." in kms("status", code=7)[0]
    finally:
        host.distrust = None
        shared_world.service.memory.require()


def test_on_a_terminal_it_is_one_screen(kms: Kms) -> None:
    kms("status", by="admin")
    command = [sys.executable, "-m", "kms", "status"]
    done = subprocess.run(
        ["script", "-qec", shlex.join(command), "/dev/null"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    for title in ("service", "nodes", "database", "seal", "integrity check", "rate limits", "schedule", "people"):
        assert any(title in line for line in lines), title
    assert "kind sqlite · schema revision" in done.stdout
    assert "! There is only one administrator" in done.stdout


def _where() -> tuple[str, str | None]:
    kept = kept_login.current()
    return kept.url, kept.ca_cert
