"""The native ciphertext format, version 1.

    byte 0        0x01, the format
    bytes 1–16    key uid
    bytes 17–20   key version, big-endian
    bytes 21–     what the key's cipher gave: for XAES-256-GCM nonce (24) ‖ ciphertext ‖ tag (16), for RSA
                  the OAEP ciphertext

The 21 bytes of header, followed by the caller's associated data, are the cipher's associated data (for OAEP
its label), so no part can be altered or moved to another key.
"""

from __future__ import annotations

from dataclasses import dataclass

from kms.crypto.primitives import Cipher
from kms.errors import DecryptionFailed

FORMAT = b"\x01"
HEADER_BYTES = 21


@dataclass(frozen=True)
class Envelope:
    """A ciphertext taken apart."""

    key_uid: bytes
    version: int
    payload: bytes


def seal(cipher: Cipher, key_uid: bytes, version: int, plaintext: bytes, associated_data: bytes) -> bytes:
    """Encrypt and wrap into the format above."""
    header = _header(key_uid, version)
    return header + cipher.encrypt(plaintext, header + associated_data)


def parse(ciphertext: bytes) -> Envelope:
    """Take `ciphertext` apart. Raises DecryptionFailed for anything that is not of the format."""
    if len(ciphertext) <= HEADER_BYTES or ciphertext[:1] != FORMAT:
        raise DecryptionFailed("The ciphertext did not open.")
    return Envelope(ciphertext[1:17], int.from_bytes(ciphertext[17:21]), ciphertext[HEADER_BYTES:])


def open_(cipher: Cipher, envelope: Envelope, associated_data: bytes) -> bytes:
    """The plaintext in `envelope`. Raises DecryptionFailed."""
    header = _header(envelope.key_uid, envelope.version)
    return cipher.decrypt(envelope.payload, header + associated_data)


def _header(key_uid: bytes, version: int) -> bytes:
    return FORMAT + key_uid + version.to_bytes(4)
