"""XAES-256-GCM against the known answers of its specification (c2sp.org/XAES-256-GCM)."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms.crypto.symmetric import Xaes256Gcm
from kms.errors import DecryptionFailed

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


@pytest.mark.parametrize(
    ("key", "aad", "ciphertext"),
    [
        (b"\x01" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\x03" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
)
def test_published_vectors(key: bytes, aad: bytes, ciphertext: str) -> None:
    sealed = Xaes256Gcm(key).encrypt_with_nonce(b"XAES-256-GCM", aad, NONCE)
    assert sealed == NONCE + bytes.fromhex(ciphertext)
    assert Xaes256Gcm(key).decrypt(sealed, aad) == b"XAES-256-GCM"


class Shake128:
    """A stream from SHAKE-128 of the empty input, read in pieces."""

    def __init__(self, length: int) -> None:
        self._stream, self._at = hashlib.shake_128(b"").digest(length), 0

    def read(self, count: int) -> bytes:
        self._at += count
        return self._stream[self._at - count : self._at]


def accumulated(iterations: int) -> str:
    source, sink = Shake128(iterations * 640), hashlib.shake_128()
    for _ in range(iterations):
        key, nonce = source.read(32), source.read(24)
        plaintext = source.read(source.read(1)[0])
        aad = source.read(source.read(1)[0])
        cipher = Xaes256Gcm(key)
        sealed = cipher.encrypt_with_nonce(plaintext, aad, nonce)
        assert cipher.decrypt(sealed, aad) == plaintext
        sink.update(sealed[24:])
    return sink.hexdigest(32)


def test_accumulated_vectors() -> None:
    assert accumulated(10_000) == "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@pytest.mark.slow
def test_a_million_accumulated_vectors() -> None:
    assert accumulated(1_000_000) == "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"


@given(st.binary(max_size=4096), st.binary(max_size=256), st.data())
def test_any_altered_bit_is_noticed(plaintext: bytes, aad: bytes, data: st.DataObject) -> None:
    cipher = Xaes256Gcm(os.urandom(32))
    sealed = cipher.encrypt(plaintext, aad)
    assert cipher.decrypt(sealed, aad) == plaintext
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    altered = bytearray(sealed)
    altered[bit // 8] ^= 1 << bit % 8
    for wrong, context in ((bytes(altered), aad), (sealed[:-1], aad), (sealed, aad + b"x"), (sealed[:20], aad)):
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(wrong, context)


def test_nonces_do_not_repeat() -> None:
    cipher = Xaes256Gcm(os.urandom(32))
    assert len({cipher.encrypt(b"", b"")[:24] for _ in range(1000)}) == 1000


def test_no_nonce_comes_twice_and_a_message_key_serves_256() -> None:
    key = os.urandom(32)
    cipher, other, third = Xaes256Gcm(key), Xaes256Gcm(key), Xaes256Gcm(key)
    of_run = [cipher.encrypt(b"m", b"a") for _ in range(1000)] + [other.encrypt(b"m", b"a")]
    of_batch = [seal(b"m", b"a") for seal in (cipher.encryptor(b""), cipher.encryptor(b"")) for _ in range(300)]
    nonces = [each[:24] for each in of_run + of_batch]
    assert len(set(nonces)) == len(nonces)
    assert sorted(Counter(each[:12] for each in of_run).values()) == [1, 1000 - 3 * 256, 256, 256, 256]
    assert len({each[12:24] for each in of_run}) == len(of_run)  # the second half is drawn for each
    for sealed in of_run + of_batch:
        assert third.encrypt_with_nonce(b"m", b"a", sealed[:24]) == sealed


def test_many_threads_share_a_run() -> None:
    key = os.urandom(32)
    cipher = Xaes256Gcm(key)
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda number: cipher.encrypt(b"%d" % number, b""), range(4000)))
    assert len({each[:24] for each in sealed}) == len(sealed)
    assert [Xaes256Gcm(key).decrypt(each, b"") for each in sealed] == [b"%d" % number for number in range(4000)]
    assert max(Counter(each[:12] for each in sealed).values()) < 256 + 8
