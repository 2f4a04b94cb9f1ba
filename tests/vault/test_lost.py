"""A database that was lost: no empty vault takes its place, and nothing but a real loss is taken for one."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from helpers.support import make_key, new_database
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import StartError
from kms.keys.model import Key
from kms.vault.database import place_of
from kms.vault.host import Host
from kms.vault.opening import new_vault_id, open_vault

_NEVER_KEPT_PLACES = bytes(48)


def settings_in(folder: Path, url: str | None = None) -> Settings:
    return Settings(data_dir=folder, database_url=url)


def used(settings: Settings) -> None:
    """A vault with a key in it."""
    vault = open_vault(settings)
    kind = key_type("xaes-256-gcm")
    with vault.change() as change:
        make_key(change, "precious", "user1", kind, kind.generate(), datetime(2026, 1, 1, tzinfo=UTC))
    vault.close()


def keys_in(settings: Settings) -> list[str]:
    vault = open_vault(settings)
    with vault.read() as snapshot:
        found = [key.key_id for key in snapshot.select(Key)]
    vault.close()
    return found


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def file_of_host(folder: Path) -> Path:
    (path,) = (path for path in folder.glob("newest-*") if not path.suffix)
    return path


def lose(folder: Path) -> Path:
    """Move the database elsewhere, and say where it is."""
    lost = folder.parent / "lost"
    lost.mkdir()
    for path in folder.glob("kms.db*"):
        path.rename(lost / path.name)
    return lost


def test_a_start_without_the_database_makes_no_vault_and_says_what_to_do(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    used(settings)
    lost = lose(settings.data_dir)
    before = files_in(settings.data_dir)
    with pytest.raises(StartError) as refused:
        open_vault(settings)
    assert "vault restore FILE" in str(refused.value)
    assert str(file_of_host(settings.data_dir)) in str(refused.value)
    assert files_in(settings.data_dir) == before
    shutil.copy(lost / "kms.db", settings.data_dir)
    assert keys_in(settings) == ["precious"]


def test_whoever_wants_a_new_vault_moves_away_what_the_refusal_names(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    used(settings)
    lost = lose(settings.data_dir)
    file_of_host(settings.data_dir).rename(lost / "file of the host")
    assert keys_in(settings) == []


def test_an_empty_file_in_the_place_of_the_database_is_a_loss_too(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    used(settings)
    lose(settings.data_dir)
    (settings.data_dir / "kms.db").touch(0o600)
    for _ in range(2):
        with pytest.raises(StartError, match="no vault in sqlite:///"):
            open_vault(settings)


def test_a_data_directory_that_moved_remembers_what_was_in_it(tmp_path: Path) -> None:
    used(settings_in(tmp_path / "data"))
    lose(tmp_path / "data")
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(StartError, match="no vault"):
        open_vault(settings_in(moved))


@pytest.mark.parametrize("content", ["of an older release", "damaged", "cut off"])
def test_a_file_of_the_host_that_names_no_place_may_be_about_this_one(tmp_path: Path, content: str) -> None:
    settings = settings_in(tmp_path / "data")
    used(settings)
    lose(settings.data_dir)
    path = file_of_host(settings.data_dir)
    kept = path.read_bytes()
    others = {
        "of an older release": kept[:208] + _NEVER_KEPT_PLACES + kept[256:],
        "damaged": b"k" + kept[1:],
        "cut off": kept[:100],
    }
    path.write_bytes(others[content])
    with pytest.raises(StartError, match="no vault"):
        open_vault(settings)


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a file without a state"])
def test_a_first_start_or_a_restore_that_was_cut_off_goes_on(tmp_path: Path, left: str) -> None:
    """The host's file is made, before anything is in the database, by a restore alone."""
    settings = settings_in(tmp_path / "data")
    vault_id = new_vault_id()
    if left == "a file without a state":
        Host(settings.data_dir, vault_id).close()
    elif left == "an empty file":
        settings.data_dir.mkdir(mode=0o700)
        (settings.data_dir / f"newest-{vault_id.hex()}").touch(0o600)
    used(settings)
    assert keys_in(settings) == ["precious"]


def test_another_database_may_have_a_vault_of_its_own(tmp_path: Path) -> None:
    data, url = tmp_path / "data", f"sqlite:///{tmp_path / 'other.db'}"
    used(settings_in(data))
    assert keys_in(settings_in(data, url)) == []
    (tmp_path / "other.db").unlink()
    with pytest.raises(StartError, match="no vault") as refused:
        open_vault(settings_in(data, url))
    assert str(tmp_path / "other.db") in str(refused.value)
    assert keys_in(settings_in(data)) == ["precious"]


def test_an_emptied_postgresql_is_a_loss_and_another_database_is_not(tmp_path: Path, postgres: str) -> None:
    settings = settings_in(tmp_path / "data", new_database(postgres))
    used(settings)
    emptied = create_engine(settings.database)
    with emptied.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    with pytest.raises(StartError, match="no vault in postgresql://"):
        open_vault(settings)
    with emptied.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
    emptied.dispose()
    used(settings_in(tmp_path / "data", new_database(postgres)))


def test_a_vault_that_was_opened_at_many_places_remembers_the_latest(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / "data")
    used(settings)
    for number in range(10):
        copy = tmp_path / f"copy{number}.db"
        shutil.copy(settings.data_dir / "kms.db", copy)
        open_vault(settings_in(settings.data_dir, f"sqlite:///{copy}")).close()
    open_vault(settings).close()
    lose(settings.data_dir)
    with pytest.raises(StartError, match="no vault"):
        open_vault(settings)


@pytest.mark.parametrize(
    ("one", "other", "are_the_same"),
    [
        ("postgresql://u:p@a:1/kms", "postgresql://v:q@a:1/kms?application_name=x", True),
        ("postgresql://u@a:1,b:2/kms", "postgresql://u@b:2,a:1/kms", True),
        ("postgresql://u@a:1/kms", "postgresql+psycopg://u@a:1/kms", True),
        ("postgresql://u@a:1/kms", "postgresql://u@a:1/others", False),
        ("postgresql://u@a:1/kms", "postgresql://u@b:1/kms", False),
        ("sqlite:////data/kms.db", "sqlite:////data/../data/kms.db", True),
        ("sqlite:////data/kms.db", "sqlite:////elsewhere/kms.db", False),
    ],
)
def test_a_place_is_where_a_database_is(one: str, other: str, are_the_same: bool) -> None:
    places = {place_of(url, Path("/nowhere")) for url in (one, other)}
    assert len(places) == (1 if are_the_same else 2)
    assert 0 not in places
