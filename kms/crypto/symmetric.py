"""XAES-256-GCM (C2SP, c2sp.org/XAES-256-GCM): AES-256-GCM with 192-bit nonces, safe to draw at random.

From the key K and the first 12 bytes of the nonce a message key is derived by CMAC in counter mode
(SP 800-108r1); AES-256-GCM under it takes the last 12 bytes. There is no practical limit of messages.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kms.crypto.primitives import Cipher
from kms.errors import DecryptionFailed

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16


class Xaes256Gcm(Cipher):
    """One XAES-256-GCM key. Ciphertexts are nonce (24 bytes) ‖ ciphertext ‖ tag (16 bytes)."""

    def __init__(self, key: bytes) -> None:
        self._block = BlockCipher(algorithms.AES256(key), modes.ECB())  # noqa: S305  # CMAC is built on single blocks
        self._k1 = _double(self._blocks(bytes(16)))

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return self.encrypt_with_nonce(plaintext, associated_data, os.urandom(NONCE_BYTES))

    def encrypt_with_nonce(self, plaintext: bytes, associated_data: bytes, nonce: bytes) -> bytes:
        """Encrypt under a nonce of the caller's, which must never repeat for this key."""
        return nonce + self._message_cipher(nonce).encrypt(nonce[12:], plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        if len(ciphertext) < NONCE_BYTES + TAG_BYTES:
            raise DecryptionFailed("The ciphertext did not open.")
        nonce, sealed = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
        try:
            return self._message_cipher(nonce).decrypt(nonce[12:], sealed, associated_data)
        except InvalidTag:
            raise DecryptionFailed("The ciphertext did not open.") from None

    def _message_cipher(self, nonce: bytes) -> AESGCM:
        prefix = nonce[:12]
        first = _xor(b"\x00\x01X\x00" + prefix, self._k1)
        second = _xor(b"\x00\x02X\x00" + prefix, self._k1)
        return AESGCM(self._blocks(first + second))

    def _blocks(self, blocks: bytes) -> bytes:
        return self._block.encryptor().update(blocks)


def generate() -> bytes:
    """A new 256-bit key from the system's random generator."""
    return os.urandom(KEY_BYTES)


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(16)


def _double(block: bytes) -> bytes:
    """Multiply by x in GF(2^128), as CMAC's subkeys are made (SP 800-38B, section 6.1)."""
    value = int.from_bytes(block) << 1
    if value >> 128:
        value = (value ^ 0x87) & ((1 << 128) - 1)
    return value.to_bytes(16)
