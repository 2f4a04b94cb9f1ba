"""From the header of a backup to the keys of its vault, by the seal that the settings name."""

from __future__ import annotations

from typing import Any, BinaryIO

from kms.config import Settings
from kms.vault import tables
from kms.vault.backup.container import BackupRefused, Header, read_header
from kms.vault.backup.content import in_order_of, unsealing_tables
from kms.vault.opening import Unseal, unsealed_by
from kms.vault.records import from_values
from kms.vault.rows import Keyslot, NewRootKey
from kms.vault.schema import own_schema
from kms.vault.sealing import DerivedKeys, SealBroken

_ALTERED = "The header of this backup was altered."


def opened(settings: Settings, source: BinaryIO, unseal: Unseal | None = None) -> tuple[Header, DerivedKeys]:
    """The header at the beginning of `source`, and the keys of its vault.

    `unseal` is given where something else than the seal gives the keyset. Raises StartError.
    """
    header = read_header(source)
    newest = own_schema().revision
    if header.schema > newest:
        raise BackupRefused(
            f"This backup is of schema {header.schema}, made by a newer release than this one (schema {newest}). "
            "Restore it with that release."
        )
    rows = _rows_of(header)
    try:
        vault = dict(zip([column.name for column in tables.vault.columns], rows["vault"][0], strict=True))
        slots = [from_values(Keyslot, row) for row in rows.get("keyslots", [])]
        new_root_keys = [from_values(NewRootKey, row) for row in rows.get("root_keys", [])]
        keys, revision = unsealed_by(settings, vault, slots, new_root_keys, unseal)
    except (KeyError, IndexError, ValueError, TypeError, MemoryError):
        raise BackupRefused(_ALTERED) from None
    if keys.vault_id.hex() != header.vault_id or revision != header.schema:
        raise BackupRefused(_ALTERED)
    try:
        keys.vault_backup_key(header.root_key)
    except SealBroken:
        raise BackupRefused(_ALTERED) from None
    return header, keys


def _rows_of(header: Header) -> dict[str, list[list[Any]]]:
    named = {str(table.name): table for table in unsealing_tables()}
    found: dict[str, list[list[Any]]] = {}
    try:
        for record in header.unsealing_rows():
            found.setdefault(record.table, []).extend(in_order_of(named[record.table], record))
    except (KeyError, IndexError):
        raise BackupRefused(_ALTERED) from None
    return found
