"""Two nodes on one PostgreSQL: what is taken away on one is gone on the other, also when that stops or dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from helpers.load import Load
from helpers.running import Running, Start, wait_until
from helpers.support import new_database

FLAGS = ("--workers", "2", "--rate-limit", "off")


@dataclass
class Pair:
    """Two nodes with the same database and the same root key."""

    first: Running
    second: Running
    url: str

    def nodes(self) -> int:
        with closing(psycopg.connect(self.url)) as connection:
            return int(connection.execute("SELECT count(*) FROM nodes").fetchone()[0])  # type: ignore[index]

    def key(self, key_id: str) -> None:
        assert self.first.curl("POST", "/api/v1/keys", {"key_id": key_id}).status == 201

    def second_start(self, start: Start) -> None:
        self.second = start(*FLAGS, "--database-url", self.url, folder=self.second.folder, login=False)
        self.second.token = self.first.token


@pytest.fixture(scope="module")
def pair(start: Start, postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    url = new_database(postgres)
    first = start(*FLAGS, "--database-url", url)
    folder: Path = tmp_path_factory.mktemp("second")
    (folder / "kms-data").mkdir(mode=0o700)
    key = folder / "kms-data" / "root.key"
    key.write_bytes((first.folder / "kms-data" / "root.key").read_bytes())
    key.chmod(0o600)
    second = start(*FLAGS, "--database-url", url, folder=folder, login=False)
    second.token = first.token
    made = Pair(first, second, url)
    wait_until(lambda: made.nodes() == 2)
    return made


@contextmanager
def stopped(service: Running) -> Iterator[None]:
    """All processes of a node, for a while."""
    pids = service.all_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("change", ["revoke", "suspend"])
def test_what_one_node_takes_away_is_gone_on_the_other(pair: Pair, change: str) -> None:
    pair.key(f"k-{change}")
    with Load(pair.second, pair.second.token, f"k-{change}") as load:
        load.wait_for(200)
        assert pair.first.curl("POST", f"/api/v1/keys/k-{change}/{change}", {}).status == 200
        answered = time.monotonic()
        time.sleep(0.5)
    assert load.statuses(answered)
    assert 200 not in load.statuses(answered)


def test_a_node_that_was_stopped_meanwhile_uses_nothing_that_is_gone(pair: Pair) -> None:
    pair.key("stopped")
    with Load(pair.second, pair.second.token, "stopped") as load:
        load.wait_for(200)
        with stopped(pair.second):
            assert pair.first.curl("POST", "/api/v1/keys/stopped/revoke", {}).status == 200
            answered = time.monotonic()
        time.sleep(1.0)
    assert load.statuses(answered)
    assert 200 not in load.statuses(answered)


def test_both_nodes_change_one_key_at_once(pair: Pair) -> None:
    pair.key("busy")
    statuses: list[int] = []

    def rotate(node: Running) -> None:
        statuses.extend(node.curl("POST", "/api/v1/keys/busy/rotate", {}).status for _ in range(10))

    threads = [threading.Thread(target=rotate, args=(node,)) for node in (pair.first, pair.second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert statuses == [200] * 20
    for node in (pair.first, pair.second):
        assert node.curl("GET", "/api/v1/keys/busy").json["latest_version"] == 21
        assert node.curl("POST", "/api/v1/keys/busy/encrypt", {"plaintext": ""}).json["version"] == 21


def test_a_node_that_ends_is_not_waited_for(pair: Pair, start: Start) -> None:
    pair.second.stop()
    wait_until(lambda: pair.nodes() == 1)
    pair.second_start(start)
    wait_until(lambda: pair.nodes() == 2)


@pytest.mark.slow
def test_a_node_that_is_killed_is_forgotten_within_a_minute(pair: Pair, start: Start) -> None:
    pair.key("killed")
    pair.second.stop(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while pair.nodes() > 1:
        assert time.monotonic() < deadline
        assert pair.first.curl("POST", "/api/v1/keys/killed/rotate", {}).status == 200
        time.sleep(1)
    pair.second_start(start)
    wait_until(lambda: pair.nodes() == 2)
    assert pair.second.curl("POST", "/api/v1/keys/killed/encrypt", {"plaintext": ""}).status == 200


@pytest.mark.slow
def test_a_node_that_was_stopped_until_it_was_forgotten_joins_again_and_knows(pair: Pair) -> None:
    pair.key("asleep")
    with Load(pair.second, pair.second.token, "asleep") as load:
        load.wait_for(200)
        with stopped(pair.second):
            wait_until(lambda: pair.nodes() == 1)
            assert pair.first.curl("POST", "/api/v1/keys/asleep/revoke", {}).status == 200  # waits for nobody
            answered = time.monotonic()
        wait_until(lambda: pair.nodes() == 2)
        time.sleep(1.0)
    assert load.statuses(answered)
    assert 200 not in load.statuses(answered)
