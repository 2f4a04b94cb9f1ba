"""The list of key types: complete, and the only place to touch for another one."""

from __future__ import annotations

import pytest

from helpers.support import World, b64
from kms.crypto import registry
from kms.crypto.keytype import SecretKeyType
from kms.crypto.primitives import PRIMITIVES, Cipher, Mac
from kms.crypto.quantum import by_key_search
from kms.crypto.registry import KEY_TYPES, key_type
from kms.errors import OperationNotSupported, ValidationFailed
from kms.keys.model import Usage

NAMES = [
    "xaes-256-gcm", "aes-128-gcm", "aes-256-gcm", "aes-256-gcm-siv", "aes-256-siv", "chacha20-poly1305",
    "xchacha20-poly1305",
    "aes-128-gcm-derived", "aes-128-gcm-convergent", "aes-256-gcm-derived", "aes-256-gcm-convergent",
    "chacha20-poly1305-derived", "chacha20-poly1305-convergent",
    "aes-128-kw", "aes-256-kw", "aes-128-kwp", "aes-256-kwp",
    "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512",
    "rsa-2048", "rsa-3072", "rsa-4096", "ec-p256", "ec-p384", "ec-p521", "ec-secp256k1", "ed25519", "ed448",
    "x25519", "x448", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192",
    "ml-kem-768", "ml-kem-1024", "ml-kem-768-x25519", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87",
]  # fmt: skip


def test_every_type_there_is() -> None:
    assert list(KEY_TYPES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_type_does_what_it_says(name: str) -> None:
    kind = key_type(name)
    material, another = kind.generate(), kind.generate()
    assert material != another
    loaded = kind.load(material)
    for usage in kind.every_usage:
        assert isinstance(loaded, PRIMITIVES[usage]), usage
    for purpose in kind.purposes:
        assert purpose
        others = [other for other in kind.purposes if other != purpose]
        assert not any(purpose & other for other in others), "purposes exclude each other"
    spki = kind.public_key(material)
    assert (spki is None) is isinstance(kind, SecretKeyType)
    if spki is not None:
        assert kind.checked_public(spki) == spki
        assert isinstance(kind.load_public(spki), type(loaded))


@pytest.mark.parametrize("name", NAMES)
def test_material_goes_out_and_in_again(name: str) -> None:
    kind = key_type(name)
    material = kind.generate()
    for form in kind.formats:
        assert kind.imported(kind.exported(material, form), form) == material, form
        cut = b"" if kind.name.startswith("hmac") else kind.exported(material, form)[:-1]  # HMAC keys have any length
        for wrong in (b"", b"{}", b"[]", b"x" * 7, cut):
            with pytest.raises(ValidationFailed):
                kind.imported(wrong, form)
    with pytest.raises(ValidationFailed):
        kind.imported(material, "der")


CATEGORIES = {
    "xaes-256-gcm": 5, "aes-128-gcm": 1, "aes-256-gcm": 5, "aes-256-gcm-siv": 5, "aes-256-siv": 5,
    "chacha20-poly1305": 5, "xchacha20-poly1305": 5,
    "aes-128-gcm-derived": 1, "aes-128-gcm-convergent": 1, "aes-256-gcm-derived": 5, "aes-256-gcm-convergent": 5,
    "chacha20-poly1305-derived": 5, "chacha20-poly1305-convergent": 5,
    "aes-128-kw": 1, "aes-256-kw": 5, "aes-128-kwp": 1, "aes-256-kwp": 5,
    "hmac-sha224": 3, "hmac-sha256": 5, "hmac-sha384": 5, "hmac-sha512": 5,
    "ml-kem-768": 3, "ml-kem-1024": 5, "ml-kem-768-x25519": 3, "ml-dsa-44": 2, "ml-dsa-65": 3, "ml-dsa-87": 5,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_type_says_how_strong_it_is(name: str) -> None:
    strength = key_type(name).strength
    assert strength.category == CATEGORIES.get(name, 0)
    assert strength.is_post_quantum_safe is (name in CATEGORIES)
    assert 112 <= strength.classical_bits <= 256
    assert strength.source


def test_the_bits_are_those_of_the_secret_itself() -> None:
    for name in NAMES:
        kind = key_type(name)
        if isinstance(kind, SecretKeyType):
            assert kind.secret_bits == 8 * len(kind.generate())
        elif "raw" in kind.formats and not name.startswith("ec-"):
            assert (kind.secret_bits + 7) // 8 == len(kind.exported(kind.generate(), "raw")), name


def test_a_short_key_from_outside_is_as_weak_as_it_is_short() -> None:
    kind = key_type("hmac-sha256")
    assert [kind.strength_of(8 * size).category for size in (14, 16, 24, 31, 32, 64)] == [0, 1, 3, 3, 5, 5]
    assert kind.strength_of(112).classical_bits == 112
    assert key_type("aes-128-gcm").strength_of(8).category == 1  # only HMAC takes keys of other lengths


def test_unknown_types_are_refused() -> None:
    with pytest.raises(OperationNotSupported):
        key_type("rot13")


class Toy(Cipher, Mac):
    """Caesar's cipher, and the sum of all bytes."""

    def __init__(self, key: bytes) -> None:
        self.shift = key[0]

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        return bytes((byte + self.shift) % 256 for byte in plaintext)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        return bytes((byte - self.shift) % 256 for byte in ciphertext)

    def mac(self, message: bytes, digest: str | None = None) -> bytes:
        return bytes([sum(message) % 256])


def test_another_type_is_added_in_one_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = SecretKeyType(
        name="toy",
        title="A toy",
        standard="De vita Caesarum, LVI",
        purposes=(frozenset({Usage.ENCRYPT, Usage.DECRYPT}), frozenset({Usage.MAC, Usage.VERIFY_MAC})),
        primitive=Toy,
        strength=by_key_search(8),
        key_bytes=1,
    )
    monkeypatch.setitem(registry.KEY_TYPES, "toy", toy)
    alice = world.user("alice")
    assert alice.post("/api/v1/keys", {"type": "toy", "key_id": "caesar"}).json["usages"] == ["decrypt", "encrypt"]
    sealed = alice.post("/api/v1/keys/caesar/encrypt", {"plaintext": b64(b"veni")}).json["ciphertext"]
    assert alice.post("/api/v1/keys/caesar/decrypt", {"ciphertext": sealed}).json["plaintext"] == b64(b"veni")
    assert alice.post("/api/v1/keys/caesar/rotate").json["latest_version"] == 2
    assert alice.post("/api/v1/keys/caesar/mac", {"message": ""}).json["type"] == "/problems/operation-not-supported"
    made = alice.post("/api/v1/keys", {"type": "toy", "key_id": "sum", "usages": ["mac"]})
    assert made.status_code == 201
    assert alice.post("/api/v1/keys/sum/mac", {"message": b64(b"\1\2")}).json["mac"] == b64(b"\3")
