"""A file of the database that is removed or replaced while it is open: nothing is acknowledged that goes with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from helpers.support import make_key
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import Unavailable
from kms.vault.opening import open_vault
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = key_type("xaes-256-gcm")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(Settings(data_dir=tmp_path))
    make(opened, "first")
    yield opened
    opened.close()


def make(vault: Vault, key_id: str) -> None:
    with vault.change() as change:
        make_key(change, key_id, "user1", KIND, KIND.generate(), NOW)


@pytest.mark.parametrize("gone", [["kms.db"], ["kms.db", "kms.db-wal", "kms.db-shm"]])
def test_without_its_file_it_refuses_and_makes_no_other(vault: Vault, tmp_path: Path, gone: list[str]) -> None:
    aside = tmp_path / "aside"
    aside.mkdir()
    for name in gone:
        (tmp_path / name).rename(aside / name)
    for _ in range(2):
        with pytest.raises(Unavailable):
            make(vault, "second")
        with pytest.raises(Unavailable), vault.read():
            pass
    assert not (tmp_path / "kms.db").exists()
    for name in gone:
        (aside / name).rename(tmp_path / name)
    make(vault, "second")  # it is back
    with vault.read() as snapshot:
        assert snapshot.key_by_id("first") is not None


@pytest.mark.parametrize("name", ["kms.db", "kms.db-wal"])
def test_what_is_committed_to_a_file_that_is_gone_is_not_acknowledged(
    vault: Vault, tmp_path: Path, name: str
) -> None:
    def remove(_connection: Any) -> None:
        (tmp_path / name).unlink()

    event.listen(vault.engine, "commit", remove)
    with pytest.raises(Unavailable, match="Look whether it holds"):
        make(vault, "second")
    event.remove(vault.engine, "commit", remove)


def test_a_file_in_its_place_is_the_one_that_is_looked_at(vault: Vault, tmp_path: Path) -> None:
    vault.checkpoint()
    shutil.copy(tmp_path / "kms.db", tmp_path / "old")
    make(vault, "second")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"kms.db{suffix}").unlink()
    (tmp_path / "old").replace(tmp_path / "kms.db")
    with vault.read() as snapshot:
        assert snapshot.key_by_id("second") is None
