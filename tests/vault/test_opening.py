"""Opening: seals, wrong root keys, modes of files. A refusal writes nothing."""

from __future__ import annotations

import base64
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from kms.config import Settings
from kms.errors import StartError
from kms.vault.opening import open_vault
from kms.vault.seals import passphrase


@pytest.fixture(autouse=True)
def _light_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_MEMORY_KIB", 64)


def everything_below(path: Path) -> dict[str, bytes]:
    return {
        str(each): each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file() and "-shm" not in each.name
    }


def with_passphrase(value: str) -> Callable[[Path], Settings]:
    return lambda path: Settings(data_dir=path, seal="passphrase", seal_passphrase=value)


def with_credential(content: bytes) -> Callable[[Path], Settings]:
    def settings(path: Path) -> Settings:
        credential = path.parent / "credential"
        credential.write_bytes(content)
        credential.chmod(0o600)
        return Settings(data_dir=path, seal="credential", seal_credential=credential)

    return settings


RAW = bytes(range(32))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (with_passphrase("correct horse battery"), with_passphrase("correct horse batteries")),
        (with_credential(RAW), with_credential(RAW[::-1])),
        (with_credential(base64.b64encode(RAW) + b"\n"), with_credential(b"not a key")),
        (with_credential(RAW.hex().encode()), with_passphrase("correct horse battery")),
    ],
)
def test_the_wrong_root_key_is_refused_and_nothing_written(
    tmp_path: Path, right: Callable[[Path], Settings], wrong: Callable[[Path], Settings]
) -> None:
    data = tmp_path / "data"
    open_vault(right(data)).engine.dispose()
    before = everything_below(data)
    with pytest.raises(StartError):
        open_vault(wrong(data))
    assert everything_below(data) == before
    open_vault(right(data)).engine.dispose()


def test_the_file_seal(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    open_vault(settings).engine.dispose()
    root_key = tmp_path / "data" / "root.key"
    content = root_key.read_bytes()
    for mode in (0o640, 0o600):
        root_key.chmod(mode)
        open_vault(settings).engine.dispose()
    root_key.chmod(0o644)
    with pytest.raises(StartError, match="0600"):
        open_vault(settings)
    root_key.unlink()
    with pytest.raises(StartError, match="not there"):
        open_vault(settings)
    assert not root_key.exists()
    for other in (b"kms-root-key-v1:" + base64.b64encode(bytes(32)), b"garbage", b""):
        root_key.write_bytes(other)
        root_key.chmod(0o600)
        with pytest.raises(StartError):
            open_vault(settings)
    root_key.write_bytes(content)
    open_vault(settings).engine.dispose()


def test_a_start_that_ended_before_the_vault_was_made_goes_on_with_its_root_key(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    open_vault(settings).engine.dispose()
    content = (tmp_path / "data" / "root.key").read_bytes()
    for path in [*(tmp_path / "data").glob("kms.db*"), *(tmp_path / "data").glob("newest-*")]:
        path.unlink()  # both are made after the root key
    open_vault(settings).engine.dispose()
    assert (tmp_path / "data" / "root.key").read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        "vault_id = x'00'", "created_at = created_at + 1", "check_value = x'01'", "seal = '{'", "seal = seal || ' '",
        """seal = replace(seal, '"iterations":3', '"iterations":1')""", "seal = replace(seal, 'salt', 'pepper')",
        "seal = replace(seal, 'passphrase', 'file')",
    ],
)  # fmt: skip
def test_an_altered_row_of_the_vault_stops_the_start(tmp_path: Path, change: str) -> None:
    settings = with_passphrase("correct horse battery")(tmp_path / "data")
    opened = open_vault(settings)
    with opened.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE vault SET {change}")
    opened.engine.dispose()
    with pytest.raises(StartError):
        open_vault(settings)


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    os.umask(0o022)
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    open_vault(Settings(data_dir=data)).engine.dispose()
    (data / "kms.db").chmod(0o644)
    open_vault(Settings(data_dir=data)).engine.dispose()
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    for path in data.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700), path


@pytest.mark.parametrize(
    "url", ["mysql://x", "sqlite://", "sqlite:///:memory:", "nonsense", "sqlite:////nowhere/x.db"]
)
def test_databases_that_cannot_be_used(tmp_path: Path, url: str) -> None:
    with pytest.raises(StartError):
        open_vault(Settings(data_dir=tmp_path / "data", database_url=url))


def test_a_postgresql_that_is_away_is_said_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://kms:topsecret@127.0.0.1:1/kms"
    with pytest.raises(StartError) as raised:
        open_vault(Settings(data_dir=tmp_path / "data", database_url=url))
    assert "topsecret" not in str(raised.value)


def test_short_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="at least 12"):
        open_vault(with_passphrase("short")(tmp_path / "data"))
    with pytest.raises(StartError, match="no seal"):
        open_vault(Settings(data_dir=tmp_path / "data", seal="wax"))
    with pytest.raises(StartError, match="no vault"):
        open_vault(Settings(data_dir=tmp_path / "other"), create=False)


def test_several_processes_may_start_at_once(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url)
    failures: list[BaseException] = []

    def start() -> None:
        try:
            open_vault(settings).engine.dispose()
        except BaseException as error:  # noqa: BLE001  # shown below
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    opened = open_vault(settings)
    with opened.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    opened.engine.dispose()
    with pytest.raises(StartError, match="newer"):
        open_vault(settings)
