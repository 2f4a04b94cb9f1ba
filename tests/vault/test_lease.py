"""The lease: no stale answer after a change has answered, none at all when the database is away too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from kms.config import Settings
from kms.errors import Unavailable
from kms.vault import tables
from kms.vault.lease import Lease, LeasedCache
from kms.vault.opening import open_vault
from kms.vault.store import Vault

LEASE = 0.1


@pytest.fixture
def vault(database_url: str, tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(
        Settings(data_dir=tmp_path / "data", database_url=database_url, lease=timedelta(seconds=LEASE))
    )
    yield opened
    opened.engine.dispose()


@pytest.fixture
def leases(vault: Vault) -> Iterator[list[Lease]]:
    held = [Lease(vault) for _ in range(3)]
    for lease in held:
        lease.start()
    yield held
    for lease in held:
        lease.stop()


def test_nothing_stale_is_used_after_a_change_has_answered(vault: Vault, leases: list[Lease]) -> None:
    """Workers that read all the time, against a value that changes all the time."""
    stored = {"value": 0}
    answered = {"value": 0}
    stale: list[tuple[int, int]] = []
    stop = threading.Event()

    def work(lease: Lease) -> None:
        cache: LeasedCache[str, list[int]] = LeasedCache(lease, 10)
        while not stop.is_set():
            promised = answered["value"]
            try:
                got = cache.get("k", lambda: [stored["value"]])[0]
            except Unavailable:  # a lease that ended for want of processor time; refusing is always right
                continue
            if got < promised:
                stale.append((got, promised))

    threads = [threading.Thread(target=work, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for number in range(1, 11):
        with vault.change() as change:
            change.outdates = True
            stored["value"] = number  # what others read once the change has committed
        answered["value"] = number
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert stale == []


def test_a_value_read_before_a_change_is_not_cached_after_it(vault: Vault, leases: list[Lease]) -> None:
    cache: LeasedCache[str, str] = LeasedCache(leases[0], 10)

    def slow_load() -> str:
        with vault.change() as change:
            change.outdates = True
        time.sleep(LEASE)  # the worker has seen the new epoch by now
        return "old"

    assert cache.get("k", slow_load) == "old"
    assert cache.get("k", lambda: "new") == "new"


def test_without_a_database_answers_end_with_the_lease(
    vault: Vault, leases: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leases[0]
    cache: LeasedCache[str, str] = LeasedCache(lease, 10)
    assert cache.get("k", lambda: "value") == "value"

    def away() -> None:
        raise Unavailable("away")

    monkeypatch.setattr(lease._vault, "read", away)
    time.sleep(LEASE * 1.5)
    assert not lease.held
    with pytest.raises(Unavailable):
        cache.get("k", lambda: "value")
    monkeypatch.undo()
    assert cache.get("k", lambda: "other") == "value"  # nothing has changed meanwhile


def test_an_epoch_that_goes_back_ends_the_lease(vault: Vault, leases: list[Lease]) -> None:
    with vault.change() as change:
        change.outdates = True
    with vault.engine.begin() as connection:
        connection.execute(update(tables.epoch).values(epoch=1))
    time.sleep(LEASE * 1.5)
    for lease in leases:
        with pytest.raises(Unavailable):
            lease.require()


def test_a_cache_is_bounded_and_drops_what_was_used_least_recently(leases: list[Lease]) -> None:
    cache: LeasedCache[int, str] = LeasedCache(leases[0], 3)
    for number in (1, 2, 3):
        cache.get(number, lambda: "kept")
    cache.get(1, lambda: "again")
    cache.get(4, lambda: "kept")
    assert cache.get(1, lambda: "loaded") == "kept"
    assert cache.get(2, lambda: "loaded") == "loaded"
