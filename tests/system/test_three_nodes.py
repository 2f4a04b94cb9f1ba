"""Three real nodes on one PostgreSQL, while what is between and under them fails.

Whatever happens: a use is answered rightly or refused with 503, never by what was before a change that has answered,
never with 500; and when it is over, each node goes on by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pyotp
import pytest

from helpers.load import Load
from helpers.postgres_server import PostgresServer, require_postgres
from helpers.running import Running, Start, wait_until
from helpers.shell import ROOT
from helpers.support import b64
from helpers.trio import RedisServer, Trio, encrypts, metric, seconds_until, with_root_key
from kms.clock import utc_now
from kms.config import Settings
from kms.errors import StartError
from kms.operations.system.checking import INTEGRITY
from kms.vault import claims
from kms.vault.opening import open_vault
from kms.vault.schema import own_schema
from kms.vault.store import Vault

pytestmark = pytest.mark.slow
RIGHT = {200, 503}


@pytest.fixture(scope="module")
def trio(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    require_postgres()
    redis = RedisServer(tmp_path_factory.mktemp("redis")).start()
    database = PostgresServer.new(max_connections="60").initialize().start()
    made = Trio.made(start, database, redis, tmp_path_factory.mktemp)
    yield made
    logs = "".join(node.log.read_text() for node in made.all)
    for node in made.all:
        node.stop()
    made.proxy.stop()
    redis.end()
    database.remove()
    assert "Traceback" not in logs
    assert "internal-error" not in logs


@contextmanager
def loads(trio: Trio, key_id: str) -> Iterator[list[Load]]:
    """All nodes at work."""
    with ExitStack() as stack:
        working = [stack.enter_context(Load(node, node.token, key_id)) for node in trio.all]
        for load in working:
            load.wait_for(200)
        yield working


def statuses(working: list[Load], after: float) -> set[int]:
    return set().union(*(load.statuses(after) for load in working))


def said(node: Running, what: str) -> None:
    wait_until(lambda: what in node.log.read_text(), lambda: node.log.read_text()[-2000:])


# What one node takes away, while nothing fails


def test_what_one_node_takes_away_is_gone_on_the_others(trio: Trio) -> None:
    trio.key("taken")
    with loads(trio, "taken") as working:
        assert trio.a.curl("POST", "/api/v1/keys/taken/revoke", {}).status == 200
        answered = time.monotonic()
        time.sleep(0.5)
    assert statuses(working, answered) == {403}


# What one node does for all


FLEET = [f"fleet-{number}" for number in range(25)]


def test_a_node_dies_while_it_rotates_what_is_due(trio: Trio, tmp_path: Path) -> None:
    """The rest is its claim, which others take over when that has expired; the last test here looks at that."""
    made = trio.a.curl("POST", "/api/v1/keys", {"items": [{"key_id": each, "type": "rsa-2048"} for each in FLEET]})
    assert all(each["latest_version"] == 1 for each in made.json["items"])
    trio.key("in-time")
    vault = trio.vault(tmp_path)
    _make_due(vault, FLEET)
    wait_until(lambda: any(_rotated(node) & set(FLEET) for node in trio.all))
    busy = next(node for node in trio.all if _rotated(node) & set(FLEET))
    busy.stop(signal.SIGKILL)
    with vault.read() as snapshot:
        left = [key for key in map(snapshot.key_by_id, FLEET) if key is not None and key.latest_version == 1]
    assert left
    _make_due(vault, ["in-time"])  # what it had not claimed is done at once
    wait_until(lambda: _versions(vault, ["in-time"]) == [2])
    vault.close()
    trio.start_again(busy)


def _make_due(vault: Vault, key_ids: list[str]) -> None:
    with vault.change() as change:
        for key_id in key_ids:
            key = change.key_by_id(key_id)
            assert key is not None
            change.replace(key, replace(key, next_rotation_at=utc_now()))


def _versions(vault: Vault, key_ids: list[str]) -> list[int]:
    with vault.read() as snapshot:
        return [key.latest_version for key in map(snapshot.key_by_id, key_ids) if key is not None]


def _rotated(node: Running) -> set[str]:
    return {json.loads(line)["key_id"] for line in node.log.read_text().splitlines() if '"event": "rotated"' in line}


def test_the_integrity_check_is_done_by_one_node(trio: Trio, tmp_path: Path) -> None:
    def when() -> list[float]:
        return [metric(node, "kms_integrity_checked_timestamp_seconds") for node in trio.all]

    vault = trio.vault(tmp_path)
    wait_until(lambda: claims.look(vault, INTEGRITY).until and not claims.look(vault, INTEGRITY).position)
    before = when()
    claims.make_due(vault, INTEGRITY)
    wait_until(lambda: when() != before, every=0.5)
    time.sleep(2)
    assert sum(then != now for then, now in zip(before, when(), strict=True)) == 1
    vault.close()


# One node and the way to its database


def stop(trio: Trio) -> Callable[[], None]:
    pids = trio.b.all_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return lambda: [os.kill(pid, signal.SIGCONT) for pid in reversed(pids)] and None


def cut(trio: Trio) -> Callable[[], None]:
    trio.proxy.cut(refuse=True)
    return trio.proxy.heal


def hang(trio: Trio) -> Callable[[], None]:
    trio.proxy.hangs = True
    return trio.proxy.heal


def delay(trio: Trio) -> Callable[[], None]:
    trio.proxy.delay_seconds = 0.3
    return trio.proxy.heal


@pytest.mark.parametrize("fault", [stop, cut, hang, delay])
def test_a_node_that_does_not_reach_its_database_uses_nothing_that_was_taken_away(
    trio: Trio, fault: Callable[[Trio], Callable[[], None]], record_property: Callable[[str, object], None]
) -> None:
    key_id = f"gone-{fault.__name__}"
    trio.key(key_id)
    with Load(trio.b, trio.b.token, key_id) as load:
        load.wait_for(200)
        heal = fault(trio)
        revoked = seconds_until(lambda: trio.a.curl("POST", f"/api/v1/keys/{key_id}/revoke", {}).status == 200)
        answered = time.monotonic()
        time.sleep(1.0)
        heal()
        back = seconds_until(lambda: encrypts(trio.b, key_id) == 403)
    record_property("seconds until revoked", revoked)
    record_property("seconds until back", back)
    print(f"TIMES {fault.__name__}: revoked after {revoked:.2f} s, back after {back:.2f} s")
    assert load.statuses(answered) <= {403, 503}
    assert load.statuses(answered)
    trio.key("steady")
    assert encrypts(trio.b, "steady") == 200


def test_a_connection_that_says_nothing_is_given_up(trio: Trio) -> None:
    """A frozen server, or a proxy before one, acknowledges for ever. Connections made later work."""
    trio.key("steady")
    assert encrypts(trio.b, "steady") == 200
    assert trio.proxy.freeze()
    wait_until(lambda: encrypts(trio.b, "steady") == 503)
    back = seconds_until(lambda: encrypts(trio.b, "steady") == 200)
    print(f"TIMES silent connections given up after {back:.2f} s")


def test_a_node_that_stops_while_it_holds_the_lock_of_all_changes(trio: Trio) -> None:
    """It waits inside its change for another lock, of this test, and stops. PostgreSQL ends its transaction."""
    trio.key("steady")
    answers: list[int] = []
    change = threading.Thread(
        target=lambda: answers.append(trio.b.curl("POST", "/api/v1/keys", {"key_id": "half-made"}).status),
        daemon=True,
    )
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'keys'::regclass"
    refused = set[int]()
    with Load(trio.a, trio.a.token, "steady") as load, ExitStack() as stack:
        load.wait_for(200)
        with psycopg.connect(f"{trio.database.url}/{trio.name}") as connection:
            connection.execute("LOCK TABLE keys IN EXCLUSIVE MODE")
            change.start()
            wait_until(lambda: bool(trio.database.ask(waits, database=trio.name)))
            stack.callback(stop(trio))
        began = time.monotonic()
        while (status := trio.a.curl("POST", "/api/v1/keys/steady/rotate", {}).status) != 200:
            refused.add(status)
            assert time.monotonic() < began + 60
        back = time.monotonic() - began
        assert trio.a.curl("GET", "/api/v1/keys/half-made").status == 404
    print(f"TIMES a node that holds the lock: changes back after {back:.2f} s")
    assert refused == {503}
    assert load.statuses(began) <= RIGHT
    change.join(30)
    assert answers == [503]
    assert trio.a.curl("GET", "/api/v1/keys/half-made").status == 404
    wait_until(lambda: trio.b.curl("POST", "/api/v1/keys/steady/rotate", {}).status == 200)


# What all nodes stand on


def paused(trio: Trio) -> None:
    trio.database.pause()
    time.sleep(2)
    trio.database.resume()


def restarted(trio: Trio) -> None:
    trio.database.stop()
    trio.database.start()


def crashed(trio: Trio) -> None:
    trio.database.stop(signal.SIGKILL)
    (trio.database.data / "postmaster.pid").unlink(missing_ok=True)
    trio.database.start()


def terminated(trio: Trio) -> None:
    for _ in range(20):
        trio.database.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'trio'")
        time.sleep(0.05)


def out_of_connections(trio: Trio) -> None:
    taken = []
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(f"{trio.database.url}/postgres"))
    taken[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'trio'")
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(f"{trio.database.url}/postgres"))
    time.sleep(2)
    for each in taken:
        each.close()


@pytest.mark.parametrize("fault", [paused, restarted, crashed, terminated, out_of_connections])
def test_a_database_that_is_away_makes_nothing_wrong(trio: Trio, fault: Callable[[Trio], None]) -> None:
    trio.key("kept")
    made: list[str] = []
    with loads(trio, "kept") as working, _making(trio, fault.__name__, made):
        began = time.monotonic()
        fault(trio)
        back = seconds_until(lambda: all(encrypts(node, "kept") == 200 for node in trio.all))
        changes = seconds_until(lambda: all(_rotates(node) for node in trio.all))
    print(f"TIMES {fault.__name__}: uses back after {back:.2f} s, changes after {back + changes:.2f} s")
    assert statuses(working, began) <= RIGHT
    assert made
    for key_id in made:
        assert trio.b.curl("GET", f"/api/v1/keys/{key_id}").status == 200


def _rotates(node: Running) -> bool:
    answer = node.curl("POST", "/api/v1/keys/kept/rotate", {})
    assert answer.status in RIGHT, answer.text
    return answer.status == 200


@contextmanager
def _making(trio: Trio, name: str, acknowledged: list[str]) -> Iterator[None]:
    """Meanwhile make keys on two nodes, and remember which are acknowledged."""
    done = threading.Event()
    wrong: list[str] = []

    def make(node: Running, which: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            key_id = f"{name}-{which}-{number}"
            answer = node.curl("POST", "/api/v1/keys", {"key_id": key_id})
            if answer.status == 201:
                acknowledged.append(key_id)
            elif answer.status != 503:
                wrong.append(answer.text)

    threads = [threading.Thread(target=make, args=(node, which)) for which, node in enumerate((trio.a, trio.c))]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        done.set()
        for each in threads:
            each.join(timeout=60)
    assert not wrong


def test_a_database_that_is_read_only_refuses_changes_and_lets_uses_go_on(trio: Trio) -> None:
    trio.key("read")
    with loads(trio, "read") as working:
        began = time.monotonic()
        trio.database.ask("ALTER SYSTEM SET default_transaction_read_only = on")
        trio.database.ask("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: trio.a.curl("POST", "/api/v1/keys/read/rotate", {}).status == 503)
            for node in trio.all:
                answer = node.curl("POST", "/api/v1/keys/read/rotate", {})
                assert answer.status == 503
                assert "read-only" in answer.json["detail"]
        finally:
            trio.database.ask("ALTER SYSTEM RESET default_transaction_read_only")
            trio.database.ask("SELECT pg_reload_conf()")
        back = seconds_until(lambda: trio.b.curl("POST", "/api/v1/keys/read/rotate", {}).status == 200)
    print(f"TIMES read-only: changes back after {back:.2f} s")
    assert statuses(working, began) == {200}


# Redis


def test_nodes_count_limits_for_themselves_while_redis_is_away(trio: Trio) -> None:
    assert metric(trio.a, "kms_rate_limits_alone") == 0
    assert not _passed_of(trio, 25) > 20
    trio.redis.end()
    try:
        assert _passed_of(trio, 70) == 60  # three nodes, each for itself
        for node in trio.all:
            said(node, "RATE LIMITS COUNT PER NODE")
            wait_until(lambda: metric(node, "kms_rate_limits_alone") == 1)  # noqa: B023
    finally:
        trio.redis.start()
    for node in trio.all:
        said(node, "counted over all nodes again")
    wait_until(lambda: metric(trio.a, "kms_rate_limits_alone") == 0)


def _passed_of(trio: Trio, count: int) -> int:
    """How many of so many unauthenticated requests, in turn over the nodes, are not limited."""
    answers = [trio.all[number % 3].curl("GET", "/docs", token="").status for number in range(count)]
    assert set(answers) <= {200, 429}
    return answers.count(200)


# Nodes that are not like the others


def test_a_node_with_another_root_key_is_refused_with_the_reason(trio: Trio, tmp_path: Path) -> None:
    folder = with_root_key(tmp_path, trio.a)
    (folder / "kms-data" / "root.key").write_text(f"kms-root-key-v1:{b64(os.urandom(32))}\n")
    settings = Settings(data_dir=folder / "kms-data", database_url=f"{trio.database.url}/{trio.name}")
    with pytest.raises(StartError, match="another root key"):
        open_vault(settings)
    assert len(trio.nodes()) == 3


def test_clocks_that_are_minutes_apart_are_said_and_take_nothing_away(trio: Trio, tmp_path: Path) -> None:
    behind = trio.another(tmp_path, clock_ahead=-180)
    try:
        said(behind, "THE CLOCK OF THIS NODE DIFFERS")
        assert -185 < metric(behind, "kms_clock_offset_seconds") < -175
        assert abs(metric(trio.a, "kms_clock_offset_seconds")) < 5
        wait_until(lambda: any(-185_000 < row[-1] < -175_000 for row in trio.nodes()))
        _leases_hold(trio, behind)
        _codes_are_used_once(trio, behind)
        _sessions_end(trio)
    finally:
        behind.stop()


def _leases_hold(trio: Trio, behind: Running) -> None:
    for at, (changed, used) in enumerate([(trio.a, behind), (behind, trio.a)]):
        trio.key(f"apart-{at}")
        with Load(used, used.token, f"apart-{at}") as load:
            load.wait_for(200)
            assert changed.curl("POST", f"/api/v1/keys/apart-{at}/revoke", {}).status == 200
            answered = time.monotonic()
            time.sleep(0.5)
        assert load.statuses(answered) == {403}


def _codes_are_used_once(trio: Trio, behind: Running) -> None:
    """A code of now is refused where it is three minutes ago, and one that was taken there is taken nowhere again."""
    early, late = trio.a.enrol("early"), trio.a.enrol("late")

    def logs_in(node: Running, who: dict[str, Any], code: str) -> int:
        credentials = ("-u", f"{who['client_id']}:{who['client_secret']}", "-H", f"X-TOTP: {code}")
        return node.curl("POST", "/auth/token", None, *credentials, token="").status

    old = pyotp.TOTP(early["totp_secret"]).at(int(time.time()) - 180)
    assert logs_in(behind, early, old) == 200
    assert logs_in(behind, early, old) == 401
    assert logs_in(trio.a, early, old) == 401
    codes = pyotp.TOTP(late["totp_secret"])
    assert logs_in(behind, late, codes.at(int(time.time()))) == 401
    assert logs_in(trio.a, late, codes.at(int(time.time()))) == 200


def _sessions_end(trio: Trio) -> None:
    """On the nodes whose clocks are right; on one that is behind a session lives longer by what that is behind."""
    brief = trio.a.enrol("brief")
    credentials = ("-u", f"brief:{brief['client_secret']}", "-H", f"X-TOTP: {trio.a.code(brief)}")
    form = ("-d", "grant_type=client_credentials&expires_in=3")
    token = trio.a.curl("POST", "/auth/token", None, *credentials, *form, token="").json["access_token"]
    assert trio.b.curl("GET", "/api/v1/keys", token=token).status == 200
    wait_until(lambda: trio.a.curl("GET", "/api/v1/keys", token=token).status == 401, every=0.2)
    assert trio.b.curl("GET", "/api/v1/keys", token=token).status == 401


def test_nodes_are_upgraded_one_by_one_and_back(trio: Trio, tmp_path: Path) -> None:
    """The newer release is this one with one more migration, which only adds something."""
    trio.key("upgraded")
    own = own_schema().revision
    newer = f"{int(own) + 1:04}"
    with Load(trio.a, trio.a.token, "upgraded") as load:
        load.wait_for(200)
        began = time.monotonic()
        trio.c.stop()
        upgraded = trio.start_again(trio.c, str(_newer_release(tmp_path, own, newer)))
        assert trio.database.ask("SELECT version_num FROM alembic_version", database=trio.name) == [(newer,)]
        wait_until(lambda: sorted(row[5] for row in trio.nodes()) == [own, own, newer])
        for node in trio.all:
            wait_until(lambda: encrypts(node, "upgraded") == 200)  # noqa: B023
            wait_until(lambda: node.curl("POST", "/api/v1/keys/upgraded/rotate", {}).status == 200)  # noqa: B023
        (worker,) = trio.b.worker_pids()
        os.kill(worker, signal.SIGKILL)
        trio.b.wait_for_workers(1, {worker})  # the older release opens the newer schema
        wait_until(lambda: _answers(trio.b) and encrypts(trio.b, "upgraded") == 200)
        upgraded.stop()
        trio.start_again(upgraded)
        wait_until(lambda: encrypts(trio.c, "upgraded") == 200)
    assert load.statuses(began) <= RIGHT


def _answers(node: Running) -> bool:
    with suppress(subprocess.CalledProcessError):
        return node.curl("GET", "/livez", token="").status == 200
    return False


def _newer_release(folder: Path, own: str, newer: str) -> Path:
    """Its `app.py`."""
    shutil.copytree(ROOT / "kms", folder / "newer" / "kms", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", folder / "newer" / "app.py")
    (folder / "newer" / "kms" / "vault" / "migrations" / "versions" / f"{newer}_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n\n"
        f'revision = "{newer}"\ndown_revision = "{own}"\ncompatible_from = "{own}"\n\n\n'
        "def upgrade() -> None:\n"
        '    op.add_column("keys", sa.Column("more", sa.String(16), nullable=False, server_default=""))\n'
    )
    return folder / "newer" / "app.py"


def test_what_a_dead_node_had_claimed_was_done_by_another_and_once(trio: Trio, tmp_path: Path) -> None:
    vault = trio.vault(tmp_path)
    wait_until(lambda: min(_versions(vault, FLEET)) == 2, every=0.5)
    time.sleep(2)
    assert _versions(vault, FLEET) == [2] * len(FLEET)
    vault.close()
