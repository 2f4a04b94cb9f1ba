"""Memory: nothing stale after a change has answered, nothing at all when the database is away too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, text, update

from kms.access.model import Grant
from kms.config import Settings
from kms.errors import IntegrityFailure, Unavailable
from kms.vault import names, tables
from kms.vault.memory import Cache, Memory
from kms.vault.opening import open_vault
from kms.vault.rows import Mount
from kms.vault.store import Vault

LEASE = 0.1
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def vault(database_url: str, tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(
        Settings(data_dir=tmp_path / "data", database_url=database_url, lease=timedelta(seconds=LEASE))
    )
    yield opened
    opened.close()


@pytest.fixture
def memories(vault: Vault) -> Iterator[list[Memory]]:
    """Three workers of one host."""
    held = [Memory(vault) for _ in range(3)]
    for memory in held:
        memory.start()
    yield held
    for memory in held:
        memory.stop()


def outdate(vault: Vault, mount: str) -> None:
    """A change that outdates a mount and nothing else."""
    with vault.change() as change:
        before = change.find(Mount, mount)
        if before is not None:
            change.delete(before)
        change.insert(Mount(mount, "", NOW))


def cached(memory: Memory) -> Cache[str, str]:
    return Cache(memory, 10)


def resting_on(value: str, *mounts: str) -> tuple[str, tuple[str, ...]]:
    return value, tuple(map(names.of_mount, mounts))


def test_nothing_stale_is_used_after_a_change_has_answered(vault: Vault, memories: list[Memory]) -> None:
    """Workers that read all the time, against a value that changes all the time."""
    stored = {"value": 0}
    answered = {"value": 0}
    stale: list[tuple[int, int]] = []
    stop = threading.Event()
    outdate(vault, "m")

    def work(memory: Memory) -> None:
        cache: Cache[str, int] = Cache(memory, 10)
        while not stop.is_set():
            promised = answered["value"]
            try:
                got = cache.get("k", lambda: (stored["value"], (names.of_mount("m"),)))
            except Unavailable:  # a lease that ended for want of processor time; refusing is always right
                continue
            if got < promised:
                stale.append((got, promised))

    threads = [threading.Thread(target=work, args=(memory,)) for memory in memories]
    for thread in threads:
        thread.start()
    for number in range(1, 51):
        with vault.change() as change:
            before = change.find(Mount, "m")
            assert before is not None
            change.delete(before)
            change.insert(Mount("m", "", NOW + timedelta(seconds=number)))
            stored["value"] = number  # what others read once the change has committed
        answered["value"] = number
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert stale == []


def test_a_change_outdates_what_it_names_and_nothing_else(vault: Vault, memories: list[Memory]) -> None:
    outdate(vault, "a")
    outdate(vault, "b")
    caches = [cached(memory) for memory in memories]
    for cache in caches:
        for key, mounts in (("a", ["a"]), ("b", ["b"]), ("both", ["a", "b"])):
            cache.get(key, lambda mounts=mounts: resting_on("old", *mounts))
    outdate(vault, "a")
    for cache in caches:
        assert cache.get("b", lambda: resting_on("new", "b")) == "old"
        assert cache.get("a", lambda: resting_on("new", "a")) == "new"
        assert cache.get("both", lambda: resting_on("new", "a", "b")) == "new"


def test_what_only_adds_outdates_nothing(vault: Vault, memories: list[Memory]) -> None:
    caches = [cached(memory) for memory in memories]
    for cache in caches:
        cache.get("k", lambda: resting_on("old", "new"))
    epochs = [memory.epoch for memory in memories]
    with vault.change() as change:
        change.insert(Mount("new", "", NOW))
    for memory, cache in zip(memories, caches, strict=True):
        memory.refresh()
        assert cache.get("k", lambda: resting_on("new", "new")) == "old"
    assert [memory.epoch for memory in memories] == epochs


def test_a_grant_that_is_given_outdates_its_subject(vault: Vault, memories: list[Memory]) -> None:
    cache = cached(memories[0])
    cache.get("k", lambda: ("old", (names.of_client("bob"),)))
    with vault.change() as change:
        change.insert(Grant("0" * 32, "alice", "client:bob", "keys:encrypt", "*", NOW))
    assert cache.get("k", lambda: ("new", ())) == "new"


def test_a_value_read_before_a_change_is_not_kept_after_it(vault: Vault, memories: list[Memory]) -> None:
    cache = cached(memories[0])
    outdate(vault, "m")

    def slow_load() -> tuple[str, tuple[str, ...]]:
        outdate(vault, "m")
        time.sleep(LEASE)  # the worker has seen the new epoch by now
        return resting_on("old", "m")

    assert cache.get("k", slow_load) == "old"
    assert cache.get("k", lambda: resting_on("new", "m")) == "new"


@pytest.mark.parametrize("harm", ["a row is gone", "a row was altered"])
def test_a_worker_that_cannot_know_what_changed_forgets_everything(vault: Vault, harm: str) -> None:
    """As on another node: this memory is not told of commits."""
    memory = Memory(vault)
    vault.memories.clear()
    outdate(vault, "a")
    memory.start()
    cache = cached(memory)
    cache.get("k", lambda: resting_on("old", "unconcerned"))
    memory.stop()  # it does not read what changed before the row is gone
    outdate(vault, "a")
    with vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        newest = tables.changes.c.epoch == memory.epoch + 1
        is_gone = harm == "a row is gone"
        connection.execute(
            delete(tables.changes).where(newest)
            if is_gone
            else update(tables.changes).where(newest).values(names=b"\x90")
        )
    assert cache.find("k") == "old"
    memory.renew()
    assert cache.find("k") is None


def test_without_a_database_answers_end_with_the_lease(
    vault: Vault, memories: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memories[0]
    cache = cached(memory)
    assert cache.get("k", lambda: ("value", ())) == "value"

    def away() -> None:
        raise Unavailable("away")

    for way in ("read", "glance"):
        monkeypatch.setattr(memory._vault, way, away)
    time.sleep(LEASE * 1.5)
    assert not memory.held
    with pytest.raises(Unavailable):
        cache.get("k", lambda: ("value", ()))
    monkeypatch.undo()
    assert cache.get("k", lambda: ("other", ())) == "value"  # nothing has changed meanwhile


def test_an_epoch_that_was_announced_is_caught_up_with(vault: Vault) -> None:
    """Two processes of a host have a file in common, and each its own memory."""
    first, second = Memory(vault), Memory(vault)
    vault.memories.remove(second)  # it is in another process
    for memory in (first, second):
        memory.start()
        memory.require()  # a change moves only the epoch of a memory that has read the head
    cache = cached(second)
    outdate(vault, "m")
    cache.get("k", lambda: resting_on("old", "m"))
    with second._changed:  # it does not catch up by itself meanwhile
        outdate(vault, "m")
        assert second.epoch < first.epoch
    assert cache.get("k", lambda: resting_on("new", "m")) == "new"
    assert second.epoch == first.epoch
    for memory in (first, second):
        memory.stop()


def copy_of(vault: Vault, tmp_path: Path) -> dict[str, list[dict[str, object]]]:
    with vault.engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in tables.metadata.sorted_tables
        }


def put_back(vault: Vault, copy: dict[str, list[dict[str, object]]]) -> None:
    with vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        for table in tables.metadata.sorted_tables:
            connection.execute(delete(table))
            if copy[table.name]:
                connection.execute(table.insert(), copy[table.name])


def test_a_database_that_was_put_back_is_not_trusted_any_more(
    vault: Vault, memories: list[Memory], tmp_path: Path
) -> None:
    for memory in memories:
        memory.require()
    copy = copy_of(vault, tmp_path)
    outdate(vault, "m")
    for memory in memories:
        memory.refresh()
    newer = copy_of(vault, tmp_path)
    put_back(vault, copy)
    time.sleep(LEASE * 1.5)
    for memory in memories:
        with pytest.raises(IntegrityFailure, match="older than what was seen"):
            memory.require()
    with pytest.raises(IntegrityFailure), vault.change():
        pass
    put_back(vault, newer)  # that it looks right again does not say what happened meanwhile
    time.sleep(LEASE * 1.5)
    with pytest.raises(IntegrityFailure):
        memories[0].require()
    assert vault.host.distrust is not None


def test_a_head_that_was_altered_or_removed_is_not_trusted(vault: Vault, memories: list[Memory]) -> None:
    memories[0].require()
    with vault.engine.begin() as connection:
        connection.execute(text("DELETE FROM head"))
    time.sleep(LEASE * 1.5)
    with pytest.raises(IntegrityFailure, match="head"):
        memories[0].require()


def test_another_history_of_the_same_length_is_noticed(vault: Vault, memories: list[Memory], tmp_path: Path) -> None:
    memory = memories[0]
    memory.require()
    copy = copy_of(vault, tmp_path)
    outdate(vault, "m")
    memory.refresh()
    assert memory._head is not None
    forged = replace(memory._head, digests={})
    copy["head"][0]["sealed"] = forged.sealed(vault.derived_keys)  # as another node would have written it
    put_back(vault, copy)
    time.sleep(LEASE * 1.5)
    with pytest.raises(IntegrityFailure):
        memory.require()


def test_a_cache_is_bounded_and_forgets_what_was_used_least_recently(memories: list[Memory]) -> None:
    cache: Cache[int, str] = Cache(memories[0], 3)
    for number in (1, 2, 3):
        cache.get(number, lambda: ("kept", ()))
    cache.get(1, lambda: ("again", ()))
    cache.get(4, lambda: ("kept", ()))
    assert cache.get(1, lambda: ("loaded", ())) == "kept"
    assert cache.get(2, lambda: ("loaded", ())) == "loaded"
