"""Another seal: both open until a start has proven the new one, then one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from kms.cli import main
from kms.config import Settings
from kms.errors import Conflict, StartError
from kms.operations.core.new_seal import settle_seal
from kms.process_protection import withheld
from kms.vault import keyslots, resealing, root_keys
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.opening import open_vault, stored_vault
from kms.vault.rows import Keyslot
from kms.vault.seals import Seals, passphrase
from kms.vault.store import Vault
from kms.vault.unsealing import Unsealing

OLD, NEW = "correct horse battery", "staple staple staple"


@pytest.fixture(autouse=True)
def _light_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_MEMORY_KIB", 64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a vault with the seal `file`, to be copied: making one takes a while."""
    data = tmp_path_factory.mktemp("made") / "data"
    started(settings_of(data, "file"))
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "kms-data"
    shutil.copytree(made, copy, ignore=shutil.ignore_patterns("run"))
    return copy


def settings_of(data: Path, seal: str, **more: Any) -> Settings:
    return Settings(data_dir=data, seal=seal, **more)


def started(settings: Settings) -> None:
    """A start of the service, as far as its seal is concerned."""
    vault = open_vault(settings)
    settle_seal(vault)
    assert not list(altered_rows(vault))
    assert not wrong_tables(vault)
    vault.close()


def opens(settings: Settings) -> bool:
    try:
        open_vault(settings).close()
    except StartError:
        return False
    return True


def reseal(before: Settings, after: Settings) -> None:
    vault = open_vault(before)
    resealing.begin(vault, Seals(after).named(after.seal), '{"v":1}')
    vault.close()


def test_both_open_until_a_start_has_proven_the_new_one(data: Path) -> None:
    file = settings_of(data, "file")
    words = settings_of(data, "passphrase", seal_passphrase=OLD)
    reseal(file, words)
    assert resealing.described(_stored(file)) == {
        "seal": "file", "new seal": "passphrase (waits for a start that proves it)", "recovery key": "none",
    }  # fmt: skip
    for _ in range(2):
        started(file)  # which changes nothing
    assert opens(words)  # and neither does opening without being the service
    assert opens(file)
    started(words)
    assert opens(words)
    assert not opens(file)
    assert resealing.described(_stored(words))["seal"] == "passphrase"
    with pytest.raises(StartError, match="sealed with `passphrase`"):
        open_vault(file)


def test_the_same_seal_with_another_secret(tmp_path: Path) -> None:
    before = settings_of(tmp_path, "passphrase", seal_passphrase=OLD)
    after = settings_of(tmp_path, "passphrase", seal_passphrase=NEW)
    started(before)
    reseal(before, after)
    started(before)
    assert opens(after)
    started(after)
    assert not opens(before)
    assert opens(after)


def test_file_to_shares_to_other_shares(data: Path, tmp_path: Path) -> None:
    file = settings_of(data, "file")
    reseal(file, settings_of(data, "shamir", seal_shares_dir=tmp_path / "first"))
    first = sorted(map(str, (tmp_path / "first").iterdir()))
    by_first = settings_of(data, "shamir", seal_share_files=",".join(first[1:4]))
    started(by_first)
    assert not opens(file)
    after = settings_of(data, "shamir", seal_shares_dir=tmp_path / "second", seal_shamir_threshold=2)
    reseal(by_first, after)
    second = sorted((tmp_path / "second").iterdir())
    unsealing = unsealing_of(by_first)
    assert unsealing.progress.startswith("sealed: 0 of 3 shares given of the set ")
    unsealing.give(Path(first[0]).read_text())
    unsealing.give(second[4].read_text())
    assert "1 of 3 shares given of the set" in unsealing.progress
    assert ", or 1 of 2 shares given of the set" in unsealing.progress
    assert unsealing.give(second[0].read_text()) == "unsealed"
    open_vault(by_first, unseal=unsealing).close()
    assert unsealing.opened is not None
    assert unsealing.opened.slot == "next"
    late = unsealing_of(by_first)
    for each in first[:3]:
        late.give(Path(each).read_text())
    by_second = replace_files(after, second[3:])
    assert opens(by_first)
    started(by_second)
    assert opens(by_second)
    assert not opens(by_first)
    with pytest.raises(StartError, match="at the same moment"):  # another node has proven the new shares meanwhile
        open_vault(by_second, unseal=late)


def unsealing_of(settings: Settings) -> Unsealing:
    found = stored_vault(settings)
    assert found is not None
    return Unsealing(sorted(found.slots, key=lambda slot: slot.slot, reverse=True), found.vault_id)


def replace_files(settings: Settings, files: list[Path]) -> Settings:
    return settings_of(settings.data_dir, "shamir", seal_share_files=",".join(map(str, files)))


