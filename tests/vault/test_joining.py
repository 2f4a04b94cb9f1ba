"""A host that joins while a change waits for its turn is seen by that change, on a real PostgreSQL."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from helpers.support import new_database
from kms.config import Settings
from kms.vault.opening import open_vault
from kms.vault.queue import Group
from kms.vault.store import Vault


def test_a_change_sees_the_host_that_joined_while_it_waited(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_database(postgres)
    first = open_vault(Settings(data_dir=tmp_path / "first", database_url=url))
    (tmp_path / "second").mkdir(mode=0o700)
    shutil.copy(tmp_path / "first" / "root.key", tmp_path / "second")
    second = open_vault(Settings(data_dir=tmp_path / "second", database_url=url))
    committed: list[tuple[Vault, bool]] = []
    commit = Vault._commit

    def watched(vault: Vault, group: Group) -> None:
        committed.append((vault, group.others_alive))
        commit(vault, group)

    def change() -> None:
        with first.change() as empty:
            assert empty is not None

    monkeypatch.setattr(Vault, "_commit", watched)
    with closing(first), closing(second):
        with second.change() as joining:
            second.nodes.join(joining)
            waiting = threading.Thread(target=change)
            waiting.start()
            _wait_for_a_lock(url)
        waiting.join(timeout=30)
    assert committed == [(second, False), (first, True)]


def _wait_for_a_lock(url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for _ in range(1000):
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'"
            ).fetchone()
            if found and found[0]:
                return
            threading.Event().wait(0.02)
    pytest.fail("no change waited for the lock on the head")
