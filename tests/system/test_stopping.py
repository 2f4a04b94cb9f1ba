"""After a stop, however it came about, the file of the database holds everything: it is copied alone and verified."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.running import Running, Start, wait_until
from helpers.support import free_port
from helpers.under_gunicorn import under_gunicorn
from kms.cli.vault import vault

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def key_ids(database: Path) -> set[str]:
    """Which keys there are, as read from this one file."""
    with closing(sqlite3.connect(f"file:{database}?immutable=1", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT key_id FROM keys")}


def require_whole(service: Running, tmp_path: Path) -> None:
    """Copy `kms.db` alone to elsewhere; it must be the whole vault, with the key that was made last."""
    data, copy = service.folder / "kms-data", tmp_path / "copy"
    assert not (data / "kms.db-wal").exists(), service.log.read_text()
    assert (data / "kms.db").read_bytes()[18:20] == b"\x01\x01"
    copy.mkdir(mode=0o700, parents=True)
    shutil.copy(data / "kms.db", copy)
    shutil.copy(data / "root.key", copy)
    assert "newest" in key_ids(copy / "kms.db")
    done = CliRunner().invoke(vault, ["verify", "--data-dir", str(copy)])
    assert (done.exit_code, "Every row is as the service wrote it." in done.output) == (0, True), done.output


def make_newest(service: Running) -> None:
    for key_id in ("one", "two", "newest"):
        assert service.curl("POST", "/api/v1/keys", {"key_id": key_id}).status == 201


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    service = start("--workers", "2")
    make_newest(service)
    if how == signal.SIGINT:
        before = set(service.worker_pids())
        os.kill(min(before), signal.SIGKILL)
        service.wait_for_workers(2, without={min(before)})
    assert (service.folder / "kms-data" / "kms.db-wal").stat().st_size > 0
    assert service.stop(how) == 0
    require_whole(service, tmp_path)
    assert list(service.folder.rglob("*-wal")) == []  # nor of the index of the audit log


def test_what_follows_after_everything_was_killed(start: Start, tmp_path: Path) -> None:
    """A start and a stop, or a command on the host while no service runs, leave one file too."""
    service = start("--workers", "2")
    make_newest(service)
    service.stop(signal.SIGKILL)
    assert (service.folder / "kms-data" / "kms.db-wal").stat().st_size > 0
    killed = shutil.copytree(service.folder, tmp_path / "killed")
    again = start("--workers", "2", folder=service.folder, login=False)
    assert "its newest changes are taken from" in again.log.read_text()
    assert again.stop() == 0
    require_whole(again, tmp_path)
    on_host(["vault", "verify"], killed)
    require_whole(replace(service, folder=killed), tmp_path / "verified")


def on_host(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-m", "kms", *arguments], cwd=folder, env=environ, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_flask_s_own_server(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    service = start("--debug")
    make_newest(service)
    assert service.curl("POST", "/api/v1/keys/newest/encrypt", {"plaintext": ""}).status == 200  # its last use
    assert service.stop(how) == 0
    require_whole(service, tmp_path)
    assert "CANNOT BE WRITTEN" not in service.log.read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_gunicorn(start: Start, tmp_path: Path, how: signal.Signals) -> None:
    port, folder = free_port(), tmp_path / "gunicorn"
    folder.mkdir()
    environ = {**os.environ, "KMS_WORKERS": "2", "KMS_BOOTSTRAP_FILE": "admin.json"}
    service = under_gunicorn(folder, port, environ)
    try:
        wait_until(service.answers, service.log.read_text)
        service.token = service.login(service.admin)
        make_newest(service)
        service.process.send_signal(how)
        service.process.wait(timeout=60)
        require_whole(service, tmp_path)
    finally:
        service.stop(signal.SIGKILL)


def test_a_backup_beside_an_old_log_is_refused(start: Start, tmp_path: Path) -> None:
    """The service was killed, and whoever restores has not removed what lay beside the database."""
    service = start("--workers", "1")
    assert service.curl("POST", "/api/v1/keys", {"key_id": "backed-up"}).status == 201
    service.stop()
    data = service.folder / "kms-data"
    shutil.copy(data / "kms.db", tmp_path / "stopped.db")
    service = replace(start("--workers", "1", folder=service.folder, login=False), token=service.token)
    with closing(sqlite3.connect(data / "kms.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "live.db")])
    make_newest(service)
    service.stop(signal.SIGKILL)
    newest = {name: (data / name).read_bytes() for name in ("kms.db", "kms.db-wal")}
    for backup, arguments in (("stopped.db", ["serve"]), ("live.db", ["vault", "verify"])):
        for name, content in newest.items():
            (data / name).write_bytes(content)
        shutil.copy(tmp_path / backup, data / "kms.db")
        done = on_host(arguments, service.folder)
        assert done.returncode == 1
        assert "was not written for the database beside it" in done.stderr
        assert "Traceback" not in done.stderr
        assert (data / "kms.db").read_bytes() == (tmp_path / backup).read_bytes()
        assert (data / "kms.db-wal").read_bytes() == newest["kms.db-wal"]
    (data / "kms.db-wal").unlink()
    (data / "kms.db-shm").unlink(missing_ok=True)
    assert "newest" not in key_ids(data / "kms.db")
    done = CliRunner().invoke(vault, ["accept", "--yes", "--data-dir", str(data)])
    assert done.exit_code == 0, done.output
    restored = start("--workers", "1", folder=service.folder, login=False)
    assert restored.curl("GET", "/readyz").status == 200
