"""Keys over REST: lists, details, use."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers.support import Api, World, b64, unb64

KEY = "/api/v1/keys/user1_symmetric"


def with_keys(world: World) -> Api:
    api = world.user("user1")
    for path, body in (
        ("/generate_symmetric_key", {}),
        ("/generate_rsa_key", {"bits": 2048}),
        ("/generate_ecc_key", {}),
        ("/generate_dh_key", {"group": "x25519"}),
    ):
        assert api.post(path, body).status_code == 200
    return api


@pytest.fixture(scope="module")
def user(shared_world: World) -> Api:
    """A client with keys that the tests use and do not change."""
    return with_keys(shared_world)


def test_pages(user: Api) -> None:
    seen, cursor = [], ""
    for _ in range(4):
        page = user.get(f"/api/v1/keys?limit=1{cursor}").json
        seen += [item["key_id"] for item in page["items"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ["user1_dh", "user1_ecc", "user1_rsa", "user1_symmetric"]
    assert page["next_cursor"] is None


@pytest.mark.parametrize("path", ["keys", "keys/user1_rsa/versions", "aliases", "clients"])
def test_a_cursor_that_no_list_gave(shared_world: World, user: Api, path: str) -> None:
    asking = shared_world.admin if path == "clients" else user
    of_keys = user.get("/api/v1/keys?limit=1").json["next_cursor"]
    altered = ("A" if of_keys[0] != "A" else "B") + of_keys[1:]
    for cursor in ("nonsense", "user1_dh", "1", "zzz", "%00", "", altered, *([of_keys] if path != "keys" else [])):
        refused = asking.get(f"/api/v1/{path}?cursor={cursor}")
        assert (refused.status_code, "cursor" in refused.json["detail"]) == (422, True), cursor


def test_detail(user: Api) -> None:
    key = user.get("/api/v1/keys/user1_rsa").json
    assert {"key_id", "type", "owner", "state", "usages", "exportable", "latest_version", "created_at"} <= set(key)
    assert {"expires_at", "rotation_period", "labels", "versions"} <= set(key)
    assert (key["type"], key["state"], key["exportable"], key["labels"]) == ("rsa-2048", "active", False, {})
    (version,) = key["versions"]
    assert version["public_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert "material" not in str(key)
    assert "public_key" not in user.get(KEY).json["versions"][0]


def test_updates(world: World) -> None:
    user = with_keys(world)
    changed = user.patch(KEY, {"rotation_period": "P90D", "labels": {"team": "pay"}}).json
    assert (changed["rotation_period"], changed["labels"]) == ("P90D", {"team": "pay"})
    assert user.patch(KEY, {"labels": {}}).json["rotation_period"] == "P90D"
    assert user.patch(KEY, {"rotation_period": None}).json["next_rotation_at"] is None
    wrong: list[dict[str, object]] = [{"exportable": True}, {"state": "active"}]
    wrong += [{"rotation_period": period} for period in ("soon", "PT0S", "P999999999D")]
    wrong += [{"labels": each} for each in ({"x" * 200: ""}, {"x": "y" * 300}, {str(n): "" for n in range(65)})]
    for body in wrong:
        assert user.patch(KEY, body).status_code == 422


@hypothesis_settings(max_examples=40, deadline=None)
@given(plaintext=st.binary(max_size=65536), associated_data=st.binary(max_size=300))
def test_what_is_encrypted_decrypts_and_only_so(user: Api, plaintext: bytes, associated_data: bytes) -> None:
    context = {"associated_data": b64(associated_data)}
    sealed = user.post(f"{KEY}/encrypt", {"plaintext": b64(plaintext), **context}).json
    opened = user.post(f"{KEY}/decrypt", {"ciphertext": sealed["ciphertext"], **context}).json
    assert unb64(opened["plaintext"]) == plaintext
    wrong = {"associated_data": b64(associated_data + b"x")}
    refused = user.post(f"{KEY}/decrypt", {"ciphertext": sealed["ciphertext"], **wrong})
    assert (refused.status_code, refused.json["type"]) == (400, "/problems/decryption-failed"), refused.json


def test_every_way_not_to_decrypt_gets_the_same_answer(user: Api, shared_world: World) -> None:
    sealed = unb64(user.post(f"{KEY}/encrypt", {"plaintext": b64(b"text")}).json["ciphertext"])
    other = shared_world.user("user2")
    other.post("/generate_symmetric_key")
    foreign = unb64(other.post("/api/v1/keys/user2_symmetric/encrypt", {"plaintext": ""}).json["ciphertext"])
    version_2 = sealed[:17] + (2).to_bytes(4) + sealed[21:]
    wrong = [
        b"",
        b"x",
        sealed[:-1],
        sealed + b"\0",
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
        b"\x02" + sealed[1:],
        foreign,
        version_2,
    ]
    answers = set()
    for each in wrong:
        refused = user.post(f"{KEY}/decrypt", {"ciphertext": b64(each)})
        answers.add((refused.status_code, refused.json["type"], refused.json["detail"]))
    assert len(answers) == 1
    rsa = "/api/v1/keys/user1_rsa"
    sealed = unb64(user.post(f"{rsa}/encrypt", {"plaintext": b64(b"text")}).json["ciphertext"])
    for each in (sealed[:-1], sealed + b"\0", sealed[:-1] + bytes([sealed[-1] ^ 1]), sealed[:21] + bytes(256)):
        refused = user.post(f"{rsa}/decrypt", {"ciphertext": b64(each)})
        answers.add((refused.status_code, refused.json["type"], refused.json["detail"]))
    assert len(answers) == 1


def test_what_pkcs1_v1_5_has_padded_is_told_from_nothing(user: Api) -> None:
    """Whoever is told which padding was right decrypts without the key (D. Bleichenbacher, 1998)."""
    path = "/api/v1/keys/user1_rsa"
    public = load_pem_public_key(user.get(f"{path}/public-key").json["public_key"].encode())
    assert isinstance(public, RSAPublicKey)
    header = unb64(user.post(f"{path}/encrypt", {"plaintext": b64(b"text")}).json["ciphertext"])[:21]
    padded = [public.encrypt(b"text", padding.PKCS1v15()) for _ in range(3)]
    random = [bytes([0]) + os.urandom(255) for _ in range(3)]
    answers = set()
    for each in padded + random:
        for body in ({"ciphertext": b64(header + each)}, {"ciphertext": b64(each), "format": "raw"}):
            refused = user.post(f"{path}/decrypt", body)
            answers.add((refused.status_code, refused.json["type"], refused.json["detail"]))
    assert {kind for _, kind, _ in answers} == {"/problems/decryption-failed"}
    assert len(answers) == 1


@pytest.mark.parametrize("key_id", ["user1_rsa", "user1_ecc"])
def test_signatures(user: Api, key_id: str) -> None:
    path = f"/api/v1/keys/{key_id}"
    signed = user.post(f"{path}/sign", {"message": b64(b"message")}).json
    assert signed["algorithm"] == {"user1_rsa": "PS256", "user1_ecc": "ES256"}[key_id]
    body = {"message": b64(b"message"), "signature": signed["signature"]}
    assert user.post(f"{path}/verify", body).json == {"key_id": key_id, "version": 1, "valid": True}
    assert user.post(f"{path}/verify", {**body, "message": b64(b"other")}).json["valid"] is False
    assert user.post(f"{path}/verify", {**body, "signature": ""}).json["valid"] is False
    for wrong in (
        {}, {"message": "", "digest": ""}, {"digest": b64(b"short")}, {"message": "", "algorithm": "none"},
        {"message": "no base64!"}, {"message": "", "algorithm": "HS256"},
    ):  # fmt: skip
        assert user.post(f"{path}/sign", wrong).status_code == 422
    assert user.post(f"{path}/verify", {**body, "version": 2}).status_code == 422


@pytest.mark.parametrize(
    ("key_id", "operations"),
    [
        ("user1_symmetric", "sign verify"),
        ("user1_ecc", "encrypt decrypt"),
        ("user1_dh", "encrypt decrypt sign verify"),
    ],
)
def test_what_a_key_cannot_do_is_refused_by_name(user: Api, key_id: str, operations: str) -> None:
    bodies = {
        "encrypt": {"plaintext": ""}, "decrypt": {"ciphertext": ""}, "sign": {"message": ""},
        "verify": {"message": "", "signature": ""},
    }  # fmt: skip
    for operation in operations.split():
        refused = user.post(f"/api/v1/keys/{key_id}/{operation}", bodies[operation])
        assert (refused.status_code, refused.json["type"]) == (400, "/problems/operation-not-supported")


def test_rsa_encrypts_no_more_than_it_can(user: Api) -> None:
    assert user.post("/api/v1/keys/user1_rsa/encrypt", {"plaintext": b64(bytes(190))}).status_code == 200
    assert user.post("/api/v1/keys/user1_rsa/encrypt", {"plaintext": b64(bytes(191))}).status_code == 422
