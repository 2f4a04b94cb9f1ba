"""Giving a vault another seal while its service runs, and a recovery key.

1. `begin` wraps the keyset by the new seal too, into the keyslot `next`. Both seals open the vault from then on.
2. A start that opened by `next` has proven that the new seal works where it is needed: `take_over` makes it the seal,
   in one commit, and the old one opens nothing from then on.

Until then `abandon` goes back. A start by the old seal changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kms.errors import Conflict, StartError
from kms.secret import Secret
from kms.vault import keyslots, recovery, root_keys
from kms.vault.keyset import Keyset
from kms.vault.keyslots import NEXT, RECOVERY, SEAL, SealRecord
from kms.vault.opening import Unseal, sealed_again
from kms.vault.rows import Keyslot
from kms.vault.seals import Parameters, Seal
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot


def begin(vault: Vault, new: Seal, entry: str) -> None:
    """Make `new` and have it open the vault too. `entry` is the audit entry.

    Raises StartError where the seal cannot be made, Conflict if it is changed already, or the root key is, and as
    `Vault.change`.
    """
    keys = vault.derived_keys
    with vault.read() as snapshot:  # before a person is asked, or shares are handed out
        _require_quiet(snapshot)
    keyset = keys.keyset
    # Outside of the change: another KMS may take its time, and a person too.
    slot = keyslots.wrapped(NEXT, new, SealRecord(new.name, new.create()).encoded(), keyset, keys.vault_id)
    with vault.change() as change:
        _require_quiet(change)
        _require_same(keyset, keys.keyset)
        change.insert(slot)
        change.record(entry)


def abandon(vault: Vault, entry: str) -> str | None:
    """Drop the seal that no start has proven; returns its name, None if there is none. Raises as `Vault.change`."""
    with vault.change() as change:
        slot = change.find(Keyslot, NEXT)
        if slot is None:
            return None
        change.delete(slot)
        change.record(entry)
    return SealRecord.decoded(slot.seal).name


def take_over(vault: Vault, entry: str) -> str | None:
    """Make the seal by which this process has opened the vault its only one, if it was waiting for that.

    Returns the name of the seal that opens nothing any more. Raises as `Vault.change`.
    """
    opened = vault.opened_by
    if opened is None or opened.slot != NEXT:
        return None
    with vault.change() as change:
        there, before = change.find(Keyslot, NEXT), change.find(Keyslot, SEAL)
        if there is None or before is None or there.seal != opened.seal:
            return None  # another node was first, or an operator has changed it since
        change.delete(there)
        change.replace(before, replace(there, slot=SEAL))
        sealed_again(change.connection, vault.derived_keys, there.seal)
        change.record(entry)
    return SealRecord.decoded(before.seal).name


def waiting(snapshot: Snapshot) -> str | None:
    """The name of the new seal that no start has proven yet."""
    slot = snapshot.find(Keyslot, NEXT)
    return None if slot is None else SealRecord.decoded(slot.seal).name


def described(slots: Iterable[Keyslot]) -> dict[str, str]:
    """What opens the vault, for people: `seal`, `new seal` and `recovery key`."""
    shown = {"seal": "none", "new seal": "none", "recovery key": "none"}
    for slot in slots:
        record = SealRecord.decoded(slot.seal)
        threshold, shares = record.parameters.get("threshold"), str(record.parameters.get("hashes", "")).split()
        split = f"{threshold} of {len(shares)} shares" if shares else ""
        if slot.slot == SEAL:
            shown["seal"] = f"{record.name} ({split})" if split else record.name
        elif slot.slot == NEXT:
            waits = "waits for a start that proves it"
            shown["new seal"] = f"{record.name} ({split}; {waits})" if split else f"{record.name} ({waits})"
        elif slot.slot == RECOVERY:
            shown["recovery key"] = split or "one, not in shares"
    return shown


def make_recovery_key(vault: Vault, recovery_key: Secret, parameters: Parameters, entry: str) -> None:
    """Have `recovery_key` (32 bytes) open the vault, in place of the one before.

    `parameters` are public, such as how it is split. Raises StartError or Conflict, and as `Vault.change`.
    """
    keys = vault.derived_keys
    with vault.read() as snapshot:
        require_same_root_key(snapshot)
    keyset = keys.keyset
    slot = recovery.made(recovery_key, parameters, keyset, keys)
    recovery.opened(slot, recovery_key, keys.vault_id)  # the first try must not be on the day when it is needed
    with vault.change() as change:
        require_same_root_key(change)
        _require_same(keyset, keys.keyset)
        keyslots.put(change, slot)
        change.record(entry)


def by_recovery_key(recovery_key: Secret) -> Unseal:
    """Opens a vault by its recovery key."""

    def unseal(slots: list[Keyslot], vault_id: bytes) -> Keyset:
        return recovery.opened(recovery_slot(slots), recovery_key, vault_id)

    return unseal


def recovery_slot(slots: Iterable[Keyslot]) -> Keyslot:
    """The keyslot of the recovery key. Raises StartError where there is none."""
    for slot in slots:
        if slot.slot == RECOVERY:
            return slot
    raise StartError("This vault has no recovery key; only its seal opens it.")


def require_same_root_key(snapshot: Snapshot) -> None:
    """Raise Conflict while the root key is being changed."""
    if root_keys.is_under_way(snapshot):
        raise Conflict("The root key is being changed. Let that end first: `kms vault rotate-root-key` shows it.")


def _require_quiet(snapshot: Snapshot) -> None:
    require_same_root_key(snapshot)
    name = waiting(snapshot)
    if name is not None:
        raise Conflict(
            f"A new seal, `{name}`, waits for a start that proves it. Restart the service with it, or drop it: "
            "`kms vault reseal --abandon`."
        )


def _require_same(before: Keyset, now: Keyset) -> None:
    if before != now:
        raise Conflict("The root key was changed at the same moment. Try again.")
