"""What is taken away is gone at once: with four workers, under load, with the database paused in between."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from helpers.load import Load
from helpers.running import Running, Start
from helpers.support import new_database

LEASE = 0.25


@dataclass
class Paused:
    """A running service and what pauses its database. Reads go on where only writing can be paused."""

    service: Running
    pause: Callable[[], contextlib.AbstractContextManager[None]]
    stops_reading: bool


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def paused(request: pytest.FixtureRequest, start: Start) -> Paused:
    flags = ["--workers", "4", "--rate-limit", "off"]
    if request.param == "sqlite":
        service = start(*flags)
        return Paused(service, lambda: _write_lock(service.folder / "kms-data" / "kms.db"), stops_reading=False)
    url = new_database(request.getfixturevalue("postgres"))
    return Paused(start(*flags, "--database-url", url), lambda: _stopped(url), stops_reading=True)


@contextlib.contextmanager
def _write_lock(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextlib.contextmanager
def _stopped(url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as connection:
        server = int(Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGSTOP)  # first, so that no connection is made that is not stopped
    children = subprocess.run(["pgrep", "-P", str(server)], capture_output=True, text=True, check=False)
    stopped = [server]
    for pid in map(int, children.stdout.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
    try:
        yield
    finally:
        for pid in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@dataclass
class Scene:
    """Whose key is used by whom, and what takes that away."""

    key_id: str
    user: str
    take_away: Callable[[], Any]


def scene(service: Running, kind: str) -> Scene:
    """A new client with a key; for a grant and for whole clients another one that uses it."""
    owner, key_id = service.user(f"{kind}-owner"), f"{kind}-key"
    made = service.curl("POST", "/api/v1/keys", {"key_id": key_id}, token=owner)
    assert made.status == 201, made.text
    if kind in ("revoke", "suspend"):
        return Scene(key_id, owner, lambda: service.curl("POST", f"/api/v1/keys/{key_id}/{kind}", {}, token=owner))
    other = service.user(f"{kind}-other")
    grant = {"subject": f"client:{kind}-other", "permission": "keys:encrypt", "key_pattern": key_id}
    granted = service.curl("POST", "/api/v1/grants", grant, token=owner)
    assert granted.status == 201, granted.text
    path = f"/api/v1/grants/{granted.json['grant_id']}"
    calls: dict[str, Callable[[], Any]] = {
        "grant": lambda: service.curl("DELETE", path, token=owner),
        "token": lambda: service.curl("POST", "/auth/logout", token=other),
        "client": lambda: service.curl("POST", f"/api/v1/clients/{kind}-other/disable"),
    }
    return Scene(key_id, other, calls[kind])


@pytest.mark.parametrize("kind", ["revoke", "suspend", "grant", "token", "client"])
def test_nothing_succeeds_that_began_after_it_was_taken_away(paused: Paused, kind: str) -> None:
    made = scene(paused.service, kind)
    answered: list[float] = []

    def take_away() -> None:
        while (answer := made.take_away()).status == 503:  # it came when no lease could be had: as the answer says
            time.sleep(0.1)
        answered.append(time.monotonic())
        assert answer.status == 200, answer.text

    with Load(paused.service, made.user, made.key_id) as load:
        load.wait_for(200)
        with paused.pause():  # for less than the lease
            time.sleep(LEASE / 3)
        load.wait_for(200)
        with paused.pause():  # for longer
            away_since = time.monotonic()
            time.sleep(4 * LEASE)
            away_until = time.monotonic()
        during = load.statuses(away_since + 1.5 * LEASE, away_until)
        assert during <= {503} if paused.stops_reading else during == {200}, during
        load.wait_for(200)
        with paused.pause():  # and while it is being taken away
            change = threading.Thread(target=take_away)
            change.start()
            time.sleep(2 * LEASE)
            assert not answered
        change.join(timeout=60)
        assert answered
        time.sleep(0.5)
    assert 200 not in load.statuses(answered[0])
    assert load.statuses(answered[0])
