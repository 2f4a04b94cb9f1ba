"""The log of SQLite beside a database: its own is applied, another is refused and left as it is."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from helpers.support import Template, World, settings_for
from kms.config import Settings
from kms.errors import StartError
from kms.operations import Service
from kms.vault.database import connect
from kms.vault.one_file import has_log, log_of, make_one_file, require_own_log
from kms.vault.opening import open_vault


def killed(service: Service, elsewhere: Path) -> Settings:
    """The settings of a copy of what a service leaves that is killed now."""
    shutil.copytree(service.settings.data_dir, elsewhere, ignore=shutil.ignore_patterns("run", "*-shm"))
    return settings_for(elsewhere)


def keys(settings: Settings) -> int:
    vault = open_vault(settings, create=False)
    try:
        with vault.read() as snapshot:
            return len(snapshot.keys_with_latest())
    finally:
        vault.close()


@pytest.fixture
def left(world: World, tmp_path: Path) -> Settings:
    """What is left of a service with a key in its log."""
    world.user("alice").post("/api/v1/keys", {"key_id": "orders"})
    settings = killed(world.service, tmp_path / "killed")
    assert has_log(settings.data_dir / "kms.db")
    return settings


def test_its_own_log_is_applied(left: Settings) -> None:
    assert keys(left) == 1


def test_a_stop_leaves_one_file(left: Settings) -> None:
    vault = open_vault(left, create=False)
    vault.checkpoint()
    vault.close()
    database = left.data_dir / "kms.db"
    assert not log_of(database).exists()
    assert database.read_bytes()[18:20] == b"\x01\x01"
    assert keys(left) == 1


def test_what_another_has_open_stays_open(left: Settings) -> None:
    vault = open_vault(left, create=False)
    database = left.data_dir / "kms.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("SELECT * FROM keys").fetchall()
        vault.checkpoint()
        assert not has_log(database)
        assert database.read_bytes()[18:20] == b"\x02\x02"
        assert len(other.execute("SELECT * FROM keys").fetchall()) == 1
    vault.close()


@pytest.mark.parametrize("how", ["vacuum", "stopped"])
def test_a_backup_beside_the_log_is_refused(template: Template, left: Settings, tmp_path: Path, how: str) -> None:
    database, backup = left.data_dir / "kms.db", tmp_path / "backup.db"
    source = template.folder / "kms.db"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("VACUUM INTO ?", [str(backup)])
    if how == "stopped":
        shutil.copy(source, backup)
        with closing(sqlite3.connect(backup)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    shutil.copy(backup, database)
    log = log_of(database).read_bytes()
    for _ in range(2):
        with pytest.raises(StartError, match=r"remove kms\.db-wal and kms\.db-shm"):
            open_vault(left)
    assert (database.read_bytes(), log_of(database).read_bytes()) == (backup.read_bytes(), log)
    log_of(database).unlink()
    (left.data_dir / "kms.db-shm").unlink(missing_ok=True)
    for newest in left.data_dir.glob("newest-*"):
        newest.unlink()  # as on another host
    assert keys(left) == 0


@pytest.mark.parametrize("is_there", [True, False])
def test_a_log_without_its_database_is_not_thrown_away(left: Settings, is_there: bool) -> None:
    """SQLite would remove it, and the service begin anew beside."""
    database = left.data_dir / "kms.db"
    database.write_bytes(b"") if is_there else database.unlink()
    log = log_of(database).read_bytes()
    with pytest.raises(StartError, match="Put the database back"):
        open_vault(left)
    assert log_of(database).read_bytes() == log
    assert database.exists() == is_there


def test_an_empty_log_is_nobody_s(tmp_path: Path) -> None:
    (tmp_path / "kms.db-wal").touch()
    require_own_log(tmp_path / "kms.db")


def test_nothing_is_lost_where_many_open_and_close_it(tmp_path: Path) -> None:
    """Commands on the host begin and end while the service starts and stops; each may change the mode."""
    database = tmp_path / "kms.db"

    def come_and_go(_: int) -> int:
        for _ in range(12):
            engine = connect(f"sqlite:///{database}")
            with engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
                connection.execute(text("CREATE TABLE IF NOT EXISTS rows (number INTEGER)"))
                connection.execute(text("INSERT INTO rows VALUES (1)"))
            with suppress(OperationalError, sqlite3.OperationalError):  # somebody has it open
                make_one_file(engine)
            engine.dispose()
        return 12

    with ThreadPoolExecutor(4) as threads:
        written = sum(threads.map(come_and_go, range(4)))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (written,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
