"""Derived keys are what RFC 5869 makes of key and context; convergent ones say which messages are equal, no more."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from kms.crypto.registry import key_type
from kms.errors import DecryptionFailed, ValidationFailed

AEADS: dict[str, Any] = {"aes-128-gcm": AESGCM, "aes-256-gcm": AESGCM, "chacha20-poly1305": ChaCha20Poly1305}
NAMES = [f"{name}-{kind}" for name in AEADS for kind in ("derived", "convergent")]


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 by hand, for one block."""
    extracted = hmac.digest(salt or bytes(32), key, sha256)
    return hmac.digest(extracted, info + b"\x01", sha256)[:length]


def loaded(name: str) -> tuple[bytes, Any]:
    kind = key_type(name)
    material = kind.generate()
    return material, kind.load(material)


@pytest.mark.parametrize("name", NAMES)
def test_the_key_of_a_context_is_that_of_the_standard(name: str) -> None:
    key, cipher = loaded(name)
    sealed = cipher.in_context(b"tenant").encrypt(b"message", b"bound")
    aead = AEADS[name.rpartition("-")[0]](hkdf(key, b"", b"tenant", len(key)))
    assert aead.decrypt(sealed[:12], sealed[12:], b"bound") == b"message"
    assert cipher.in_context(b"tenant").decrypt(sealed, b"bound") == b"message"
    if name.endswith("convergent"):
        nonce_key = hkdf(key, b"kms convergent nonce v1", b"tenant", 32)
        assert sealed[:12] == hmac.digest(nonce_key, bytes(7) + b"\x05bound" + b"message", sha256)[:12]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_opens_in_another_context_or_without_one(name: str) -> None:
    _, cipher = loaded(name)
    sealed = cipher.in_context(b"a").encrypt(b"message", b"")
    for context, changed in ((b"b", sealed), (b"a", sealed[:-1] + bytes([sealed[-1] ^ 1])), (b"a", sealed[:20])):
        with pytest.raises(DecryptionFailed):
            cipher.in_context(context).decrypt(changed, b"")
    for use in (cipher.encrypt, cipher.decrypt):
        with pytest.raises(ValidationFailed, match="context"):
            use(sealed, b"")


@pytest.mark.parametrize("name", NAMES)
def test_equal_messages_are_equal_only_where_they_shall_be(name: str) -> None:
    _, cipher = loaded(name)
    first = cipher.in_context(b"a").encrypt(b"message", b"bound")
    assert (cipher.in_context(b"a").encrypt(b"message", b"bound") == first) is name.endswith("convergent")
    nonces = {
        cipher.in_context(context).encrypt(message, bound)[:12]
        for context in (b"a", b"b")
        for message, bound in ((b"message", b"bound"), (b"essage", b"boundm"), (b"boundmessage", b""))
    }
    assert len(nonces) == 6


def test_other_ciphers_have_no_context() -> None:
    for name in ("xaes-256-gcm", "aes-256-gcm", "aes-256-siv", "rsa-2048"):
        with pytest.raises(ValidationFailed, match="context"):
            loaded(name)[1].in_context(b"x")
