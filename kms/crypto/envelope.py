"""The native ciphertext format.

    byte 0        what it is: 0x01 encrypted data, 0x02 a wrapped key
    bytes 1–16    key uid
    bytes 17–20   key version, big-endian
    bytes 21–     what the key's cipher gave: for XAES-256-GCM nonce (24) ‖ ciphertext ‖ tag (16), for RSA
                  the OAEP ciphertext

The 21 bytes of header, followed by the caller's associated data, are the cipher's associated data (for OAEP
its label), so no part can be altered or moved to another key, and neither kind passes for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from kms.crypto.primitives import Cipher
from kms.errors import DecryptionFailed

ENCRYPTED = b"\x01"
WRAPPED_KEY = b"\x02"
HEADER_BYTES = 21


@dataclass(frozen=True)
class Envelope:
    """A ciphertext taken apart."""

    key_uid: bytes
    version: int
    payload: bytes


def seal(
    cipher: Cipher, key_uid: bytes, version: int, plaintext: bytes, associated_data: bytes, kind: bytes = ENCRYPTED
) -> bytes:
    """Encrypt and wrap into the format above."""
    bound = kind + key_uid + version.to_bytes(4)
    return bound + cipher.encrypt(plaintext, bound + associated_data)


def parse(ciphertext: bytes, kind: bytes = ENCRYPTED) -> Envelope:
    """Take `ciphertext` apart. Raises DecryptionFailed for anything that is not of the format."""
    parts = parse_or_none(ciphertext, kind)
    if parts is None:
        raise DecryptionFailed
    return parts


def parse_or_none(ciphertext: bytes, kind: bytes) -> Envelope | None:
    """As `parse`, None for anything that is not of the format."""
    if len(ciphertext) <= HEADER_BYTES or ciphertext[:1] != kind:
        return None
    return Envelope(ciphertext[1:17], int.from_bytes(ciphertext[17:21]), ciphertext[HEADER_BYTES:])


def open_(cipher: Cipher, envelope: Envelope, associated_data: bytes, kind: bytes = ENCRYPTED) -> bytes:
    """The plaintext in `envelope`. Raises DecryptionFailed."""
    bound = header(envelope.key_uid, envelope.version, kind)
    return cipher.decrypt(envelope.payload, bound + associated_data)


def header(key_uid: bytes, version: int, kind: bytes = ENCRYPTED) -> bytes:
    """The first `HEADER_BYTES` of the format."""
    return kind + key_uid + version.to_bytes(4)
