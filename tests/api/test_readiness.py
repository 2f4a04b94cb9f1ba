"""`/readyz` and an actual use, in the same state: both are refused, for the same reason, or neither is."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.running import wait_until
from helpers.support import LEASE, SteeredClock, Template, World, free_port, kind_of, settings_for
from kms.errors import StartError


def require_same(world: World, alice: Any, *, kind: str = "") -> str:
    """That a use and the probe are both refused with this problem type and one detail, or both answered."""
    uses = [
        lambda: alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""}),  # on the fast path
        lambda: alice.http.post("/api/v1/keys/k/encrypt?x", json={"plaintext": ""}, headers=alice.headers),
        lambda: alice.post("/api/v1/keys/k/encrypt", {"items": [{"plaintext": ""}]}),
    ]
    details = set()
    for use in uses:
        for answer in (world.http.get("/readyz"), use(), world.http.get("/readyz?verbose")):
            if not kind:
                assert answer.status_code == 200, answer.text
                continue
            assert (answer.status_code, kind_of(answer)) == (503, kind), answer.text
            details.add(answer.json["detail"])
    assert len(details) == (1 if kind else 0)
    return "".join(details)


def with_key(world: World) -> Any:
    alice = world.user("alice")
    assert alice.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    require_same(world, alice)
    return alice


def outlast_lease() -> None:
    time.sleep(LEASE.total_seconds() * 2)


def test_a_database_that_is_not_trusted(world: World) -> None:
    alice = with_key(world)
    world.service.vault.stop_trusting("Rows were altered.")
    outlast_lease()
    assert "Rows were altered." in require_same(world, alice, kind="integrity-failure")
    world.service.vault.host.distrust = None
    wait_until(lambda: world.service.memory.held)
    require_same(world, alice)


def test_another_process_of_the_host_found_it_out(world: World) -> None:
    alice = with_key(world)
    world.service.vault.host.distrust = "Another worker found something."
    outlast_lease()
    require_same(world, alice, kind="integrity-failure")


def test_no_lease(world: World) -> None:
    """As in a worker that is stopping, or whose database does not answer."""
    alice = with_key(world)
    world.service.memory.stop()
    outlast_lease()
    require_same(world, alice, kind="unavailable")


def test_a_change_that_this_worker_has_not_heard_of(world: World) -> None:
    alice = with_key(world)
    world.service.memory.stop()
    host = world.service.vault.host
    world.service.memory.ends = float("inf")  # whatever the lease says
    require_same(world, alice)
    host.announce(world.service.memory.epoch + 1)
    require_same(world, alice, kind="unavailable")


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_from_the_first_entry_that_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was allocated ahead is used up first: as long as the one says yes, so does the other."""
    alice = with_key(world)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    for _ in range(230):  # of the 256 KiB
        world.service.spool.append(b"{" + b" " * 998 + b"}", bytes(32))
    statuses = set()
    for length in (1, 60, 200, 1, 128) * 400:
        key_id = "k".ljust(length, "x")[:128]
        ready = world.http.get("/readyz").status_code
        use = alice.post(f"/api/v1/keys/{key_id}/encrypt", {"plaintext": ""}).status_code
        assert (ready == 503) == (use == 503)
        statuses.add(ready)
        if ready == 503:
            break
    assert statuses == {200, 503}
    assert "disk full" in require_same(world, alice, kind="unavailable")
    monkeypatch.undo()
    require_same(world, alice)


def test_entries_that_cannot_be_made_durable(template: Template, tmp_path: Path, clock: SteeredClock) -> None:
    service = template.open(settings_for(tmp_path / "data", audit_fsync="always"), clock)
    try:
        world = World.of(service)
        alice = with_key(world)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "fsync", no_space)
            require_same(world, alice, kind="unavailable")
        require_same(world, alice)
    finally:
        service.close()


def test_a_folder_of_the_audit_log_that_cannot_be_made(world: World) -> None:
    alice = with_key(world)
    directory = world.service.settings.spool_dir
    shutil.rmtree(directory)
    directory.write_text("in the way")
    time.sleep(1.1)  # so often a worker looks whether its file is still there
    require_same(world, alice, kind="unavailable")
    directory.unlink()
    require_same(world, alice)


def test_a_service_that_was_closed(template: Template, tmp_path: Path, clock: SteeredClock) -> None:
    service = template.open(settings_for(tmp_path / "data"), clock)
    world = World.of(service)
    alice = with_key(world)
    service.memory.ends = float("inf")
    service.spool.close()
    time.sleep(1.1)
    require_same(world, alice, kind="unavailable")
    service.memory.stop()
    service.vault.close()


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[None]:
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="Redis is not installed")
def test_counters_that_are_away(template: Template, tmp_path: Path, clock: SteeredClock) -> None:
    """What becomes of a use is the same for the probe, whether it is refused then or counted by this node alone."""
    port = free_port()
    settings = settings_for(tmp_path / "data", redis_url=f"redis://127.0.0.1:{port}")
    with redis_server(tmp_path, port):
        opened: list[Any] = []

        def is_open() -> bool:
            try:
                shutil.rmtree(settings.data_dir, ignore_errors=True)
                opened.append(template.open(settings, clock))
                opened[0].rate_limits.require_storage()
            except StartError:
                opened.pop().close()
            return bool(opened)

        wait_until(is_open)
        world = World.of(opened[0])
        alice = with_key(world)
    use = alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""})
    require_same(world, alice, kind="" if use.status_code == 200 else kind_of(use))
    opened[0].close()


def test_what_a_use_does_without(world: World) -> None:
    """A database that takes no changes, and folders of counters and metrics that are gone, refuse nothing."""
    alice = with_key(world)
    run = world.service.settings.run_dir
    with closing(sqlite3.connect(world.service.settings.data_dir / "kms.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        shutil.rmtree(run)
        outlast_lease()
        require_same(world, alice)
        for _ in range(1100):  # so many are added up at once
            world.service.metrics.count("encrypt", "success", 0.001)
        require_same(world, alice)
        other.execute("ROLLBACK")


def test_verbose_names_every_condition(world: World) -> None:
    lines = world.http.get("/readyz?verbose").text.splitlines()
    assert lines[:4] == ["ok", "lease: ok", "audit log: ok", "rate limits: ok"]
    assert lines[4].startswith("integrity check: ")
