"""Sections of `kms status` about what opens the vault, and about copies of it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from msgspec import UNSET, UnsetType

from kms.operations.system.status_sections import Look, Section
from kms.vault import keyslots
from kms.vault.backup.write import last_backup
from kms.vault.keyslots import SealRecord
from kms.vault.rows import Keyslot


class SealSection(Section):
    """The seal of the vault, the one that is to take its place, and the root keys that are in use, by number.

    `recovery_key` says whether there is one.
    """

    name: str
    root_keys: list[int]
    recovery_key: bool
    next: str | UnsetType = UNSET

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        slots = {each.slot: SealRecord.decoded(each.seal).name for each in look.snapshot.select(Keyslot)}
        numbers = sorted(look.service.vault.derived_keys.keyset.root_keys)
        if keyslots.NEXT in slots:
            look.attention.append(f"The seal `{slots[keyslots.NEXT]}` waits for a restart with its settings.")
        if len(numbers) > 1:
            look.attention.append("The root key is being changed: `kms vault rotate-root-key` shows how far it is.")
        return cls(
            name=slots.get(keyslots.SEAL, look.service.settings.seal),
            next=slots.get(keyslots.NEXT, UNSET),
            root_keys=numbers,
            recovery_key=keyslots.RECOVERY in slots,
        )


class BackupSection(Section):
    """The last backup of the whole vault, by `kms vault backup`; without `at` there was none."""

    at: datetime | UnsetType = UNSET
    changes_since: int | UnsetType = UNSET

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        last = last_backup(look.service.vault)
        if last is None:
            look.attention.append("No backup was made yet: `kms vault backup`.")
            return cls()
        return cls(at=last.made_at, changes_since=look.snapshot.head().counter - last.counter)
