"""The root key of a running service is changed under load, by a command that dies in the middle of it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from helpers.load import Load
from helpers.running import Running, Start, wait_until
from helpers.shell import ROOT

pytestmark = pytest.mark.slow
KEYS = 1500


def _rows(service: Running, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(service.folder / "kms-data" / "kms.db")) as connection:
        return connection.execute(query).fetchall()


def _change(service: Running, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kms", "vault", "rotate-root-key", "--yes", "--fast", *options]
    environ = {**service.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=service.folder, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _under_old_key(service: Running) -> int:
    (found,) = _rows(service, "SELECT count(*) FROM key_versions WHERE length(mac) = 32")[0]
    return int(str(found))


def test_it_goes_on_without_the_command_and_no_use_notices(start: Start) -> None:
    service = start("--workers", "2", "--rate-limit", "off")
    for begin in range(0, KEYS, 500):
        items = [{"key_id": f"k{number}"} for number in range(begin, begin + 500)]
        assert service.curl("POST", "/api/v1/keys", {"items": items}).status in (200, 201)
    for key_id in ("k1", "k2"):
        assert service.curl("POST", f"/api/v1/keys/{key_id}/revoke", {}).status == 200
    ciphertext = service.curl("POST", "/api/v1/keys/k0/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    with Load(service, service.token, "k0") as load:
        load.wait_for(200)
        command = _change(service)
        wait_until(lambda: _rows(service, "SELECT * FROM root_keys"))
        command.send_signal(signal.SIGKILL)
        command.wait()
        assert _under_old_key(service) > 0
        os.kill(service.worker_pids()[0], signal.SIGKILL)  # the one in its place must have both root keys
        service.wait_for_workers(2, set())
        assert service.curl("POST", "/api/v1/keys/k3/rotate", {}).status == 200
        again = _change(service)
        said, _ = again.communicate(timeout=240)
        assert again.returncode == 0, said
        assert "Everything is under root key 2" in said
        load.wait_for(200)
    assert {use.status for use in load.uses} == {200}
    assert _under_old_key(service) == 0
    assert _rows(service, "SELECT slot FROM keyslots") == [("seal",)]
    assert service.curl("POST", "/api/v1/keys/k0/decrypt", {"ciphertext": ciphertext}).json["plaintext"] == "AAAA"
    assert service.curl("POST", "/api/v1/keys/k1/encrypt", {"plaintext": "AAAA"}).status == 403
    os.kill(service.worker_pids()[0], signal.SIGKILL)  # and the one in the place of this one only the new one
    service.wait_for_workers(2, set())
    entries = service.curl("GET", "/api/v1/audit/entries?limit=1000&operation=retire_root_key").json["items"]
    assert [each["target"] for each in entries] == ["root key 1"]
    service.stop()
    once_more = start("--workers", "2", folder=service.folder, login=False)
    once_more.token = service.token
    answer = once_more.curl("POST", "/api/v1/keys/k0/decrypt", {"ciphertext": ciphertext})
    assert answer.json["plaintext"] == "AAAA"
    environ = {**service.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "kms", "vault", "verify"], cwd=service.folder, env=environ, check=True)


def test_offline_after_the_service_was_killed(start: Start) -> None:
    service = start("--workers", "1")
    assert service.curl("POST", "/api/v1/keys", {"key_id": "k"}).status == 201
    ciphertext = service.curl("POST", "/api/v1/keys/k/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    said, _ = _change(service, "--offline").communicate(timeout=60)
    assert "runs on this host" in said
    service.stop(signal.SIGKILL)
    assert len(_rows(service, "SELECT node_id FROM nodes")) == 1
    command = _change(service, "--offline")
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 0, said
    again = start("--workers", "1", folder=service.folder, login=False)
    again.token = service.token
    answer = again.curl("POST", "/api/v1/keys/k/decrypt", {"ciphertext": ciphertext})
    assert answer.json["plaintext"] == "AAAA"
