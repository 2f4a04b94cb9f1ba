"""The recovery key: opens a vault whose seal is gone.

It is the seed of a key pair, and the vault keeps the public key only, so that a root key of later days is wrapped for
it while the recovery key itself lies in a safe. But to a public key anybody can encrypt, who can write to the
database as well. So what is wrapped bears a code under a key that is derived from the recovery key, and of which the
vault has a copy, sealed under its root key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256
from typing import cast

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.crypto.primitives import Hpke
from kms.crypto.registry import key_type
from kms.errors import DecryptionFailed, StartError, ValidationFailed
from kms.secret import Secret
from kms.vault.keyset import Keyset, KeysetMalformed
from kms.vault.keyslots import RECOVERY, SealRecord, context
from kms.vault.rows import Keyslot
from kms.vault.sealing import DerivedKeys, SealBroken, SealContext
from kms.vault.seals import Parameters

NAME = "recovery"
_KIND = "ml-kem-768-x25519"
_FORMAT = b"\x01"
_CODE_BYTES = 32


def made(recovery_key: Secret, parameters: Parameters, keyset: Keyset, derived_keys: DerivedKeys) -> Keyslot:
    """The keyslot of a new recovery key of 32 bytes, with further public parameters, such as how it was split."""
    return _wrapped(_public_key(recovery_key), _code_key(recovery_key), parameters, keyset, derived_keys)


def rewrapped(slot: Keyslot, keyset: Keyset, derived_keys: DerivedKeys) -> Keyslot:
    """The keyslot that wraps `keyset` for the same recovery key, and what it seals under the newest root key there.

    `slot` must have been read in a change, which checks its code, and `derived_keys` must still have the root key
    that `slot` was written under. Raises StartError where the slot was altered.
    """
    return _wrapped(*_read(slot, derived_keys), keyset, derived_keys)


def opened(slot: Keyslot, recovery_key: Secret, vault_id: bytes) -> Keyset:
    """The keyset in the slot, if it was wrapped by the vault for `recovery_key`. Raises StartError."""
    parameters = SealRecord.decoded(slot.seal).parameters
    if parameters.get("public_key") != _text(_public_key(recovery_key)):
        raise StartError(
            "This is not the recovery key of this vault: it is of another vault, or of another time, because each "
            "new recovery key takes the place of the one before."
        )
    code, sealed = slot.wrapped[1 : 1 + _CODE_BYTES], slot.wrapped[1 + _CODE_BYTES :]
    bound_to = context(vault_id, slot.seal)
    expected = _code(_code_key(recovery_key), bound_to, sealed)
    altered = StartError("The keyslot of the recovery key was altered outside the service. Nothing was written.")
    if slot.wrapped[:1] != _FORMAT or not hmac.compare_digest(code, expected):
        raise altered
    kind = key_type(_KIND)
    try:
        private_key = cast(Hpke, kind.load(kind.imported(recovery_key.reveal(), "raw")))
        return Keyset.decoded(private_key.open(sealed, bound_to))
    except (DecryptionFailed, KeysetMalformed):
        raise altered from None


def _wrapped(
    public_key: bytes, code_key: bytes, parameters: Parameters, keyset: Keyset, derived_keys: DerivedKeys
) -> Keyslot:
    # Under the newest root key of the keyset, whichever is the one that is used for what is new.
    newest = DerivedKeys(keyset, derived_keys.vault_id)
    sealed_code_key = newest.seal(code_key, _binding(public_key))
    own: Parameters = {"public_key": _text(public_key), "code_key": _text(sealed_code_key)}
    record = SealRecord(NAME, {**parameters, **own}).encoded()
    bound_to = context(derived_keys.vault_id, record)
    try:
        sealed = cast(Hpke, key_type(_KIND).load_public(public_key)).seal(keyset.encoded(), bound_to)
    except ValidationFailed:
        raise _altered_row() from None
    return Keyslot(RECOVERY, record, _FORMAT + _code(code_key, bound_to, sealed) + sealed)


def _read(slot: Keyslot, derived_keys: DerivedKeys) -> tuple[bytes, bytes, Parameters]:
    """The public key, the key of codes, and the other parameters."""
    parameters = dict(SealRecord.decoded(slot.seal).parameters)
    try:
        public_key = base64.b64decode(str(parameters.pop("public_key")), validate=True)
        sealed_code_key = base64.b64decode(str(parameters.pop("code_key")), validate=True)
        return public_key, derived_keys.open(sealed_code_key, _binding(public_key)), parameters
    except (KeyError, binascii.Error, SealBroken):
        raise _altered_row() from None


def _altered_row() -> StartError:
    return StartError(
        "The keyslot of the recovery key was altered outside the service. Make a new recovery key: "
        "`kms vault recovery-key`."
    )


def _public_key(recovery_key: Secret) -> bytes:
    """SubjectPublicKeyInfo DER."""
    kind = key_type(_KIND)
    public_key = kind.public_key(kind.imported(recovery_key.reveal(), "raw"))
    assert public_key is not None
    return public_key


def _code_key(recovery_key: Secret) -> bytes:
    return HKDF(hashes.SHA256(), 32, b"", b"kms recovery code v1").derive(recovery_key.reveal())


def _code(code_key: bytes, bound_to: bytes, sealed: bytes) -> bytes:
    return hmac.digest(code_key, msgspec.msgpack.encode((bound_to, sealed)), sha256)


def _binding(public_key: bytes) -> SealContext:
    return ("recovery code key", public_key)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
