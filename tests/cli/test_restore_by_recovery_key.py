"""A backup whose seal is gone is checked and restored by the recovery key, as an operator does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import inspect

from helpers.backups import begin_another_root_key, carry_it_through
from helpers.support import Template, World, settings_for
from kms.access.model import Role
from kms.cli import main, vault_backup
from kms.clock import utc_now
from kms.config import Settings
from kms.operations import Service
from kms.vault.database import connect
from kms.vault.opening import open_vault
from kms.vault.seals import passphrase

PASSPHRASE = "correct horse battery"

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_MEMORY_KIB", 64)
    monkeypatch.setattr(vault_backup, "_NICENESS", 0)


def run(*arguments: object, **environ: str) -> Result:
    return CliRunner().invoke(main, ["vault", *map(str, arguments)], env=environ)


def done(*arguments: object, **environ: str) -> str:
    result = run(*arguments, **environ)
    assert result.exit_code == 0, result.output
    return result.output


@dataclass
class Lost:
    """What is left of a vault: a backup, shares of its recovery key (2 of 3), and a message; its seal is gone."""

    folder: Path
    backup: Path
    shares: list[Path]
    ciphertext: str
    settings: Settings

    def by(self, *numbers: int) -> list[object]:
        """The options that give these shares."""
        return [part for number in numbers for part in ("--recovery-key-file", self.shares[number - 1])]


@pytest.fixture
def lost(template: Template, tmp_path: Path) -> Lost:
    settings = settings_for(tmp_path / "data")
    service = template.open(settings)
    alice = World.of(service).user("alice")
    assert alice.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    ciphertext = alice.post("/api/v1/keys/k/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    service.close()
    at = ("--data-dir", settings.data_dir)
    done("backup", tmp_path / "early.backup", *at)
    done("recovery-key", "--shares", 3, "--threshold", 2, "--to", tmp_path / "safe", *at)
    done("backup", tmp_path / "kms.backup", *at)
    shares = sorted((tmp_path / "safe").iterdir())
    return Lost(tmp_path, tmp_path / "kms.backup", shares, ciphertext, settings)


def is_empty(settings: Settings) -> bool:
    engine = connect(settings.database, pool_size=1)
    try:
        return not inspect(engine).get_table_names()
    finally:
        engine.dispose()


def test_shares_restore_it_and_give_it_another_seal(lost: Lost) -> None:
    host = settings_for(lost.folder / "host")
    at = ("--data-dir", host.data_dir)
    assert "is not there" in run("check-backup", lost.backup, *at).output
    checked = run("check-backup", lost.backup, *at, *lost.by(3, 1))
    assert checked.exit_code == 0 and "Whole and authentic" in checked.output, checked.output
    said = done("restore", lost.backup, *at, *lost.by(1, 2))
    assert "kms vault reseal --to SEAL --recovery" in said
    assert not any(each.read_text().strip() in said for each in lost.shares)
    assert not (host.data_dir / "root.key").exists()
    done("reseal", "--to", "passphrase", "--yes", *at, *lost.by(2, 3), KMS_SEAL_PASSPHRASE=PASSPHRASE)
    service = Service.open(settings_for(host.data_dir, seal="passphrase", seal_passphrase=PASSPHRASE), utc_now)
    answer = (
        World.of(service).login("alice", Role.USER).post("/api/v1/keys/k/decrypt", {"ciphertext": lost.ciphertext})
    )
    assert answer.json["plaintext"] == "AAAA"
    service.close()


def test_without_the_right_key_nothing_is_restored(lost: Lost) -> None:
    host = settings_for(lost.folder / "host")
    at = ("--data-dir", host.data_dir)
    for options, says in (
        (lost.by(1), "the files hold 1"),
        (lost.by(1, 1), "given already"),
        (["--recovery"], "no terminal"),
    ):
        for command in ("check-backup", "restore"):
            refused = run(command, lost.backup, *at, *options)
            assert refused.exit_code == 1 and says in refused.output, refused.output
    early = run("restore", lost.folder / "early.backup", *at, *lost.by(1, 2))
    assert early.exit_code == 1 and "no recovery key" in early.output
    old = ("--data-dir", lost.settings.data_dir)
    done("recovery-key", "--yes", "--to", lost.folder / "another", *old)
    done("backup", lost.folder / "later.backup", *old)
    whole = ("--recovery-key-file", lost.folder / "another" / "kms-recovery-key")
    assert "begins with kms-share-1" in run("restore", lost.backup, *at, *whole).output
    wrong = run("restore", lost.folder / "later.backup", *at, *lost.by(1, 2))
    assert wrong.exit_code == 1 and "no recovery key: one begins with" in wrong.output
    assert is_empty(host)
    done("restore", lost.folder / "later.backup", *at, *whole)


def test_it_opens_a_newer_database_under_another_root_key_too(lost: Lost) -> None:
    """Its root key was changed after the backup, so that the backup's own keys do not open it."""
    vault = open_vault(lost.settings, create=False)
    begin_another_root_key(vault, lost.settings)
    carry_it_through(vault)
    vault.close()
    newer = lost.settings.data_dir / "kms.db"
    at = ("--data-dir", lost.folder / "host")
    options = ("--newer-database", newer, "--accept-rollback", *lost.by(1, 2))
    said = done("restore", lost.backup, *at, *options)
    assert "ROLLBACK" in said and "cannot be read" not in said, said