def test_one_at_a_time_and_not_while_the_root_key_is_changed(data: Path) -> None:
    file = settings_of(data, "file")
    words = settings_of(data, "passphrase", seal_passphrase=OLD)
    vault = open_vault(file)
    new = Seals(words).named("passphrase")
    resealing.begin(vault, new, "{}")
    with pytest.raises(Conflict, match="--abandon"):
        resealing.begin(vault, new, "{}")
    rewrap = root_keys.Rewrap(Seals(file), vault.derived_keys.vault_id)
    with pytest.raises(Conflict, match="seal is being changed"):
        rotate(vault, rewrap)
    assert resealing.abandon(vault, "{}") == "passphrase"
    assert resealing.abandon(vault, "{}") is None
    rotate(vault, rewrap)
    with pytest.raises(Conflict, match="root key is being changed"):
        resealing.begin(vault, new, "{}")
    vault.close()
    assert not opens(words)
    assert opens(file)


def rotate(vault: Vault, rewrap: Any) -> None:
    from kms.clock import utc_now

    root_keys.begin(vault, rewrap, utc_now(), "{}")


def test_a_start_proves_only_the_seal_that_it_has_used(data: Path) -> None:
    """Between opening and the commit an operator may have dropped the new seal, and made still another."""
    file = settings_of(data, "file")
    first = settings_of(data, "passphrase", seal_passphrase=OLD)
    second = settings_of(data, "passphrase", seal_passphrase=NEW)
    reseal(file, first)
    starting = open_vault(first)
    operator = open_vault(file)
    resealing.abandon(operator, "{}")
    resealing.begin(operator, Seals(second).named("passphrase"), "{}")
    operator.close()
    settle_seal(starting)
    starting.close()
    assert opens(file)
    assert opens(second)
    assert not opens(first)


def test_two_nodes_prove_it_at_once(database_url: str, tmp_path: Path) -> None:
    file = settings_of(tmp_path, "file", database_url=database_url)
    words = settings_of(tmp_path, "passphrase", seal_passphrase=OLD, database_url=database_url)
    started(file)
    reseal(file, words)
    other = settings_of(tmp_path / "other", "passphrase", seal_passphrase=OLD, database_url=database_url)
    nodes = [open_vault(words), open_vault(other)]
    for node in nodes:
        settle_seal(node)
    for node in nodes:
        assert not wrong_tables(node)
        node.close()
    assert opens(words)
    assert not opens(file)


@pytest.mark.parametrize("killed_in", ["the transaction", "what follows the commit"])
def test_a_start_that_is_killed_while_it_proves_the_new_seal(data: Path, killed_in: str) -> None:
    file = settings_of(data, "file")
    words = settings_of(data, "passphrase", seal_passphrase=OLD)
    reseal(file, words)

    def start_and_die() -> None:
        vault = open_vault(words)
        if killed_in == "the transaction":
            resealing.sealed_again = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        else:
            vault.host.saw = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        settle_seal(vault)

    child = get_context("fork").Process(target=start_and_die)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    is_proven = killed_in != "the transaction"
    assert opens(file) is not is_proven
    started(words)
    assert opens(words)
    assert not opens(file)


def test_nothing_is_promoted_in_a_vault_that_is_not_trusted(data: Path) -> None:
    file = settings_of(data, "file")
    words = settings_of(data, "passphrase", seal_passphrase=OLD)
    reseal(file, words)
    vault = open_vault(words)
    vault.stop_trusting("for a test")
    settle_seal(vault)
    vault.close()
    assert resealing.described(_stored(file))["seal"] == "file"


def test_an_altered_keyslot_proves_nothing(data: Path) -> None:
    file = settings_of(data, "file")
    words = settings_of(data, "passphrase", seal_passphrase=OLD)
    reseal(file, words)
    vault = open_vault(file)
    with vault.engine.begin() as connection:
        connection.execute(text("UPDATE keyslots SET mac = wrapped WHERE slot = 'next'"))
    vault.close()
    vault = open_vault(words)
    settle_seal(vault)
    assert not [each for each in _stored(file) if each.slot == "seal" and "passphrase" in each.seal]
    vault.close()
    vault = open_vault(file)
    settle_seal(vault)  # the keys of the vault can be used
    vault.close()


def _stored(settings: Settings) -> list[Keyslot]:
    found = stored_vault(settings)
    assert found is not None
    return found.slots


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: str, **environ: str) -> Result:
        withheld.clear()  # each run is a process of its own
        return CliRunner().invoke(main, ["vault", *arguments], env=environ)

    return go


def private(path: Path, content: str) -> str:
    path.write_text(content)
    path.chmod(0o600)
    return str(path)


