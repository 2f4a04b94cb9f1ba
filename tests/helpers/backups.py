"""Backups of a vault in this process: made, restored, and put together wrongly."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

from cryptography.cobblestone import Cobblestone256Encryptor

from helpers.support import settings_for
from kms.audit.entry import AuditEntry
from kms.clock import utc_now
from kms.config import Settings
from kms.revocation.rollback import Judge, Source
from kms.vault import root_keys
from kms.vault.backup.container import MAGIC, Header, Rows, Sealer, read_header, records
from kms.vault.backup.restore import Loaded, restore
from kms.vault.backup.write import back_up
from kms.vault.sealing import DerivedKeys
from kms.vault.seals import Seals
from kms.vault.store import Vault

SALT_AND_COMMITMENT = 24 + 32
CHUNK = 16 * 1024 + 16
ENTRY = AuditEntry(1, "2026-11-28T12:00:00.000000Z", "0" * 16, "backup_vault", "success", "local").line().decode()


def backup_of(vault: Vault) -> bytes:
    """A backup of the vault."""
    out = io.BytesIO()
    back_up(vault, out.write, ENTRY, utc_now())
    return out.getvalue()


def another_host(vault_folder: Path, folder: Path, database_url: str | None = None) -> Settings:
    """The settings of a host that has the root key of the vault in `vault_folder`, and nothing else."""
    folder.mkdir(mode=0o700)
    shutil.copy(vault_folder / "root.key", folder / "root.key")
    return settings_for(folder, database_url=database_url)


def restored(settings: Settings, backup: bytes, *sources: Source, accepting: bool = False) -> tuple[Loaded, Judge]:
    """What restoring it gives, and what was found on the way."""
    judge = Judge(utc_now(), accepting, sources)
    return restore(settings, io.BytesIO(backup), judge, lambda _: None), judge


def made_again(
    backup: bytes, keys: DerivedKeys, header: Callable[[Header], Header], change: Callable[[Rows], Rows | None]
) -> bytes:
    """An authentic backup with another header, and other records or fewer."""
    source, out = io.BytesIO(backup), io.BytesIO()
    before = read_header(source)
    sealer = Sealer(out.write, header(before), keys.vault_backup_key(before.root_key))
    for record in records(source, before, keys.vault_backup_key(before.root_key), lambda _: None):
        after = change(record)
        if after is not None:
            sealer.add(after)
    sealer.finish()
    return out.getvalue()


def sealed_bytes(header: Header, keys: DerivedKeys, content: bytes) -> bytes:
    """A backup whose sealed part is `content`, whatever that is."""
    encryptor = Cobblestone256Encryptor(keys.vault_backup_key(header.root_key), header.packed())
    return header.packed() + encryptor.update(content) + encryptor.finalize()


def body_at(backup: bytes) -> int:
    """Where the sealed part begins."""
    return backup.index(b"\n", len(MAGIC)) + 1


def chunks(backup: bytes) -> list[bytes]:
    """The header with salt and commitment, and then each chunk."""
    begins = body_at(backup) + SALT_AND_COMMITMENT
    return [backup[:begins], *(backup[at : at + CHUNK] for at in range(begins, len(backup), CHUNK))]


def begin_another_root_key(vault: Vault, settings: Settings) -> None:
    """Make another root key, under which nothing is yet."""
    root_keys.begin(vault, root_keys.Rewrap(Seals(settings), vault.derived_keys.vault_id), utc_now(), ENTRY)


def carry_it_through(vault: Vault) -> None:
    """Bring everything under it, and take the one before out of use."""
    assert root_keys.renew_rows(vault, utc_now, lambda: None) == root_keys.Left((), vault.derived_keys.current)
    root_keys.end(vault, vault.derived_keys.current, ENTRY)
