"""The list of key types."""

from __future__ import annotations

import pytest

from kms.crypto.primitives import Cipher, Signer
from kms.crypto.registry import KEY_TYPES, key_type
from kms.errors import OperationNotSupported
from kms.keys.model import Usage

NAMES = [
    "xaes-256-gcm", "rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ec-p521",
    "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192", "x25519",
]  # fmt: skip


def test_every_type_there_is() -> None:
    assert list(KEY_TYPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_usages_are_what_the_loaded_key_can_do(name: str) -> None:
    kind = key_type(name)
    loaded = kind.load(kind.generate())
    assert isinstance(loaded, Cipher) == (Usage.ENCRYPT in kind.usages) == (Usage.DECRYPT in kind.usages)
    assert isinstance(loaded, Signer) == (Usage.SIGN in kind.usages) == (Usage.VERIFY in kind.usages)


@pytest.mark.parametrize("name", NAMES)
def test_two_keys_are_never_the_same(name: str) -> None:
    kind = key_type(name)
    first, second = kind.generate(), kind.generate()
    assert first != second
    assert (kind.public_key(first) is None) is (not kind.asymmetric)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(OperationNotSupported):
        key_type("rot13")
