"""Stopping, dying, going on: what is acknowledged stays, nothing is half there."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import ssl
import threading
import time
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helpers.log_lines import log_entries
from helpers.running import Running, Start, wait_until
from helpers.support import b64, new_database
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.keys.model import Key
from kms.vault.checking import wrong_tables
from kms.vault.opening import open_vault


class Maker(threading.Thread):
    """Makes keys one after the other and remembers what was acknowledged."""

    def __init__(self, service: Running, token: str, path: str) -> None:
        super().__init__(daemon=True)
        self.service, self.token, self.path = service, token, path
        self.acknowledged: list[dict[str, Any]] = []
        self.lost_in_flight = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        headers = {"Authorization": f"Bearer {self.token}"}
        connection: http.client.HTTPSConnection | None = None
        while not self.stopping.is_set():
            sent = False
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(
                        "localhost", self.service.port, context=context, timeout=30
                    )
                    connection.connect()
                connection.request("POST", self.path, headers=headers)
                sent = True
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status == 200:
                    self.acknowledged.append(body)
                if answer.getheader("Connection") == "close":
                    connection = None
            except (OSError, http.client.HTTPException):
                self.lost_in_flight += sent
                connection = None
                time.sleep(0.01)


@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
@pytest.mark.parametrize("victim", ["worker", "service"])
def test_kill_9_loses_no_acknowledged_key_and_leaves_none_half_made(
    start: Start, request: pytest.FixtureRequest, database: str, victim: str
) -> None:
    flags = ["--workers", "3", "--rate-limit", "off"]
    if database == "postgresql":
        flags += ["--database-url", new_database(request.getfixturevalue("postgres"))]
    service = start(*flags)
    tokens = [service.user(f"user{number}") for number in range(4)]
    makers = [Maker(service, token, "/generate_symmetric_key") for token in tokens]
    for maker in makers:
        maker.start()
    _each_makes(makers, 3)
    for _ in range(3 if victim == "worker" else 1):
        if victim == "worker":
            killed = service.worker_pids()[0]
            os.kill(killed, signal.SIGKILL)
            service.wait_for_workers(3, without={killed})
        else:
            service.stop(signal.SIGKILL)
            service = start(*flags, folder=service.folder, port=service.port, login=False)
        _each_makes(makers, 3)
    for maker in makers:
        maker.stopping.set()
    for maker in makers:
        maker.join(timeout=30)
    for number, maker in enumerate(makers):
        assert len(maker.acknowledged) >= 3
        key_id = f"user{number}_symmetric"
        detail = service.curl("GET", f"/api/v1/keys/{key_id}", token=tokens[number]).json
        listed = service.curl("GET", f"/api/v1/keys/{key_id}/versions?limit=1000", token=tokens[number]).json
        assert listed["next_cursor"] is None
        versions = [each["version"] for each in listed["items"]][::-1]
        assert versions == list(range(1, detail["latest_version"] + 1))
        assert {each["version"] for each in maker.acknowledged} <= set(versions)
        sealed = service.curl(
            "POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": b64(b"x")}, token=tokens[number]
        )
        assert sealed.json["version"] == detail["latest_version"]
    service.stop()
    _every_key_is_whole(service, flags, [each for maker in makers for each in maker.acknowledged])


def _each_makes(makers: list[Maker], more: int) -> None:
    """Wait until each has made so many keys more."""
    before = [len(maker.acknowledged) for maker in makers]

    def have_made() -> bool:
        return all(len(each.acknowledged) >= count + more for each, count in zip(makers, before, strict=True))

    wait_until(have_made, lambda: [len(maker.acknowledged) for maker in makers])


def _every_key_is_whole(service: Running, flags: list[str], acknowledged: list[dict[str, Any]]) -> None:
    url = flags[flags.index("--database-url") + 1] if "--database-url" in flags else None
    settings = Settings(data_dir=service.folder / "kms-data", database_url=url)
    vault = open_vault(settings)
    assert wrong_tables(vault) == []
    material: dict[tuple[str, int], bytes] = {}
    with vault.read() as snapshot:
        for key in snapshot.select(Key):
            for version in snapshot.versions(key):
                loaded = snapshot.material(key, version)
                assert key_type(version.type).load(loaded)
                material[key.key_id, version.version] = loaded
    for each in acknowledged:
        assert b64(material[each["key_id"], each["version"]]) == each["symmetric_key"]
    of_keys = [entry for entry in log_entries(vault, settings) if entry["operation"] == "generate_symmetric_key"]
    made = [entry for entry in of_keys if entry["outcome"] == "success"]
    assert len(made) == len(material)  # exactly one audit entry for each version
    vault.engine.dispose()


def test_a_worker_that_dies_before_it_serves_leaves_no_socket_on_which_clients_wait_for_ever(start: Start) -> None:
    service = start("--workers", "2")
    kept, killed = service.worker_pids()
    for _ in range(4):  # each successor at once, before it has begun to serve
        os.kill(killed, signal.SIGKILL)
        service.wait_for_workers(2, without={killed})
        (killed,) = set(service.worker_pids()) - {kept}
    listening = rf"^ *\d+: \w+:{service.port:04X} \S+ 0A "
    assert len(re.findall(listening, Path("/proc/net/tcp").read_text(), re.MULTILINE)) == 2
    for _ in range(20):
        assert service.curl("GET", "/readyz", None, "--max-time", "20", token="").status == 200


def test_sigterm_loses_no_request_in_flight(start: Start) -> None:
    service = start("--workers", "2", "--rate-limit", "off")
    makers = [Maker(service, service.user(f"u{number}"), "/generate_rsa_key") for number in range(3)]
    for maker in makers:
        maker.start()
    _each_makes(makers, 1)
    assert service.stop(signal.SIGTERM) == 0
    for maker in makers:
        maker.stopping.set()
    for maker in makers:
        maker.join(timeout=30)
    assert sum(len(maker.acknowledged) for maker in makers) >= 3
    assert sum(maker.lost_in_flight for maker in makers) == 0


@pytest.mark.slow
def test_certificates_loaded_under_load_lose_no_request(start: Start) -> None:
    """Clients that reuse connections without a pause, or with one, and such as make a new one for each request."""
    service = start("--workers", "2", "--rate-limit", "off", login=False)
    stopping, answered = threading.Event(), [0] * 24
    lost: list[str] = []

    def use(number: int) -> None:
        context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
        connection = None
        while not stopping.wait(0.9 if number < 12 else 0.001):
            connection = connection or http.client.HTTPSConnection("localhost", service.port, context=context)
            try:
                connection.request("GET", "/livez")
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                return
            answered[number] += 1
            if number >= 18 or answer.getheader("Connection") == "close":
                connection.close()
                connection = None

    users = [threading.Thread(target=use, args=(number,), daemon=True) for number in range(len(answered))]
    for each in users:
        each.start()
    for loads in range(1, 4):
        wait_until(lambda: min(answered) > 3 * loads, lambda: lost)  # noqa: B023  # called before it changes
        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: service.log.read_text().count("certificate loaded anew") == loads)  # noqa: B023
    wait_until(lambda: min(answered) > 30, lambda: lost)  # longer than any Granian is drained
    stopping.set()
    for each in users:
        each.join(timeout=60)
    assert lost == []


@pytest.mark.slow
def test_a_stop_that_is_asked_for_again_ten_seconds_later_is_at_once(start: Start) -> None:
    service = start("--workers", "1")
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    connection = http.client.HTTPSConnection("localhost", service.port, context=context, timeout=60)
    connection.putrequest("POST", "/generate_rsa_key")
    connection.putheader("Authorization", f"Bearer {service.token}")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")  # and no more: the worker waits for it
    service.process.send_signal(signal.SIGTERM)
    asked_at = time.monotonic()
    while service.process.poll() is None:
        assert time.monotonic() - asked_at < 25
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
    assert time.monotonic() - asked_at > 10
    assert service.process.returncode == 1
    assert "stopped before every request was answered" in service.log.read_text()
    assert not (service.folder / "kms-data" / "kms.db-wal").exists()  # also then kms.db is the whole database


def test_sigterm_writes_everything_down(start: Start) -> None:
    service = start("--workers", "2")
    service.curl("POST", "/api/v1/keys", {"key_id": "used"})
    service.curl("POST", "/api/v1/keys/used/encrypt", {"plaintext": ""})
    database = service.folder / "kms-data" / "kms.db"
    reader = sqlite3.connect(database)  # such as one who looks at it meanwhile
    assert reader.execute("SELECT count(*) FROM keys").fetchone() == (1,)
    service.stop()
    assert database.with_name("kms.db-wal").stat().st_size == 0
    reader.close()
    assert "stopped, with every request answered" in service.log.read_text().splitlines()[-1]
    again = start("--workers", "2", folder=service.folder, login=False)
    again.token = service.token
    assert again.curl("GET", "/api/v1/keys/used/last-use").json["operation"] == "encrypt"


def test_scheduled_rotation_happens_by_itself_once(start: Start) -> None:
    service, period = start("--workers", "3"), timedelta(seconds=2)
    service.curl("POST", "/generate_ecc_key", {})
    changed = service.curl("PATCH", "/api/v1/keys/admin_ecc", {"rotation_period": "PT2S"})
    assert changed.status == 200, changed.text

    def made() -> list[datetime]:
        versions = service.curl("GET", "/api/v1/keys/admin_ecc").json["versions"]
        return sorted(datetime.fromisoformat(each["created_at"]) for each in versions)

    wait_until(lambda: len(made()) >= 4, every=0.2)  # by then every worker has come upon one that was due
    moments = made()
    assert all(later - earlier >= period for earlier, later in pairwise(moments)), moments
