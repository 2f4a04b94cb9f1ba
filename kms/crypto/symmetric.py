"""Authenticated encryption with associated data (RFC 5116), and the deterministic kind (RFC 5297)."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, AESSIV, ChaCha20Poly1305

from kms.crypto.primitives import Cipher
from kms.errors import DecryptionFailed

TAG_BYTES = 16
_MESSAGES_OF_A_RUN = 256
# The inputs of the two halves of a message key (SP 800-108r1, section 4.1): counter, label "X", separator, nonce.
_INPUTS = int.from_bytes(b"\x00\x01X\x00" + bytes(12) + b"\x00\x02X\x00" + bytes(12))
_TWICE = (1 << 128) | 1  # times this, one block becomes two equal ones


class Xaes256Gcm(Cipher):
    """XAES-256-GCM (C2SP, c2sp.org/XAES-256-GCM): AES-256-GCM with 192-bit nonces, safe to draw at random.

    A message key is derived from the key K and the first 12 bytes of the nonce by CMAC in counter mode (SP
    800-108r1); AES-256-GCM uses it with the last 12 bytes as nonce. The number of messages is practically unlimited.
    Ciphertexts are nonce (24 bytes) ‖ ciphertext ‖ tag (16 bytes).

    Deriving a message key costs more than all the rest, so up to `_MESSAGES_OF_A_RUN` messages share one, and with it
    the first half of their nonces; the second half is drawn for each (docs/decisions/0015).
    """

    NONCE_BYTES = 24

    def __init__(self, key: bytes) -> None:
        self._block = BlockCipher(algorithms.AES256(key), modes.ECB())  # noqa: S305  # CMAC is built on single blocks
        self._idle: list[CipherContext] = []  # making a context costs more than the blocks it encrypts
        self._run: _Run | None = None
        self._mask = _INPUTS ^ int.from_bytes(_double(self._block.encryptor().update(bytes(16)))) * _TWICE

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        run = self._run
        if run is None or run.left <= 0:
            prefix = os.urandom(12)
            self._run = run = _Run(prefix, self.message_cipher(prefix))
        run.left -= 1  # of two threads one may go uncounted: a message more does no harm
        inner = os.urandom(12)
        return run.prefix + inner + run.seal(inner, plaintext, associated_data)

    def encrypt_with_nonce(self, plaintext: bytes, associated_data: bytes, nonce: bytes) -> bytes:
        """Encrypt under a nonce of the caller's, which must never repeat for this key."""
        return nonce + self.message_cipher(nonce).encrypt(nonce[12:], plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < self.NONCE_BYTES + TAG_BYTES:
            raise DecryptionFailed
        nonce, sealed = ciphertext[: self.NONCE_BYTES], ciphertext[self.NONCE_BYTES :]
        try:
            return self.message_cipher(nonce).decrypt(nonce[12:], sealed, associated_data)
        except InvalidTag:
            raise DecryptionFailed from None

    def encryptor(self, header: bytes) -> Callable[[bytes, bytes], bytes]:
        # Nonces of 20 bytes drawn at random, the same for all, and a counter of 4: as long as 20 random bytes do not
        # repeat, no nonce does. So nothing is drawn for each message.
        prefix = os.urandom(20)
        start, inner = header + prefix, prefix[12:]
        seal, numbers = self.message_cipher(prefix).encrypt, count()

        def encrypt(plaintext: bytes, associated_data: bytes) -> bytes:
            number = next(numbers).to_bytes(4)  # there are far fewer than 2^32
            return start + number + seal(inner + number, plaintext, header + associated_data)

        return encrypt

    def decryptor(self, header: bytes) -> Callable[[bytes, bytes], bytes]:
        prefix = bytes(12)
        open_ = self.message_cipher(prefix).decrypt
        begin = len(header)
        middle, end = begin + 12, begin + 24

        def decrypt(sealed: bytes, associated_data: bytes) -> bytes:
            nonlocal prefix, open_
            if len(sealed) < end + TAG_BYTES:
                raise DecryptionFailed
            if not sealed.startswith(prefix, begin):  # what was encrypted together is often decrypted together
                prefix = sealed[begin:middle]
                open_ = self.message_cipher(prefix).decrypt
            try:
                return open_(sealed[middle:end], sealed[end:], header + associated_data)
            except InvalidTag:
                raise DecryptionFailed from None

        return decrypt

    def message_cipher(self, nonce: bytes) -> AESGCM:
        """AES-256-GCM under the key that the first 12 bytes of the nonce give."""
        blocks = (int.from_bytes(nonce[:12]) * _TWICE ^ self._mask).to_bytes(32)
        try:
            context = self._idle.pop()
        except IndexError:
            context = self._block.encryptor()
        key = context.update(blocks)
        self._idle.append(context)  # ECB keeps nothing from one call to the next
        return AESGCM(key)


class _Run:
    """Messages under one message key, and how many more there may be."""

    __slots__ = ("left", "prefix", "seal")

    def __init__(self, prefix: bytes, cipher: AESGCM) -> None:
        self.prefix, self.seal, self.left = prefix, cipher.encrypt, _MESSAGES_OF_A_RUN


class Aead(Cipher):
    """An AEAD with 96-bit nonces drawn at random. Ciphertexts are nonce (12 bytes) ‖ ciphertext ‖ tag (16)."""

    NONCE_BYTES = 12

    def __init__(self, aead: AESGCM | AESGCMSIV | ChaCha20Poly1305) -> None:
        self._aead = aead

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        nonce = os.urandom(self.NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < self.NONCE_BYTES + TAG_BYTES:
            raise DecryptionFailed
        try:
            return self._aead.decrypt(ciphertext[: self.NONCE_BYTES], ciphertext[self.NONCE_BYTES :], associated_data)
        except InvalidTag:
            raise DecryptionFailed from None


class AesGcm(Aead):
    """AES-GCM (SP 800-38D); the size of the key chooses AES-128 or AES-256."""

    def __init__(self, key: bytes) -> None:
        super().__init__(AESGCM(key))


class AesGcmSiv(Aead):
    """AES-GCM-SIV (RFC 8452): a nonce that repeats shows only whether two messages are equal."""

    def __init__(self, key: bytes) -> None:
        super().__init__(AESGCMSIV(key))


class ChaCha(Aead):
    """ChaCha20-Poly1305 (RFC 8439)."""

    def __init__(self, key: bytes) -> None:
        super().__init__(ChaCha20Poly1305(key))


class XChaCha(Cipher):
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): 192-bit nonces, safe to draw at random.

    HChaCha20 of the key and the first 16 bytes of the nonce gives a message key; ChaCha20-Poly1305 under it takes
    four zero bytes and the last 8 bytes. Ciphertexts are nonce (24 bytes) ‖ ciphertext ‖ tag (16 bytes).
    """

    NONCE_BYTES = 24

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return self.encrypt_with_nonce(plaintext, associated_data, os.urandom(self.NONCE_BYTES))

    def encrypt_with_nonce(self, plaintext: bytes, associated_data: bytes, nonce: bytes) -> bytes:
        """Encrypt under a nonce of the caller's, which must never repeat for this key."""
        aead = ChaCha20Poly1305(_hchacha20(self._key, nonce[:16]))
        return nonce + aead.encrypt(bytes(4) + nonce[16:], plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < self.NONCE_BYTES + TAG_BYTES:
            raise DecryptionFailed
        nonce, sealed = ciphertext[: self.NONCE_BYTES], ciphertext[self.NONCE_BYTES :]
        aead = ChaCha20Poly1305(_hchacha20(self._key, nonce[:16]))
        try:
            return aead.decrypt(bytes(4) + nonce[16:], sealed, associated_data)
        except InvalidTag:
            raise DecryptionFailed from None


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 (the same, section 2.2): 8 words of the state after the rounds of ChaCha20.

    A ChaCha20 block is that state plus the initial state. Of the initial state the constant and the nonce are known,
    so these 8 words can be subtracted again.
    """
    block = BlockCipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(64))
    words = [*zip(_WORDS.unpack(block[:16]), _CONSTANT, strict=True)]
    words += zip(_WORDS.unpack(block[48:]), _WORDS.unpack(nonce), strict=True)
    mixed = [(after - before) % (1 << 32) for after, before in words]
    return _WORDS.pack(*mixed[:4]) + _WORDS.pack(*mixed[4:])


_WORDS = Struct("<4I")
_CONSTANT = _WORDS.unpack(b"expand 32-byte k")


class AesSiv(Cipher):
    """AES-SIV (RFC 5297) without a nonce: equal messages with equal associated data give equal ciphertexts.

    Ciphertexts are the synthetic IV (16 bytes) ‖ ciphertext. The key has twice the size of AES's.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESSIV(key)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return self._aead.encrypt(plaintext, [associated_data])

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < TAG_BYTES:
            raise DecryptionFailed
        try:
            return self._aead.decrypt(ciphertext, [associated_data])
        except InvalidTag:
            raise DecryptionFailed from None


def _double(block: bytes) -> bytes:
    """Multiply by x in GF(2^128), as CMAC's subkeys are made (SP 800-38B, section 6.1)."""
    value = int.from_bytes(block) << 1
    if value >> 128:
        value = (value ^ 0x87) & ((1 << 128) - 1)
    return value.to_bytes(16)
