"""The keys under the root key: what seals material, authenticates rows and hashes credentials.

Every purpose has a key of its own, derived from the root key by HKDF-SHA-256 with the vault id as salt, so
that a row of one vault means nothing in another.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.secret import Secret

ROOT_KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE_BYTES = 12
_SIV_NONCE_BYTES = 16

SealContext = tuple[str | int | bytes, ...]
"""What a sealed value is bound to: where it stands and what it is."""


class SealBroken(Exception):
    """A sealed value does not open where it stands: wrong root key, or it was altered or moved."""


class DerivedKeys:
    """Everything derived from the root key of one vault."""

    def __init__(self, root_key: Secret, vault_id: bytes) -> None:
        def derive(purpose: str, length: int = 32) -> bytes:
            info = b"kms vault v1 " + purpose.encode()
            return HKDF(hashes.SHA256(), length, vault_id, info).derive(root_key.reveal())

        self.root_key = root_key
        self.vault_id = vault_id
        self._kek = AESGCM(derive("key-encryption key"))
        self._row_key = derive("row authentication")
        self._digest_key = derive("row tally")  # as the first release called it
        self._head_cipher = AESSIV(derive("head", 64))
        self._cookie_cipher = AESSIV(derive("console cookie", 64))
        self._credential_key = derive("credential hash")

    def seal(self, plaintext: bytes, bound_to: SealContext) -> bytes:
        """AES-256-GCM under the key-encryption key: format (1 byte) ‖ nonce (12) ‖ ciphertext ‖ tag (16)."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORMAT + nonce + self._kek.encrypt(nonce, plaintext, self._context(bound_to))

    def open(self, sealed: bytes, bound_to: SealContext) -> bytes:
        """What was sealed, if it was sealed for `bound_to`. Raises SealBroken."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE_BYTES + 16:
            raise SealBroken("sealed value of no known format")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._kek.decrypt(nonce, ciphertext, self._context(bound_to))
        except InvalidTag:
            raise SealBroken("sealed value does not open where it stands") from None

    def row_mac(self, row: bytes) -> bytes:
        """HMAC-SHA-256 over the canonical form of a row."""
        return hmac.digest(self._row_key, row, sha256)

    def digest_term(self, row: bytes) -> int:
        """What a row adds to the digest of its table; unlike its code it is never stored."""
        return int.from_bytes(hmac.digest(self._digest_key, row, sha256))

    def seal_head(self, plaintext: bytes) -> bytes:
        """AES-256-SIV (RFC 5297) under a key for the head alone: format (1 byte) ‖ nonce (16) ‖ ciphertext."""
        return self._seal_siv(self._head_cipher, plaintext)

    def open_head(self, sealed: bytes) -> bytes:
        """What `seal_head` sealed. Raises SealBroken."""
        return self._open_siv(self._head_cipher, sealed, "head")

    def seal_cookie(self, plaintext: bytes) -> bytes:
        """As `seal_head`, under a key for cookies of the console alone."""
        return self._seal_siv(self._cookie_cipher, plaintext)

    def open_cookie(self, sealed: bytes) -> bytes:
        """What `seal_cookie` sealed. Raises SealBroken."""
        return self._open_siv(self._cookie_cipher, sealed, "cookie")

    def credential_hash(self, kind: str, *parts: bytes) -> bytes:
        """HMAC-SHA-256 of a credential of 256 (or, for recovery codes, 80) random bits.

        Keyed, so that a stolen database does not even allow guessing; no salt or stretching is needed.
        """
        return hmac.digest(self._credential_key, msgspec.msgpack.encode((kind, *parts)), sha256)

    def backup_key(self, shared: str | None) -> bytes:
        """The key of backups: derived from what installations share, or from this vault's root key."""
        secret = shared.encode() if shared is not None else self.root_key.reveal()
        salt = b"" if shared is not None else self.vault_id
        return HKDF(hashes.SHA256(), 32, salt, b"kms backup v1").derive(secret)

    def vault_backup_key(self) -> bytes:
        """The key under which backups of the whole vault are sealed."""
        return HKDF(hashes.SHA256(), 32, self.vault_id, b"kms vault backup v1").derive(self.root_key.reveal())

    def _seal_siv(self, cipher: AESSIV, plaintext: bytes) -> bytes:
        nonce = os.urandom(_SIV_NONCE_BYTES)
        return _FORMAT + nonce + cipher.encrypt(plaintext, [self.vault_id, nonce])

    def _open_siv(self, cipher: AESSIV, sealed: bytes, what: str) -> bytes:
        nonce, ciphertext = sealed[1 : 1 + _SIV_NONCE_BYTES], sealed[1 + _SIV_NONCE_BYTES :]
        if sealed[:1] != _FORMAT or len(ciphertext) <= 16:
            raise SealBroken(f"{what} of no known format")
        try:
            return cipher.decrypt(ciphertext, [self.vault_id, nonce])
        except InvalidTag:
            raise SealBroken(f"{what} does not open") from None

    def _context(self, bound_to: SealContext) -> bytes:
        return msgspec.msgpack.encode((self.vault_id, *bound_to))
