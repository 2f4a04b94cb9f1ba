"""What names the key of a published entry to the vault alone, whatever its id is by now.

A key that gives its name back when it is deleted gets another id, and a vault that is restored from an older backup
has it under the former one. So each published entry also names the uid of its key, encrypted with AES-SIV (RFC 5297),
which makes the same bytes on every node. The uid itself is at the beginning of ciphertexts: published in clear, or as
one hash for each key, it would tell every reader of the list which ciphertexts are of a deleted key and which ids it
has had. The serial number of the entry is the associated data, so the references of two entries do not tell that they
are of one key. (Times and audit leaf tell it where one revocation is listed under both ids of a key.)

The key of it is derived from the one that signs the list. Whatever can check the signature in a backup, can read it.
"""

from __future__ import annotations

import base64
import binascii
from typing import cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import OKPKey

_INFO = b"kms revocation list key reference v1"
_KEY_BYTES = 64


class KeyReferences:
    """References under the signing key of the list, a key pair."""

    def __init__(self, signing_key: OKPKey) -> None:
        seed = cast(Ed25519PrivateKey, signing_key.private_key).private_bytes_raw()
        self._cipher = AESSIV(HKDF(SHA256(), _KEY_BYTES, None, _INFO).derive(seed))

    def of(self, serial: int, key_uid: bytes) -> str:
        """The reference to the key `key_uid` (16 bytes) in the entry `serial`: unpadded base64url of 32 bytes."""
        return base64.urlsafe_b64encode(self._cipher.encrypt(key_uid, _bound_to(serial))).rstrip(b"=").decode()

    def uid(self, serial: int, reference: str | None) -> bytes | None:
        """The key uid that `reference` in the entry `serial` names; None where it is not one of this vault's."""
        try:
            sealed = base64.urlsafe_b64decode((reference or "").encode() + b"==")
            return self._cipher.decrypt(sealed, _bound_to(serial))
        except (InvalidTag, ValueError, binascii.Error):
            return None


def _bound_to(serial: int) -> list[bytes]:
    return [str(serial).encode()]
