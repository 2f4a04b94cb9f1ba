"""The keys under the root keys: what seals material, authenticates rows and hashes credentials.

Every purpose has a key of its own, derived from a root key by HKDF-SHA-256 with the vault id as salt, so that a row
of one vault means nothing in another. While the root key is being changed there are two of them. Whatever is made
under a root key carries its number, except under number 1: that is how it was before there were numbers.
"""

from __future__ import annotations

import hmac
import os
import threading
from collections.abc import Callable
from hashlib import sha256

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kms.clock import steady_seconds
from kms.secret import Secret
from kms.vault.keyset import FIRST, Keyset, derived

_FORMAT, _NUMBERED = b"\x01", b"\x02"
_NUMBER_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_SIV_NONCE_BYTES = 16
_CODE_BYTES = 32
_FADES_SECONDS = 60.0

SealContext = tuple[str | int | bytes, ...]
"""What a sealed value is bound to: where it stands and what it is."""


class SealBroken(Exception):
    """A sealed value does not open where it stands: wrong root key, or it was altered or moved."""


class UnknownRootKey(SealBroken):
    """Made under a root key that is not in use any more, or that this process cannot get."""


class _UnderRootKey:
    """What is derived from one root key."""

    __slots__ = ("cookie_cipher", "head_cipher", "kek", "row_key", "vault_backup_key")

    def __init__(self, root_key: Secret, vault_id: bytes) -> None:
        def key(purpose: str, length: int = 32) -> bytes:
            return derived(root_key, vault_id, purpose, length).reveal()

        self.kek = AESGCM(key("key-encryption key"))
        self.row_key = key("row authentication")
        self.vault_backup_key = key("vault backup")
        self.head_cipher = AESSIV(key("head", 64))
        self.cookie_cipher = AESSIV(key("console cookie", 64))


