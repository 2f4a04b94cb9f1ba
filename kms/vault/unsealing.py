"""Unsealing a vault whose seal is `shamir`: shares come one at a time, and enough of one set open it.

While the shares are being changed there are two sets, of the keyslots `seal` and `next`; either opens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from kms.errors import StartError
from kms.secret import Secret
from kms.vault.keyset import Keyset, KeysetMalformed
from kms.vault.keyslots import NEXT, SEAL, SealRecord, context, wrong_key
from kms.vault.rows import Keyslot
from kms.vault.sealing import SealBroken
from kms.vault.seals import ShamirSeal
from kms.vault.seals.base import unwrap_with
from kms.vault.shares import Gathered, Share, ShareRefused, ShareSet


class Unsealing:
    """What people have given so far. Several threads may use it.

    Once `is_done` it is a `kms.vault.opening.Unseal`, and `opened` is then the keyslot that it opened.
    """

    def __init__(self, slots: Iterable[Keyslot], vault_id: bytes) -> None:
        self._vault_id = vault_id
        self._slots = _sealed_with_shamir(slots)
        self._gathered = [Gathered(share_set) for _, share_set in self._slots]
        self._key: tuple[str, Secret] | None = None
        self._lock = threading.Lock()
        self.opened: Keyslot | None = None

    @property
    def is_done(self) -> bool:
        """Whether there were enough shares."""
        return self._key is not None

    @property
    def progress(self) -> str:
        """How many shares were given, for people."""
        with self._lock:
            return self._progress()

    def _progress(self) -> str:
        if self._key is not None:
            return "unsealed"
        several = len(self._gathered) > 1
        counts = [
            f"{len(each)} of {each.of.threshold} shares given" + (f" of the set {each.of.name}" if several else "")
            for each in self._gathered
        ]
        return f"sealed: {', or '.join(counts)}"

    def give(self, text: str) -> str:
        """Take a share; returns the progress after it. Raises ShareRefused, and nothing has changed then."""
        share = Share.decoded(text)
        with self._lock:
            if self._key is not None:
                raise ShareRefused("The vault has been unsealed already.")
            mine = [each for each in self._gathered if each.of.set_id == share.set_id]
            gathered = mine[0] if mine else self._gathered[0]  # which says what is wanted
            gathered.add(share)
            if gathered.is_enough:
                self._unseal(gathered)
            return self._progress()

    def reset(self) -> str:
        """Forget the shares that were given; returns the progress."""
        with self._lock:
            for each in self._gathered:
                each.forget()
            return self._progress()

    def _unseal(self, gathered: Gathered) -> None:
        key = gathered.secret()
        slot = next(slot for slot, share_set in self._slots if share_set is gathered.of)
        for each in self._gathered:
            each.forget()
        try:
            self._unwrapped(slot, key)
        except StartError:
            raise ShareRefused(
                f"{wrong_key(ShamirSeal.name)} The shares that were given are forgotten: begin again."
            ) from None
        self._key = gathered.of.name, key

    def __call__(self, slots: list[Keyslot], vault_id: bytes) -> Keyset:
        """The keyset in the keyslot of the set that was given. Raises StartError."""
        assert self._key is not None
        name, key = self._key
        for slot, share_set in _sealed_with_shamir(slots):
            if share_set.name == name:
                keyset = self._unwrapped(slot, key)
                self.opened, self._key = slot, None
                return keyset
        raise StartError("The seal of the vault was changed at the same moment. Start again.")

    def _unwrapped(self, slot: Keyslot, key: Secret) -> Keyset:
        try:
            return Keyset.decoded(unwrap_with(key, slot.wrapped, context(self._vault_id, slot.seal)))
        except (SealBroken, KeysetMalformed):
            raise StartError(wrong_key(ShamirSeal.name)) from None


def _sealed_with_shamir(slots: Iterable[Keyslot]) -> list[tuple[Keyslot, ShareSet]]:
    found = []
    for slot in slots:
        record = SealRecord.decoded(slot.seal)
        if slot.slot in (SEAL, NEXT) and record.name == ShamirSeal.name:
            found.append((slot, ShareSet.of(record.parameters)))
    return found
