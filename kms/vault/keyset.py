"""The keyset: the root keys of a vault that are in use, and the secrets that stay when the root key changes.

What a root key protects can be protected anew under another: sealed values, the codes of rows, the head. Three things
cannot, so they have a secret of their own in the keyset: hashes of credentials, whose plaintexts nobody has any more;
backups of keys, which are elsewhere; and the digests of tables, which would have to change all at once.

A seal wraps the keyset (see `kms.vault.seals`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.secret import Secret

ROOT_KEY_BYTES = 32
FIRST = 1
"""The number of the root key with which a vault begins."""


class KeysetMalformed(Exception):
    """The bytes are no keyset."""


@dataclass(frozen=True)
class Keyset:
    """`root_keys` by their numbers, of which the largest is the newest; each secret has 32 bytes."""

    root_keys: dict[int, Secret]
    credential_key: Secret
    digest_key: Secret
    backup_key: Secret

    @staticmethod
    def new() -> Keyset:
        """The keyset of a new vault."""
        return Keyset({FIRST: new_secret()}, new_secret(), new_secret(), new_secret())

    @staticmethod
    def of_one_root_key(root_key: Secret, vault_id: bytes) -> Keyset:
        """The keyset of a vault from before there were keysets: everything was derived from the root key."""
        return Keyset(
            {FIRST: root_key},
            credential_key=derived(root_key, vault_id, "credential hash"),
            digest_key=derived(root_key, vault_id, "row tally"),  # as the first release called it
            backup_key=Secret(_hkdf(root_key, vault_id, b"kms backup v1")),
        )

    @staticmethod
    def decoded(encoded: bytes) -> Keyset:
        """What `encoded` was made of. Raises KeysetMalformed."""
        try:
            root_keys, *others = _decoder.decode(encoded)
        except msgspec.DecodeError:
            raise KeysetMalformed from None
        if not root_keys or any(len(each) != ROOT_KEY_BYTES for each in (*root_keys.values(), *others)):
            raise KeysetMalformed
        return Keyset({number: Secret(each) for number, each in root_keys.items()}, *map(Secret, others))

    def encoded(self) -> bytes:
        """MessagePack of the root keys by number, the credential key, the digest key and the backup key."""
        root_keys = {number: self.root_keys[number].reveal() for number in sorted(self.root_keys)}
        others = (self.credential_key, self.digest_key, self.backup_key)
        return msgspec.msgpack.encode((root_keys, *(each.reveal() for each in others)))

    @property
    def newest(self) -> int:
        """The number of the newest root key."""
        return max(self.root_keys)

    @property
    def oldest(self) -> int:
        """The number of the oldest root key that is still in use."""
        return min(self.root_keys)

    def plus(self, number: int, root_key: Secret) -> Keyset:
        """With one root key more."""
        return replace(self, root_keys={**self.root_keys, number: root_key})

    def since(self, oldest: int) -> Keyset:
        """Without the root keys before `oldest`."""
        return replace(self, root_keys={number: key for number, key in self.root_keys.items() if number >= oldest})


_decoder = msgspec.msgpack.Decoder(tuple[dict[int, bytes], bytes, bytes, bytes])


def new_secret() -> Secret:
    """32 random bytes."""
    return Secret(os.urandom(ROOT_KEY_BYTES))


def derived(root_key: Secret, vault_id: bytes, purpose: str, length: int = 32) -> Secret:
    """The key for one purpose: HKDF-SHA-256 of the root key with the vault id as salt."""
    return Secret(_hkdf(root_key, vault_id, b"kms vault v1 " + purpose.encode(), length))


def _hkdf(secret: Secret, salt: bytes, info: bytes, length: int = 32) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret.reveal())
