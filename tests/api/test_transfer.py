"""Keys come in and go out wrapped, and only those that may."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from helpers.support import Api, SteeredClock, World, b64, kind_of, unb64
from helpers.transfer import OAEP, X25519_SUITE, wrapped_for
from helpers.uses import PAIRS, exercise, material_of
from kms.config import Settings
from kms.crypto.pkcs8 import public_pem
from kms.crypto.registry import KEY_TYPES
from kms.errors import Unavailable
from kms.operations import Service
from kms.operations.keys.state_changes import remove
from kms.operations.transfer import importing
from kms.vault import sentences
from kms.vault.checking import wrong_tables


@pytest.fixture(scope="module")
def alice(shared_world: World) -> Api:
    """A client of the shared world: every test gives names of its own to her keys."""
    return shared_world.user("alice")


@pytest.fixture(scope="module")
def keyless(shared_world: World) -> Api:
    """A client for whom no key is ever made."""
    return shared_world.user("keyless")


def spki_of(name: str, which: str = "one") -> bytes:
    spki = KEY_TYPES[name].public_key(material_of(name, which))
    assert spki is not None
    return spki


def pem(key: Any) -> str:
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize("algorithm", ["RSA_AES_KEY_WRAP_SHA_256", "RSA-OAEP-256", "HPKE", "HPKE-MLKEM768-X25519"])
def test_a_key_comes_in_under_each_kind_of_wrapping(alice: Api, algorithm: str) -> None:
    key_id = f"under-{algorithm}"
    body = {"type": "aes-256-gcm", "key_id": key_id, **wrapped_for(alice, bytes(range(32)), algorithm)}
    made = alice.post("/api/v1/keys/import", body)
    assert made.status_code == 201, made.json
    assert (made.json["origin"], made.headers["Location"]) == ("imported", f"/api/v1/keys/{key_id}")
    again = alice.post("/api/v1/keys/import", {**body, "key_id": f"{key_id}-again"})
    assert kind_of(again) == "not-found"  # one wrapping key, one import


@pytest.mark.parametrize("name", KEY_TYPES)
def test_every_type_comes_in_and_works(alice: Api, name: str) -> None:
    kind = KEY_TYPES[name]
    material = material_of(name)
    for form in kind.formats:
        path = f"/api/v1/keys/{name}-{form}"
        body = {
            "type": name,
            "key_id": f"{name}-{form}",
            "format": form,
            **wrapped_for(alice, kind.exported(material, form)),
        }
        made = alice.post("/api/v1/keys/import", body)
        assert made.status_code == 201, made.json
        spki = kind.public_key(material)
        if spki is not None:
            assert made.json["versions"][0]["public_key"] == public_pem(spki)

        def post(operation: str, body: Any, path: str = path) -> Any:
            answer = alice.post(f"{path}/{operation}", body)
            assert answer.status_code == 200, (operation, answer.json)
            return answer.json

        exercise(post, name, kind.usages, b"a message")


@pytest.mark.parametrize("name", PAIRS)
def test_a_public_key_alone_protects_and_verifies(alice: Api, name: str) -> None:
    kind = KEY_TYPES[name]
    key_id = f"theirs-{name}"
    path = f"/api/v1/keys/{key_id}"
    public = {"public_key": public_pem(spki_of(name))}
    answer = alice.post("/api/v1/keys/import", {"type": name, "key_id": key_id, **public})
    able = {usage for usage in kind.every_usage if not usage.needs_private}
    if not able:
        assert kind_of(answer) == "validation-failed"
        return
    assert answer.status_code == 201, answer.json
    assert set(answer.json["usages"]) <= able
    bodies = {
        "encrypt": {"plaintext": "AAAA"}, "verify": {"message": "", "signature": ""}, "encapsulate": {},
        "seal": {"plaintext": "AAAA"},
    }  # fmt: skip
    for usage in answer.json["usages"]:
        assert alice.post(f"{path}/{usage}", bodies[usage]).status_code == 200
    refused = alice.post(f"{path}/sign", {"message": ""})
    assert kind_of(refused) == "operation-not-supported"
    assert kind_of(alice.post(f"{path}/rotate")) == "conflict"
    assert kind_of(alice.post(f"{path}/export", {})) == "conflict"
    following = {"public_key": public_pem(spki_of(name, "next"))}
    assert alice.post(f"{path}/import", following).json["latest_version"] == 2
    if "raw" in kind.formats:
        private = wrapped_for(alice, kind.exported(material_of(name, "private"), "raw"))
        more = alice.post(f"{path}/import", {**private, "format": "raw"}).json
        assert set(more["usages"]) == set(answer.json["usages"])  # it is made for no more than before


def test_the_next_version_of_an_imported_key(alice: Api) -> None:
    body = {"type": "aes-128-gcm", "key_id": "mine", **wrapped_for(alice, bytes(16))}
    assert alice.post("/api/v1/keys/import", body).status_code == 201
    sealed = alice.post("/api/v1/keys/mine/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    assert alice.post("/api/v1/keys/mine/import", wrapped_for(alice, b"x" * 16)).json["latest_version"] == 2
    assert alice.post("/api/v1/keys/mine/decrypt", {"ciphertext": sealed}).status_code == 200
    alice.post("/api/v1/keys", {"key_id": "made"})
    assert kind_of(alice.post("/api/v1/keys/made/import", wrapped_for(alice, bytes(32)))) == "conflict"


def test_a_database_that_goes_away_after_an_import_leaves_it_open_whether_it_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    body = {"key_id": "kept", **wrapped_for(alice, bytes(32))}

    def away(*_: Any) -> None:
        raise Unavailable(sentences.BUSY)

    monkeypatch.setattr(importing, "shown_now", away)
    answer = alice.post("/api/v1/keys/import", body)
    monkeypatch.undo()
    assert (kind_of(answer), "Look whether it holds" in answer.json["detail"]) == ("unavailable", True)
    assert alice.get("/api/v1/keys/kept").status_code == 200


def weak_rsa(bits: int = 2048, exponent: int = 65537) -> str:
    return pem(rsa.generate_private_key(exponent, bits).public_key())  # type: ignore[arg-type]


def rsa_of(n: int, e: int = 65537) -> str:
    return pem(rsa.RSAPublicNumbers(e, n).public_key())


def close_primes() -> int:
    from math import isqrt

    p, q = 0, 0
    key = rsa.generate_private_key(65537, 2048).private_numbers()
    p = key.p
    q = next(n for n in range(p + 2, p + 100_000, 2) if pow(2, n - 1, n) == 1)
    assert isqrt(p * q) >= p
    return p * q


def roca() -> int:
    """A modulus of the form that CVE-2017-15361 gives: a power of 65537 modulo the product of the first primes."""
    from math import prod

    product = prod(n for n in range(2, 168) if all(n % d for d in range(2, n)))
    residue = pow(65537, 123_457, product)
    return residue + product * ((1 << 2047) // product + 2)


def small_order_ed25519() -> list[bytes]:
    eight = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    return [b"\x01" + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f", eight]


def spki_pem(raw: bytes, prefix: str) -> str:
    return public_pem(bytes.fromhex(prefix) + raw)


ED25519, ED448, X25519, X448 = (
    "302a300506032b6570032100", "3043300506032b6571033a00", "302a300506032b656e032100", "3042300506032b656f033900",
)  # fmt: skip
P256 = "3059301306072a8648ce3d020106082a8648ce3d030107034200"


def modulus() -> int:
    return rsa.generate_private_key(65537, 2048).public_key().public_numbers().n


def on(curve: ec.EllipticCurve) -> str:
    return pem(ec.generate_private_key(curve).public_key())


# Each is made in the test that takes it: an RSA key is too slow to be made while tests are collected.
WEAK_OR_INVALID: list[tuple[str, str, Callable[[], str]]] = [
    (
        "rsa-2048",
        "exponent 3",
        lambda: rsa_of(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n, 3),
    ),
    ("rsa-2048", "1024 bits", lambda: weak_rsa(1024)),
    ("rsa-2048", "3072 bits", lambda: weak_rsa(3072)),
    ("rsa-2048", "a small factor", lambda: rsa_of(((1 << 2047) // 1999 + 2) * 1999 | 1)),
    ("rsa-2048", "close primes", lambda: rsa_of(close_primes())),
    ("rsa-2048", "ROCA", lambda: rsa_of(roca())),
    *(
        ("ed25519", f"small order {point.hex()[:4]}", partial(spki_pem, point, ED25519))
        for point in small_order_ed25519()
    ),
    ("ed25519", "not on the curve", lambda: spki_pem(b"\x02" + bytes(31), ED25519)),
    ("ed25519", "y = p + 1: not canonical", lambda: spki_pem(b"\xee" + b"\xff" * 30 + b"\x7f", ED25519)),
    ("ed448", "small order", lambda: spki_pem(b"\x01" + bytes(56), ED448)),
    ("ed448", "zeros", lambda: spki_pem(bytes(57), ED448)),
    ("x25519", "zeros", lambda: spki_pem(bytes(32), X25519)),
    ("x448", "zeros", lambda: spki_pem(bytes(56), X448)),
    ("ec-p256", "zeros", lambda: spki_pem(b"\x04" + bytes(64), P256)),
    ("ec-p256", "not on the curve", lambda: spki_pem(b"\x04" + bytes(31) + b"\x01" + bytes(31) + b"\x01", P256)),
    ("ec-p256", "another curve", lambda: on(ec.SECP256K1())),
    ("ec-p256", "a private label", lambda: on(ec.SECP256R1()).replace("PUBLIC", "PRIVATE")),
    ("ec-p256", "empty", lambda: ""),
    ("ec-p256", "no base64", lambda: "-----BEGIN PUBLIC KEY-----\n====\n-----END PUBLIC KEY-----"),
    ("ec-p256", "two keys", lambda: on(ec.SECP256R1()) * 2),
    ("xaes-256-gcm", "a public key", lambda: on(ec.SECP256R1())),
    ("ml-kem-768", "another type", lambda: spki_pem(bytes(32), X25519)),
    ("ml-kem-768-x25519", "another type", lambda: spki_pem(bytes(32), X25519)),
]


@pytest.mark.parametrize(
    ("name", "public"),
    [pytest.param(name, make, id=f"{name}: {what}") for name, what, make in WEAK_OR_INVALID],
)
def test_weak_and_invalid_public_keys_are_refused(keyless: Api, name: str, public: Callable[[], str]) -> None:
    given = {"type": name, "public_key": public()}
    for body in ({"usages": None}, {}):
        refused = keyless.post("/api/v1/keys/import", {**given, **body})
        assert (refused.status_code, kind_of(refused)) == (422, "validation-failed"), refused.json
    assert keyless.get("/api/v1/keys").json["items"] == []


def test_good_edwards_keys_are_taken(alice: Api) -> None:
    for _ in range(20):
        for name, kind in (("ed25519", ed25519.Ed25519PrivateKey), ("ed448", ed448.Ed448PrivateKey)):
            body = {"type": name, "public_key": pem(kind.generate().public_key())}  # type: ignore[attr-defined]
            assert alice.post("/api/v1/keys/import", body).status_code == 201


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "validation-failed"),
        ({"wrapped_key": "AAAA"}, "validation-failed"),
        ({"wrapping_key_id": "x"}, "validation-failed"),
        ({"wrapping_key_id": "0" * 32, "wrapped_key": "AAAA"}, "not-found"),
        ({"wrapping_key_id": "\0", "wrapped_key": "AAAA"}, "not-found"),
        ({"public_key": "x", "wrapped_key": "AAAA"}, "validation-failed"),
        ({"public_key": "x", "format": "raw"}, "validation-failed"),
    ],
)
def test_incomplete_imports_are_refused(alice: Api, body: dict[str, str], expected: str) -> None:
    assert kind_of(alice.post("/api/v1/keys/import", {"type": "ec-p256", **body})) == expected


def test_wrapping_keys_are_one_s_own_and_expire(world: World, clock: SteeredClock) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    mine = wrapped_for(alice, bytes(32))
    assert kind_of(bob.post("/api/v1/keys/import", {"type": "aes-256-gcm", **mine})) == "not-found"
    other = {**wrapped_for(alice, bytes(32)), "wrapped_key": mine["wrapped_key"]}
    assert kind_of(alice.post("/api/v1/keys/import", {"type": "aes-256-gcm", **other})) == "decryption-failed"
    clock.advance(days=2)
    alice = World(world.service, world.http).login("alice")
    assert alice.post("/api/v1/keys/import", {"type": "aes-256-gcm", **mine}).status_code in (403, 404)


@pytest.mark.parametrize(
    ("name", "form", "material"),
    [
        ("aes-256-gcm", "raw", bytes(31)),
        ("aes-256-gcm", "raw", b""),
        ("hmac-sha256", "raw", bytes(13)),
        ("hmac-sha256", "raw", bytes(513)),
        ("aes-256-gcm", "pkcs8", bytes(32)),
        ("aes-256-gcm", "jwk", json.dumps({"kty": "oct", "k": "AAAA"}).encode()),
        ("ec-p256", "raw", bytes(32)),
        ("ec-p256", "pkcs8", bytes(32)),
        ("ec-p256", "jwk", b'{"kty": "EC"}'),
        ("ec-p256", "jwk", b'{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}'),
        ("ec-p256", "jwk", b'{"kty": ["EC"]}'),
        ("ec-p256", "jwk", b'"text"'),
        ("ec-p256", "jwk", b"\xff"),
        ("ml-dsa-44", "jwk", b'{"kty": "AKP", "alg": "ML-DSA-44", "priv": "AAAA"}'),
        ("ml-dsa-44", "jwk", b'{"kty": "AKP", "alg": ["x"], "priv": "AAAA"}'),
        ("ml-dsa-44", "raw", bytes(31)),
        ("ml-kem-768-x25519", "pkcs8", bytes(32)),
    ],
)
def test_material_that_is_not_of_the_type_is_refused(alice: Api, name: str, form: str, material: bytes) -> None:
    body = {"type": name, "format": form, **wrapped_for(alice, material)}
    refused = alice.post("/api/v1/keys/import", body)
    assert kind_of(refused) == "validation-failed", refused.json


def test_a_private_rsa_key_whose_parts_do_not_fit_is_refused(alice: Api) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    other = rsa.generate_private_key(65537, 2048).private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, other.d, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    der = wrong.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = {"type": "rsa-2048", "format": "pkcs8", **wrapped_for(alice, der)}
    assert kind_of(alice.post("/api/v1/keys/import", body)) == "validation-failed"
    trailing = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = {"type": "rsa-2048", "format": "pkcs8", **wrapped_for(alice, trailing + b"\0")}
    assert kind_of(alice.post("/api/v1/keys/import", body)) == "validation-failed"


def test_only_what_was_born_exportable_goes_out_and_only_wrapped(world: World) -> None:
    alice = world.user("alice")
    recipient = rsa.generate_private_key(65537, 3072)
    to = {"recipient_public_key": pem(recipient.public_key())}
    alice.post("/api/v1/keys", {"key_id": "kept"})
    assert kind_of(alice.post("/api/v1/keys/kept/export", to)) == "conflict"
    assert alice.patch("/api/v1/keys/kept", {"exportable": True}).status_code == 422
    alice.post("/api/v1/keys", {"key_id": "free", "exportable": True, "type": "aes-256-gcm"})
    path = "/api/v1/keys/free/export"
    given = alice.post(path, to).json
    assert (given["algorithm"], given["format"], given["version"]) == ("RSA_AES_KEY_WRAP_SHA_256", "raw", 1)
    blob = unb64(given["wrapped_key"])
    key = aes_key_unwrap_with_padding(recipient.decrypt(blob[:384], OAEP), blob[384:])
    short = alice.post(path, {**to, "algorithm": "RSA-OAEP-256", "format": "jwk"}).json
    assert json.loads(recipient.decrypt(unb64(short["wrapped_key"]), OAEP))["kty"] == "oct"
    letterbox = x25519.X25519PrivateKey.generate()
    sealed = alice.post(path, {"recipient_public_key": pem(letterbox.public_key())}).json
    assert sealed["suite"] == "DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM"
    assert X25519_SUITE.decrypt(unb64(sealed["wrapped_key"]), letterbox, b"") == key
    for wrong in (
        {}, {"plaintext": True, **to}, {"recipient_public_key": weak_rsa(1024)}, {**to, "algorithm": "HPKE"},
        {**to, "version": 2}, {**to, "format": "pkcs8"}, {"recipient_public_key": spki_pem(bytes(32), X25519)},
        {"recipient_public_key": pem(x448.X448PrivateKey.generate().public_key())},
    ):  # fmt: skip
        assert kind_of(alice.post(path, wrong)) == "validation-failed", wrong
    assert kind_of(alice.post(path, {"plaintext": True})) == "permission-denied"
    grant = {
        "subject": "client:alice",
        "permission": "keys:export-plaintext",
        "key_pattern": "free",
        "owner": "alice",
    }
    assert world.admin.post("/api/v1/grants", grant).status_code == 201
    assert unb64(alice.post(path, {"plaintext": True}).json["key"]) == key
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    targets = {entry["target"] for entry in entries if entry["operation"] == "export_key" and "target" in entry}
    assert "plaintext" in targets
    assert len(targets) > 2  # the recipients, by the hash of their keys
    assert kind_of(world.admin.post(path, to)) == "permission-denied"
    alice.post("/api/v1/keys/free/revoke")
    assert kind_of(alice.post(path, to)) == "key-revoked"


@pytest.mark.parametrize("name", KEY_TYPES)
def test_every_type_travels_from_one_installation_to_another(alice: Api, name: str) -> None:
    alice.post("/api/v1/keys", {"type": name, "key_id": f"{name}-first", "exportable": True})
    given = alice.post("/api/v1/keys/import-wrapping-key", {"algorithm": "HPKE-MLKEM768-X25519"}).json
    exported = alice.post(f"/api/v1/keys/{name}-first/export", {"recipient_public_key": given["public_key"]}).json
    body = {
        "type": name, "key_id": f"{name}-second", "wrapping_key_id": given["wrapping_key_id"],
        "wrapped_key": exported["wrapped_key"], "format": exported["format"],
    }  # fmt: skip
    made = alice.post("/api/v1/keys/import", body)
    assert made.status_code == 201, made.json
    first = alice.get(f"/api/v1/keys/{name}-first").json["versions"][0]
    assert made.json["versions"][0].get("public_key") == first.get("public_key")


def installation(folder: Path, clock: SteeredClock, **settings: Any) -> World:
    return World.of(Service.open(Settings(data_dir=folder, rate_limit="off", **settings), clock))


def test_a_backup_goes_to_another_installation_whole(tmp_path: Path, clock: SteeredClock) -> None:
    shared = {"backup_key": "k" * 43}
    here, there = (installation(tmp_path / name, clock, **shared) for name in ("here", "there"))
    stranger = installation(tmp_path / "stranger", clock)
    alice, away, elsewhere = (world.user("alice") for world in (here, there, stranger))
    alice.post("/api/v1/keys", {"key_id": "orders", "labels": {"a": "b"}, "rotation_period": "P1D"})
    old = alice.post("/api/v1/keys/orders/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    alice.post("/api/v1/keys/orders/rotate")
    new = alice.post("/api/v1/keys/orders/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    backup = alice.post("/api/v1/keys/orders/backup").json["backup"]
    assert kind_of(alice.post("/api/v1/keys/restore", {"backup": backup})) == "already-exists"
    restored = away.post("/api/v1/keys/restore", {"backup": backup})
    assert (restored.status_code, restored.headers["Location"]) == (201, "/api/v1/keys/orders")
    shown = alice.get("/api/v1/keys/orders").json
    assert restored.json == shown
    for ciphertext in (old, new):
        answer = away.post("/api/v1/keys/orders/decrypt", {"ciphertext": ciphertext})
        assert answer.json["plaintext"] == "AAAA"
    assert away.post("/api/v1/keys/orders/rotate").json["latest_version"] == 3
    assert wrong_tables(there.service.vault) == []
    assert kind_of(elsewhere.post("/api/v1/keys/restore", {"backup": backup})) == "decryption-failed"
    blob = unb64(backup)
    for wrong in (b"", blob[:-1], blob + b"\0", blob[:20] + bytes([blob[20] ^ 1]) + blob[21:], b"x" + blob[1:]):
        assert kind_of(away.post("/api/v1/keys/restore", {"backup": b64(wrong)})) == "decryption-failed"
    mallory = there.user("mallory")
    assert kind_of(mallory.post("/api/v1/keys/restore", {"backup": backup})) == "permission-denied"
    for world in (here, there, stranger):
        world.service.close()


def test_a_restoration_does_not_undo_a_revocation(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    sealed = alice.post("/api/v1/keys/orders/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    backup = alice.post("/api/v1/keys/orders/backup").json["backup"]
    alice.post("/api/v1/keys/orders/revoke")
    with world.service.vault.change() as change:
        key = change.key_by_id("orders")
        assert key is not None
        remove(change, key)
    assert alice.post("/api/v1/keys/restore", {"backup": backup}).json["state"] == "compromised"
    assert kind_of(alice.post("/api/v1/keys/orders/decrypt", {"ciphertext": sealed})) == "key-revoked"
    assert kind_of(world.admin.post("/api/v1/keys/orders/backup")) == "permission-denied"
