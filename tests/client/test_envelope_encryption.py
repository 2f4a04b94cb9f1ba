"""The envelope format, byte by byte, and data keys that are kept."""

from __future__ import annotations

import io
import json
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from kms.client import Client, Envelope, errors
from kms.client.data_keys import NOTHING_KEPT, DataKeyCache, Limits
from kms.client.envelope_format import Header, encoded_context, read_header
from kms.client.streams import decrypt_under, encrypt_under
from kms.client.uses import DataKey

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelope.json").read_text())
KEY = DataKey(key_id="k", version=1, plaintext=bytes(range(32)), ciphertext=b"\x01" + bytes(16) + b"\0\0\0\x07sealed")


def opened_by_the_specification(data_key: bytes, message: bytes, associated_data: bytes) -> bytes:
    """The plaintext, by code that follows docs/reference/formats.md and c2sp.org/chunked-encryption, and not ours."""
    at = 8 + 1 + message[8]
    context_end = at + 2 + int.from_bytes(message[at : at + 2])
    body_at = context_end + 2 + int.from_bytes(message[context_end : context_end + 2])
    bound = message[:8] + message[at:context_end] + associated_data
    salt, commitment, chunks = message[body_at:][:24], message[body_at:][24:56], message[body_at:][56:]
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + bound
    derived = HKDFExpand(SHA512(), 32 + 12 + 32, info).derive(data_key)
    assert derived[44:] == commitment
    base, plaintext, size = int.from_bytes(derived[32:44]), b"", 16384 + 16
    pieces = [chunks[begin : begin + size] for begin in range(0, len(chunks), size)]
    for number, piece in enumerate(pieces):
        plaintext += AESGCM(derived[:32]).decrypt((base ^ number).to_bytes(12), piece, None)
    assert len(pieces[-1]) < size
    return plaintext


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["name"])
def test_vectors_open(vector: dict[str, str]) -> None:
    message, data_key = bytes.fromhex(vector["message"]), bytes.fromhex(vector["data_key"])
    associated_data, plaintext = bytes.fromhex(vector["associated_data"]), bytes.fromhex(vector["plaintext"])
    assert opened_by_the_specification(data_key, message, associated_data) == plaintext
    stream, out = io.BytesIO(message), io.BytesIO()
    header = read_header(stream.read)
    assert (header.key_id, header.version) == (vector["key_id"], int(vector["version"]))
    assert header.context_pairs == json.loads(vector["context"] or "{}")
    if not associated_data:
        decrypt_under(data_key, header, stream, out, None)
        assert out.getvalue() == plaintext


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["name"])
def test_vectors_that_must_not_open(vector: dict[str, str]) -> None:
    stream, out = io.BytesIO(bytes.fromhex(vector["message"])), io.BytesIO()
    with pytest.raises((errors.NotAnEnvelope, errors.NotAuthentic)):
        decrypt_under(bytes.fromhex(vector["data_key"]), read_header(stream.read), stream, out, None)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 70_000), place=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_whatever_is_altered_or_cut_is_found(length: int, place: float, bit: int, *, cut: bool) -> None:
    plaintext, context = bytes(length), encoded_context({"host": "db1"})
    out = io.BytesIO()
    header = encrypt_under(KEY, "k", context, io.BytesIO(plaintext), out, None)
    message = bytearray(out.getvalue())
    assert opened_by_the_specification(KEY.plaintext, bytes(message), b"") == plaintext
    at = min(int(place * len(message)), len(message) - 1)
    if cut:
        del message[at:]
    else:
        message[at] ^= 1 << bit
    stream = io.BytesIO(message)
    try:
        found = read_header(stream.read)
        if (found.key_id, found.wrapped_key) != (header.key_id, header.wrapped_key):
            return  # the service refuses it, or opens another data key
        with pytest.raises(errors.NotAuthentic):
            decrypt_under(KEY.plaintext, found, stream, io.BytesIO(), None)
    except errors.NotAnEnvelope:
        pass


def test_a_context_has_one_form_only() -> None:
    for context in (b'{"b":"1","a":"2"}', b'{"a": "2"}', b"{}", b'{"a":1}', b"[]", b'{"a":"1"'):
        packed = Header("k", context, KEY.ciphertext).packed()
        with pytest.raises(errors.NotAnEnvelope):
            read_header(io.BytesIO(packed).read)
    with pytest.raises(ValueError, match="at most"):
        encoded_context({"long": "x" * 9000})


def test_messages_share_data_keys_within_limits(alice: Client) -> None:
    envelope = Envelope(alice, "orders", context={"table": "carts"}, limits=Limits(messages=3))
    sealed = [envelope.encrypt(b"text", b"row 1") for _ in range(7)]
    wrapped = [read_header(io.BytesIO(each).read).wrapped_key for each in sealed]
    assert [len(set(wrapped)), wrapped[0] == wrapped[2], wrapped[2] == wrapped[3]] == [3, True, False]
    assert {envelope.decrypt(each, b"row 1") for each in sealed} == {b"text"}
    with pytest.raises(errors.NotAuthentic, match="associated data"):
        envelope.decrypt(sealed[0], b"row 2")
    with pytest.raises(errors.NotAuthentic, match="context"):
        Envelope(alice, "orders").decrypt(sealed[0], b"row 1")
    with pytest.raises(errors.NotAnEnvelope):
        envelope.decrypt(b"something else")
    alice.rotate("orders")
    again = envelope.rewrap(sealed[0])
    assert read_header(io.BytesIO(again).read).version == alice.key("orders").latest_version
    assert envelope.decrypt(again, b"row 1") == b"text"


def test_a_kept_data_key_ends_with_its_age_and_a_revoked_one_when_nothing_is_kept(alice: Client) -> None:
    alice.create_key("short")
    kept = Envelope(alice, "short", limits=Limits(age=timedelta(hours=1)))
    asking = Envelope(alice, "short", limits=NOTHING_KEPT)
    sealed, other = kept.encrypt(b"text"), asking.encrypt(b"text")
    kept.decrypt(sealed)
    assert asking.decrypt(other) == b"text"
    alice.revoke("short")
    assert kept.decrypt(sealed) == b"text"
    kept.cache.clear()
    for envelope, message in ((kept, sealed), (asking, other)):
        with pytest.raises(errors.KeyRevoked):
            envelope.decrypt(message)


def test_the_cache_forgets_by_number_bytes_and_age() -> None:
    made = iter(range(1000))

    def make() -> DataKey:
        return DataKey(key_id="k", version=next(made), plaintext=bytes(32), ciphertext=b"")

    by_bytes = DataKeyCache(Limits(bytes=10))
    assert [by_bytes.to_encrypt(b"", 4, make).version for _ in range(4)] == [0, 0, 1, 1]
    by_age = DataKeyCache(Limits(age=timedelta(0)))
    assert by_age.to_encrypt(b"", 1, make).version != by_age.to_encrypt(b"", 1, make).version
    cleared = DataKeyCache(Limits())
    asked_twice: list[bytes] = []

    def unwrap() -> bytes:
        asked_twice.append(b"")
        cleared.clear()  # as another thread may, while the service is asked
        return b"key"

    assert [cleared.to_decrypt(b"a", b"", unwrap) for _ in range(2)] == [b"key", b"key"]
    assert len(asked_twice) == 2
    few = DataKeyCache(Limits(kept=2))
    asked: list[bytes] = []
    for name in (b"a", b"b", b"a", b"c", b"b", b"a"):
        few.to_decrypt(name, b"", lambda name=name: asked.append(name) or b"key")  # type: ignore[misc]
    assert asked == [b"a", b"b", b"c", b"b", b"a"]
