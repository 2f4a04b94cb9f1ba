"""The recovery key: what is wrapped for it without it, and what is not believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kms.errors import StartError
from kms.vault import recovery
from kms.vault.keyset import Keyset, new_secret
from kms.vault.keyslots import SealRecord
from kms.vault.sealing import DerivedKeys

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