def test_the_command(data: Path, tmp_path: Path, run: Run) -> None:
    assert json.loads(run("reseal", "--json").stdout)["seal"] == "file"
    same = run("reseal", "--to", "file", "--yes")
    assert same.exit_code == 1
    assert "--to-settings" in same.output
    assert "no seal 'wax'" in run("reseal", "--to", "wax", "--yes").output
    assert "at least 12" in run("reseal", "--to", "passphrase", "--yes", KMS_SEAL_PASSPHRASE="short").output
    assert "KMS_SEAL_SHARES_DIR" in run("reseal", "--to", "shamir", "--yes").output
    assert resealing.described(_stored(settings_of(data, "file")))["new seal"] == "none"

    words = private(tmp_path / "words", OLD + "\n")
    done = run("reseal", "--to", "passphrase", "--yes", KMS_SEAL_PASSPHRASE_FILE=words)
    assert done.exit_code == 0, done.output
    assert "KMS_SEAL=passphrase" in done.output
    assert str(data.name) + "/root.key: it opens nothing" in done.output
    assert "--abandon" in run("reseal", "--to", "passphrase", "--yes", KMS_SEAL_PASSPHRASE_FILE=words).output
    assert "Dropped" in run("reseal", "--abandon", "--yes").output
    assert "No new seal" in run("reseal", "--abandon", "--yes").output
    assert run("reseal", "--to", "passphrase", "--yes", KMS_SEAL_PASSPHRASE_FILE=words).exit_code == 0
    started(settings_of(data, "passphrase", seal_passphrase=OLD))

    now = {"KMS_SEAL": "passphrase", "KMS_SEAL_PASSPHRASE_FILE": words}
    assert "passphrase already" in run("reseal", "--to", "passphrase", "--yes", **now).output
    assert "is there already" in run("reseal", "--to", "file", "--yes", **now).output
    toml = tmp_path / "new.toml"
    private(toml, f'seal_passphrase_file = "{words}"')
    assert "has now" in run("reseal", "--to", "passphrase", "--to-settings", str(toml), "--yes", **now).output
    for content, says in (("port = 1", "not port"), ("seal_nothing = 1", "seal_nothing"), ("?", "Cannot read")):
        private(toml, content)
        refused = run("reseal", "--to", "passphrase", "--to-settings", str(toml), "--yes", **now)
        assert refused.exit_code == 1
        assert says in refused.output
    private(toml, f'seal_passphrase_file = "{private(tmp_path / "newer", NEW)}"')
    toml.chmod(0o644)
    assert "0600" in run("reseal", "--to", "passphrase", "--to-settings", str(toml), "--yes", **now).output
    toml.chmod(0o600)
    assert run("reseal", "--to", "passphrase", "--to-settings", str(toml), "--yes", **now).exit_code == 0
    started(settings_of(data, "passphrase", seal_passphrase=NEW))
    assert not opens(settings_of(data, "passphrase", seal_passphrase=OLD))
    private(toml, 'seal_file = "other.key"')
    now["KMS_SEAL_PASSPHRASE_FILE"] = str(tmp_path / "newer")
    assert run("reseal", "--to", "file", "--to-settings", str(toml), "--yes", **now).exit_code == 0
    started(settings_of(data, "file", seal_file=tmp_path / "other.key"))
    assert not opens(settings_of(data, "file"))


def test_commands_are_given_shares(tmp_path: Path, run: Run) -> None:
    started(settings_of(tmp_path / "kms-data", "shamir", seal_shares_dir=tmp_path / "shares"))
    files = [f"--share-file={each}" for each in sorted((tmp_path / "shares").iterdir())]
    assert "3 shares of the set" in run("verify", "--seal", "shamir").output
    assert "files hold 2" in run("verify", "--seal", "shamir", *files[:2]).output
    assert "as the service wrote it" in run("verify", "--seal", "shamir", *files[2:]).output


def test_an_empty_database_has_no_vault_to_unseal(database_url: str, tmp_path: Path) -> None:
    assert stored_vault(settings_of(tmp_path, "shamir", database_url=database_url)) is None


def test_moving_a_keyslot_to_another_place_opens_nothing_more(tmp_path: Path) -> None:
    """What is wrapped is bound to the vault and to its seal; a slot of another vault is of no use."""
    mine, other = settings_of(tmp_path / "a", "file"), settings_of(tmp_path / "b", "file")
    started(mine)
    started(other)
    (theirs,) = _stored(other)
    vault = open_vault(mine)
    with pytest.raises(StartError):
        keyslots.opened([replace(theirs, slot="next")], Seals(mine), vault.derived_keys.vault_id)
    vault.close()
