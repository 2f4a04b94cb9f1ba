"""The native ciphertext format."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.crypto import envelope
from kms.crypto.symmetric import Xaes256Gcm
from kms.errors import DecryptionFailed

UID = bytes(range(16))
CIPHER = Xaes256Gcm(os.urandom(32))


@given(st.integers(1, 2**32 - 1), st.binary(max_size=100), st.binary(max_size=50))
def test_it_is_laid_out_as_documented(version: int, plaintext: bytes, associated_data: bytes) -> None:
    sealed = envelope.seal(CIPHER, UID, version, plaintext, associated_data)
    assert sealed[:21] == b"\x01" + UID + version.to_bytes(4)
    assert len(sealed) == 21 + 24 + len(plaintext) + 16
    assert CIPHER.decrypt(sealed[21:], sealed[:21] + associated_data) == plaintext
    parts = envelope.parse(sealed)
    assert (parts.key_uid, parts.version) == (UID, version)
    assert envelope.open_(CIPHER, parts, associated_data) == plaintext


@given(st.integers(8, 21 * 8 - 1))
def test_the_header_cannot_be_altered(bit: int) -> None:
    sealed = bytearray(envelope.seal(CIPHER, UID, 7, b"text", b""))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionFailed):
        envelope.open_(CIPHER, envelope.parse(bytes(sealed)), b"")


@given(st.binary(max_size=21) | st.binary(min_size=22).filter(lambda sealed: sealed[:1] != b"\x01"))
def test_what_is_not_of_the_format_is_refused(sealed: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        envelope.parse(sealed)
