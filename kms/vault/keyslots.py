"""Keyslots: the keyset of a vault, wrapped once for each seal that may open it.

- `seal` is the one of every start.
- `next` is the one that takes its place, until a start with it shows that it works; both open the vault till then.
- `recovery` is the recovery key, for the day on which neither can be had (see `recovery`).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kms.config import Settings
from kms.errors import StartError
from kms.vault.change import Change
from kms.vault.keyset import Keyset, KeysetMalformed
from kms.vault.rows import Keyslot
from kms.vault.sealing import SealBroken
from kms.vault.seals import Parameters, Seal, Seals

SEAL, NEXT, RECOVERY = "seal", "next", "recovery"


class SealRecord(msgspec.Struct, frozen=True):
    """A seal as it is stored, as JSON: its name, and what it needs to open the vault again."""

    name: str
    parameters: Parameters

    @staticmethod
    def decoded(text: str) -> SealRecord:
        """The record in `text`. Raises StartError."""
        try:
            return msgspec.json.decode(text, type=SealRecord)
        except msgspec.DecodeError:
            raise StartError("The row of the vault was altered outside the service.") from None

    def encoded(self) -> str:
        """As it is stored."""
        return msgspec.json.encode(self).decode()


def context(vault_id: bytes, record: str) -> bytes:
    """What a wrapped keyset is bound to: the vault, and the seal as it is stored."""
    return msgspec.msgpack.encode(("keyset", vault_id, record))


def wrapped(slot: str, seal: Seal, record: str, keyset: Keyset, vault_id: bytes) -> Keyslot:
    """The keyslot of a seal whose stored form is `record`. Raises StartError."""
    parameters = SealRecord.decoded(record).parameters
    return Keyslot(slot, record, seal.wrap(keyset.encoded(), context(vault_id, record), parameters))


def opened(slots: Iterable[Keyslot], seals: Seals, vault_id: bytes) -> tuple[Keyset, Keyslot]:
    """The keyset, and the keyslot that gave it: `next` or `seal`, whichever the settings name. Raises StartError."""
    by_name = {each.slot: each for each in slots}
    tried = [by_name[slot] for slot in (NEXT, SEAL) if slot in by_name]
    records = {each.slot: SealRecord.decoded(each.seal) for each in tried}
    fitting = [each for each in tried if records[each.slot].name == seals.settings.seal]
    if not records:
        raise StartError("The keyslots of the vault were removed outside the service.")
    if not fitting:
        require_named(seals.settings, *sorted({each.name for each in records.values()}))
    for number, each in enumerate(fitting, 1):
        try:
            return keyset_of(each, seals, vault_id), each
        except StartError:
            if number == len(fitting):
                raise
    raise AssertionError("there is a slot that fits")


def keyset_of(slot: Keyslot, seals: Seals, vault_id: bytes) -> Keyset:
    """The keyset that the seal of a keyslot gives. Raises StartError."""
    record = SealRecord.decoded(slot.seal)
    try:
        seal = seals.named(record.name)
        return Keyset.decoded(seal.unwrap(slot.wrapped, context(vault_id, slot.seal), record.parameters))
    except (SealBroken, KeysetMalformed):
        raise StartError(wrong_key(record.name)) from None


def require_named(settings: Settings, *names: str) -> None:
    """Raise StartError unless the settings name one of the seals that the vault has."""
    if settings.seal not in names:
        shown = " and ".join(f"`{name}`" for name in names)
        raise StartError(f"The vault was sealed with {shown}; start with KMS_SEAL={names[0]}.")


def wrong_key(seal: str) -> str:
    """The sentence for a seal that opens another vault, or a keyset that does not open."""
    return (
        f"The {seal} seal gives another root key than the one this vault was made with, or the row of the vault was "
        "altered. Nothing was written; give it the right one."
    )


def put(change: Change, slot: Keyslot) -> None:
    """Write a keyslot, in place of what it held."""
    before = change.find(Keyslot, slot.slot)
    if before is None:
        change.insert(slot)
    else:
        change.replace(before, slot)
