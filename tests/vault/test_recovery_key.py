"""The recovery key: what is wrapped for it without it, and what is not believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kms.cli import main
from kms.clock import utc_now
from kms.config import Settings
from kms.errors import Conflict, StartError
from kms.operations.core.new_seal import settle_seal
from kms.vault import recovery, resealing, root_keys
from kms.vault.keyset import Keyset, new_secret
from kms.vault.keyslots import SealRecord
from kms.vault.opening import open_vault, stored_vault
from kms.vault.rows import Keyslot
from kms.vault.sealing import DerivedKeys
from kms.vault.seals import Seals, passphrase

VAULT = bytes(16)


def test_a_keyset_of_later_days_is_wrapped_without_the_recovery_key() -> None:
    keyset, recovery_key = Keyset.new(), new_secret()
    first = recovery.made(recovery_key, {"shares": 5}, keyset, DerivedKeys(keyset, VAULT))
    assert recovery.opened(first, recovery_key, VAULT) == keyset
    both = keyset.plus(2, new_secret())
    second = recovery.rewrapped(first, both, DerivedKeys(keyset, VAULT))
    assert recovery.opened(second, recovery_key, VAULT) == both
    only_new = both.since(2)
    third = recovery.rewrapped(second, only_new, DerivedKeys(only_new, VAULT))  # nothing is under the old one
    assert recovery.opened(third, recovery_key, VAULT) == only_new
    assert SealRecord.decoded(third.seal).parameters["shares"] == 5
    for slot in (first, second, third):
        assert recovery_key.reveal() not in slot.wrapped + slot.seal.encode()


def test_whoever_can_write_to_the_database_forges_no_keyslot() -> None:
    keyset, recovery_key = Keyset.new(), new_secret()
    slot = recovery.made(recovery_key, {}, keyset, DerivedKeys(keyset, VAULT))
    theirs = Keyset.new()
    # All that is public is known, so the HPKE ciphertext can be made by anybody, and the code cannot.
    public = DerivedKeys(theirs, VAULT)
    forged = recovery.made(new_secret(), {}, theirs, public)
    swapped = replace(forged, seal=slot.seal)
    for wrong in (
        swapped,
        replace(slot, wrapped=slot.wrapped[:40] + forged.wrapped[40:]),
        replace(slot, wrapped=slot.wrapped[:-1] + bytes([slot.wrapped[-1] ^ 1])),
        replace(slot, wrapped=b"\x02" + slot.wrapped[1:]),
        replace(slot, wrapped=b""),
        replace(slot, seal=slot.seal.replace("recovery", "recovering")),
        forged,
    ):
        with pytest.raises(StartError):
            recovery.opened(wrong, recovery_key, VAULT)
    with pytest.raises(StartError, match="not the recovery key"):
        recovery.opened(slot, new_secret(), VAULT)
    with pytest.raises(StartError, match="altered"):
        recovery.opened(slot, recovery_key, bytes(15) + b"1")


def test_the_vault_wraps_nothing_for_a_public_key_that_others_put_there() -> None:
    keyset = Keyset.new()
    derived_keys = DerivedKeys(keyset, VAULT)
    slot = recovery.made(new_secret(), {}, keyset, derived_keys)
    record = SealRecord.decoded(slot.seal)
    others = SealRecord.decoded(recovery.made(new_secret(), {}, keyset, derived_keys).seal)
    mixed = {**record.parameters, "public_key": others.parameters["public_key"]}
    for parameters in (mixed, {}, {**mixed, "code_key": "?"}, {**mixed, "code_key": "AAAA"}):
        with pytest.raises(StartError, match="altered"):
            recovery.rewrapped(replace(slot, seal=SealRecord("recovery", parameters).encoded()), keyset, derived_keys)


@pytest.fixture
def file(tmp_path: Path) -> Settings:
    """The settings of a vault with the seal `file`, made."""
    settings = Settings(data_dir=tmp_path / "kms-data")
    open_vault(settings).close()
    return settings


def the_slot(settings: Settings) -> Keyslot:
    found = stored_vault(settings)
    assert found is not None
    return resealing.recovery_slot(found.slots)


def test_a_root_key_of_later_days_is_recovered(file: Settings) -> None:
    vault = open_vault(file)
    with pytest.raises(StartError, match="no recovery key"):
        the_slot(file)
    recovery_key = new_secret()
    resealing.make_recovery_key(vault, recovery_key, {}, "{}")
    root_keys.begin(vault, root_keys.Rewrap(Seals(file), vault.derived_keys.vault_id), utc_now(), "{}")
    (file.data_dir / "root.key").unlink()
    both = open_vault(file, unseal=resealing.by_recovery_key(recovery_key))
    assert sorted(both.derived_keys.keyset.root_keys) == [1, 2]
    with pytest.raises(Conflict, match="root key is being changed"):
        resealing.make_recovery_key(both, new_secret(), {}, "{}")
    both.close()
    while root_keys.renew_rows(vault, utc_now, lambda: None) is None:
        pass
    root_keys.end(vault, vault.derived_keys.current, "{}")
    vault.close()
    only_new = open_vault(file, unseal=resealing.by_recovery_key(recovery_key))
    assert sorted(only_new.derived_keys.keyset.root_keys) == [2]
    only_new.close()


def test_a_newer_recovery_key_takes_the_place_of_the_one_before(file: Settings) -> None:
    vault = open_vault(file)
    first, second = new_secret(), new_secret()
    resealing.make_recovery_key(vault, first, {}, "{}")
    old = the_slot(file)
    resealing.make_recovery_key(vault, second, {}, "{}")
    vault.close()
    open_vault(file, unseal=resealing.by_recovery_key(second)).close()
    with pytest.raises(StartError, match="not the recovery key"):
        open_vault(file, unseal=resealing.by_recovery_key(first))
    # Who puts the old keyslot back has it opened by the old key, as every copy of the database from then does.
    assert recovery.opened(old, first, vault.derived_keys.vault_id)


def test_a_forged_keyslot_is_refused_when_the_vault_is_recovered(file: Settings) -> None:
    vault = open_vault(file)
    recovery_key = new_secret()
    resealing.make_recovery_key(vault, recovery_key, {}, "{}")
    slot = the_slot(file)
    theirs = DerivedKeys(Keyset.new(), vault.derived_keys.vault_id)
    forged = recovery.made(new_secret(), {}, theirs.keyset, theirs)
    with vault.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE keyslots SET wrapped = ? WHERE slot = 'recovery'", (forged.wrapped,))
    vault.close()
    (file.data_dir / "root.key").unlink()
    with pytest.raises(StartError, match="altered"):
        open_vault(file, unseal=resealing.by_recovery_key(recovery_key))
    assert slot.wrapped != forged.wrapped


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `kms vault` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(passphrase, "_MEMORY_KIB", 64)

    def go(*arguments: str, **environ: str) -> Result:
        return CliRunner().invoke(main, ["vault", *arguments], env=environ)

    return go


def test_the_day_when_the_seal_is_gone(file: Settings, tmp_path: Path, run: Run) -> None:
    assert "no terminal" in run("recovery-key").output
    assert "Give both" in run("recovery-key", "--shares", "3", "--to", "safe").output
    assert "cannot be" in run("recovery-key", "--shares", "3", "--threshold", "4", "--to", "safe").output
    assert not (tmp_path / "safe").exists()
    assert run("recovery-key", "--to", "safe").exit_code == 0
    written = tmp_path / "safe" / "kms-recovery-key"
    assert written.stat().st_mode & 0o777 == 0o600
    assert run("recovery-key", "--to", "other").exit_code == 1  # nobody said yes
    assert "is there already" in run("recovery-key", "--to", "safe", "--yes").output
    new = ("--to", "passphrase", "--yes")
    environ: dict[str, Any] = {"KMS_SEAL_PASSPHRASE": "correct horse battery"}
    (file.data_dir / "root.key").unlink()
    assert "is not there" in run("reseal", *new, **environ).output
    assert "no terminal" in run("reseal", *new, "--recovery", **environ).output
    wrong = tmp_path / "wrong"
    for content, says in (("kms-recovery-1-AAAA", "typing error"), ("kms-share-1", "no recovery key")):
        wrong.write_text(content)
        wrong.chmod(0o600)
        assert says in run("reseal", *new, "--recovery-key-file", str(wrong), **environ).output
    done = run("reseal", *new, "--recovery-key-file", str(written), **environ)
    assert done.exit_code == 0, done.output
    vault = open_vault(Settings(data_dir=file.data_dir, seal="passphrase", seal_passphrase="correct horse battery"))
    settle_seal(vault)
    vault.close()
    assert '"recovery key": "one, not in shares"' in run("reseal").output


def test_a_recovery_key_in_shares(file: Settings, tmp_path: Path, run: Run) -> None:
    assert run("recovery-key", "--shares", "5", "--threshold", "2", "--to", "old").exit_code == 0
    done = run("recovery-key", "--shares", "3", "--threshold", "2", "--to", "new", "--yes")
    assert done.exit_code == 0, done.output
    old, new = (sorted((tmp_path / name).iterdir()) for name in ("old", "new"))
    assert not any(each.read_text().strip() in done.output for each in new)
    assert '"recovery key": "2 of 3 shares"' in run("reseal").output
    (file.data_dir / "root.key").unlink()

    def reseal(*files: Path) -> Result:
        options = [part for each in files for part in ("--recovery-key-file", str(each))]
        return run("reseal", "--to", "passphrase", "--yes", *options, KMS_SEAL_PASSPHRASE="correct horse battery")

    assert "the files hold 1" in reseal(new[1]).output
    assert "given already" in reseal(new[1], new[1]).output
    assert "of the set" in reseal(new[1], old[1]).output
    assert reseal(new[2], new[0]).exit_code == 0
