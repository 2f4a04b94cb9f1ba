"""Two nodes that change one vault at once on PostgreSQL: nothing is to be repeated, and nothing waits crosswise."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event

from helpers.support import make_key, new_database
from helpers.tcp_proxy import TcpProxy
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import Unavailable
from kms.vault import claims, postgresql
from kms.vault.checking import wrong_tables
from kms.vault.opening import open_vault
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = key_type("xaes-256-gcm")
EACH = 15


@pytest.fixture(params=["read committed", "serializable"])
def nodes(request: pytest.FixtureRequest, postgres: str, tmp_path: Path) -> Iterator[list[Vault]]:
    """Two, on a database whose default isolation is what most or fewest servers have."""
    url = new_database(postgres)
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        name = url.rpartition("/")[2]
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{request.param}'")
    first = open_vault(Settings(data_dir=tmp_path / "a", database_url=url))
    (tmp_path / "b").mkdir(mode=0o700)
    shutil.copy(tmp_path / "a" / "root.key", tmp_path / "b" / "root.key")
    second = open_vault(Settings(data_dir=tmp_path / "b", database_url=url))
    yield [first, second]
    for each in (first, second):
        each.close()


def test_changes_of_the_same_rows_never_fail_each_other(nodes: list[Vault]) -> None:
    with nodes[0].change() as change:
        uids = [make_key(change, f"k{number}", "user1", KIND, KIND.generate(), NOW).uid for number in range(2)]
    faults: list[Exception] = []

    def work(vault: Vault, order: int) -> None:
        for number in range(EACH):
            try:
                with vault.change() as change:
                    for uid in uids[::order]:  # crosswise, as would deadlock without the lock on the head
                        key = next(each for each in map(change.key_by_id, ("k0", "k1")) if each and each.uid == uid)
                        change.replace(key, replace(key, description=key.description + "x"))
                    vault.nodes.join(change)
                claims.take(vault, f"task-{number % 3}", datetime.now(UTC), timedelta(0))
            except Exception as fault:  # noqa: BLE001  # shown below
                faults.append(fault)

    threads = [threading.Thread(target=work, args=(vault, order)) for vault in nodes for order in (1, -1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(timeout=120)
    assert not faults
    with nodes[0].read() as snapshot:
        assert {key.description for key in map(snapshot.key_by_id, ("k0", "k1")) if key} == {"x" * EACH * 4}
    assert not wrong_tables(nodes[1])
    assert nodes[0].errors == nodes[1].errors == {"conflict": 0, "unavailable": 0}


def test_a_commit_whose_answer_is_lost_is_not_said_to_have_changed_nothing(postgres: str, tmp_path: Path) -> None:
    url = new_database(postgres)
    address, name = url.rpartition("@")[2].split("/")
    proxy = TcpProxy((address.split(":")[0], int(address.split(":")[1]))).start()
    vault = open_vault(Settings(data_dir=tmp_path, database_url=f"postgresql://kms@127.0.0.1:{proxy.port}/{name}"))
    try:
        cut = False

        @event.listens_for(vault.engine, "commit")
        def lose(_connection: Connection) -> None:
            if cut:
                proxy.cut()

        with vault.change() as change:  # the first one asks for more than the later ones
            make_key(change, "earlier", "user1", KIND, KIND.generate(), NOW)
        cut = True
        with pytest.raises(Unavailable, match="Look whether it was changed"), vault.change() as change:
            make_key(change, "k", "user1", KIND, KIND.generate(), NOW)
        cut = False
        with vault.change() as change:  # by itself, on another connection
            make_key(change, "later", "user1", KIND, KIND.generate(), NOW)
        assert not wrong_tables(vault)
    finally:
        vault.close()
        proxy.stop()


@pytest.mark.parametrize("is_silent", [True, False])
def test_who_holds_the_lock_and_says_nothing_is_ended(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    """A node was stopped between two statements that it sends together; or it is only slow, and is left alone."""
    monkeypatch.setitem(postgresql._SETTINGS, "lock_timeout", "300ms")
    monkeypatch.setattr(postgresql, "BUSY_SECONDS", 0.3 if is_silent else 60)
    url = new_database(postgres)
    vault = open_vault(Settings(data_dir=tmp_path, database_url=url))
    with suppress(psycopg.DatabaseError), psycopg.connect(url) as other, other.pipeline():
        held = other.execute("SELECT id FROM head FOR UPDATE").fetchall()
        other.execute("SELECT 1")  # nothing that ends statements that are sent together follows it
        with pytest.raises(Unavailable), vault.change() as change:
            make_key(change, "k", "user1", KIND, KIND.generate(), NOW)
        with pytest.raises(Unavailable) if not is_silent else nullcontext(), vault.change() as change:
            make_key(change, "k", "user1", KIND, KIND.generate(), NOW)
    assert held == [(1,)]
    with vault.read() as snapshot:
        assert (snapshot.key_by_id("k") is not None) == is_silent
    vault.close()