class DerivedKeys:
    """Everything derived from the keyset of one vault.

    What is new is made under the root key `current`: that under which the newest head was sealed. `find_missing` is
    asked for the keyset that has a root key of a given number, and raises UnknownRootKey; `learned` is told of each
    keyset that takes the place of the one before.
    """

    def __init__(self, keyset: Keyset, vault_id: bytes) -> None:
        self.vault_id = vault_id
        self.current = 0
        self.find_missing: Callable[[int], Keyset] = _not_to_be_found
        self.learned: Callable[[Keyset], None] = _nobody_told
        self._under: dict[int, _UnderRootKey] = {}
        self._lock = threading.RLock()
        self._fading: dict[int, _UnderRootKey] = {}
        self._fades_at = 0.0
        self.keyset = keyset
        self.adopt(keyset)

    def adopt(self, keyset: Keyset) -> None:
        """Use the root keys of `keyset` from now on, and its newest for what is new."""
        known = self._under
        self._under = {
            number: known.get(number) or _UnderRootKey(root_key, self.vault_id)
            for number, root_key in keyset.root_keys.items()
        }
        self.keyset = keyset
        self.current = keyset.newest
        self._digest_key = keyset.digest_key.reveal()
        self._credential_key = keyset.credential_key.reveal()
        self.learned(keyset)

    @property
    def oldest(self) -> int:
        """The number of the oldest root key that is still in use."""
        return self.keyset.oldest

    def retire_before(self, oldest: int) -> None:
        """Forget the root keys before `oldest`: nothing is under them any more, and what says so is refused.

        For a minute they still open what a request had read before; codes of rows are refused at once.
        """
        with self._lock:
            if oldest > self.keyset.oldest:
                self._fading = {number: under for number, under in self._under.items() if number < oldest}
                self._fades_at = steady_seconds() + _FADES_SECONDS
                self.adopt(self.keyset.since(oldest))

    def seal(self, plaintext: bytes, bound_to: SealContext) -> bytes:
        """AES-256-GCM under the key-encryption key: root key (1 or 5 bytes) ‖ nonce (12) ‖ ciphertext ‖ tag (16)."""
        nonce, number = os.urandom(_NONCE_BYTES), self.current
        encrypted = self._of(number).kek.encrypt(nonce, plaintext, self._context(bound_to))
        return _prefix(number) + nonce + encrypted

    def open(self, sealed: bytes, bound_to: SealContext) -> bytes:
        """What was sealed, if it was sealed for `bound_to`. Raises SealBroken."""
        number, content = _numbered(sealed)
        if len(content) < _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken("sealed value of no known format")
        nonce, ciphertext = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
        under = self._fading.get(number) if steady_seconds() < self._fades_at else None
        try:
            return (under or self._of(number)).kek.decrypt(nonce, ciphertext, self._context(bound_to))
        except InvalidTag:
            raise SealBroken("sealed value does not open where it stands") from None

    def seal_root_key(self, number: int, root_key: Secret) -> bytes:
        """A new root key, sealed under the one before."""
        return self.seal(root_key.reveal(), ("root key", number))

    def open_root_key(self, number: int, sealed: bytes) -> Secret:
        """What `seal_root_key` sealed. Raises SealBroken."""
        return Secret(self.open(sealed, ("root key", number)))

    def row_mac(self, row: bytes) -> bytes:
        """HMAC-SHA-256 over the canonical form of a row, after the number of its root key where that is not 1."""
        number = self.current
        code = hmac.digest(self._of(number).row_key, row, sha256)
        return code if number == FIRST else number.to_bytes(_NUMBER_BYTES) + code

    def is_row_mac(self, code: bytes, row: bytes) -> bool:
        """Whether `code` is what `row_mac` gives, or gave under an older root key that is still in use."""
        if len(code) not in (_CODE_BYTES, _NUMBER_BYTES + _CODE_BYTES):
            return False
        try:
            row_key = self._of(number_of_code(code)).row_key
        except SealBroken:
            return False
        return hmac.compare_digest(code[-_CODE_BYTES:], hmac.digest(row_key, row, sha256))

    def digest_term(self, row: bytes) -> int:
        """What a row adds to the digest of its table; unlike its code it is never stored."""
        return int.from_bytes(hmac.digest(self._digest_key, row, sha256))

    def seal_head(self, plaintext: bytes) -> bytes:
        """AES-256-SIV (RFC 5297) under a key for heads: root key (1 or 5 bytes) ‖ nonce (16) ‖ ciphertext."""
        return self._seal_siv(self.current, self._of(self.current).head_cipher, plaintext)

    def open_head(self, sealed: bytes) -> bytes:
        """What `seal_head` sealed. From now on its root key is used for what is new. Raises SealBroken."""
        number, content = _numbered(sealed)
        plaintext = self._open_siv(self._of(number).head_cipher, content, "head")
        self.current = max(self.current, number)
        return plaintext

    def seal_cookie(self, plaintext: bytes) -> bytes:
        """As `seal_head`, under a key for cookies of the console alone."""
        return self._seal_siv(self.current, self._of(self.current).cookie_cipher, plaintext)

    def open_cookie(self, sealed: bytes) -> bytes:
        """What `seal_cookie` sealed. Raises SealBroken."""
        number, content = _numbered(sealed)
        if number not in self._under:  # a stranger's number is not looked for in the database
            raise UnknownRootKey("cookie under a root key that is not in use")
        return self._open_siv(self._of(number).cookie_cipher, content, "cookie")

    def credential_hash(self, kind: str, *parts: bytes) -> bytes:
        """HMAC-SHA-256 of a credential of 256 (or, for recovery codes, 80) random bits.

        Keyed, so that a stolen database does not even allow guessing; no salt or stretching is needed.
        """
        return hmac.digest(self._credential_key, msgspec.msgpack.encode((kind, *parts)), sha256)

    def backup_key(self, shared: str | None) -> bytes:
        """The key of backups of single keys: derived from what installations share, or this vault's own."""
        if shared is None:
            return self.keyset.backup_key.reveal()
        return HKDF(hashes.SHA256(), 32, b"", b"kms backup v1").derive(shared.encode())

    def vault_backup_key(self, number: int) -> bytes:
        """The key of backups of the whole vault under the root key `number`. Raises UnknownRootKey."""
        return self._of(number).vault_backup_key

    def _of(self, number: int) -> _UnderRootKey:
        under = self._under.get(number)
        return under if under is not None else self._found(number)

    def _found(self, number: int) -> _UnderRootKey:
        with self._lock:
            if number < self.keyset.oldest:
                raise UnknownRootKey(f"made under root key {number}, which is not in use any more")
            if number not in self._under:
                self.adopt(self.find_missing(number))
            return self._under[number]

    def _seal_siv(self, number: int, cipher: AESSIV, plaintext: bytes) -> bytes:
        nonce = os.urandom(_SIV_NONCE_BYTES)
        return _prefix(number) + nonce + cipher.encrypt(plaintext, [self.vault_id, nonce])

    def _open_siv(self, cipher: AESSIV, content: bytes, what: str) -> bytes:
        nonce, ciphertext = content[:_SIV_NONCE_BYTES], content[_SIV_NONCE_BYTES:]
        if len(ciphertext) <= 16:
            raise SealBroken(f"{what} of no known format")
        try:
            return cipher.decrypt(ciphertext, [self.vault_id, nonce])
        except InvalidTag:
            raise SealBroken(f"{what} does not open") from None

    def _context(self, bound_to: SealContext) -> bytes:
        return msgspec.msgpack.encode((self.vault_id, *bound_to))


def number_of_code(code: bytes) -> int:
    """The number of the root key under which a row's code was made."""
    return FIRST if len(code) <= _CODE_BYTES else int.from_bytes(code[:-_CODE_BYTES])


def number_of_sealed(sealed: bytes) -> int:
    """The number of the root key under which a value was sealed. Raises SealBroken."""
    return _numbered(sealed)[0]


def length_of_sealed(sealed: bytes) -> int:
    """How many bytes `DerivedKeys.seal` sealed, which the length of the result tells. Raises SealBroken."""
    return len(_numbered(sealed)[1]) - _NONCE_BYTES - _TAG_BYTES


def _prefix(number: int) -> bytes:
    return _FORMAT if number == FIRST else _NUMBERED + number.to_bytes(_NUMBER_BYTES)


def _numbered(sealed: bytes) -> tuple[int, bytes]:
    if sealed[:1] == _FORMAT:
        return FIRST, sealed[1:]
    if sealed[:1] == _NUMBERED and len(sealed) > _NUMBER_BYTES:
        return int.from_bytes(sealed[1 : 1 + _NUMBER_BYTES]), sealed[1 + _NUMBER_BYTES :]
    raise SealBroken("sealed value of no known format")


def _not_to_be_found(number: int) -> Keyset:
    raise UnknownRootKey(f"made under root key {number}, which this process has not got")


def _nobody_told(_keyset: Keyset) -> None:
    """Nobody wants to know."""
