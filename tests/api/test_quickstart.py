"""The flat endpoints: what a user tries first."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dh, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from helpers.support import SteeredClock, World, b64, unb64
from kms.access.model import Role
from kms.crypto.dh import prime
from kms.crypto.envelope import HEADER_BYTES
from kms.crypto.mac import hkdf
from kms.crypto.symmetric import Xaes256Gcm


def test_a_symmetric_key_is_given_out_and_is_the_one_in_use(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    answer = user.post("/generate_symmetric_key", {"client_id": "user1"}).json
    assert set(answer) == {"client_id", "key_id", "version", "symmetric_key", "expires_at"}
    assert (answer["client_id"], answer["key_id"], answer["version"]) == ("user1", "user1_symmetric", 1)
    assert datetime.fromisoformat(answer["expires_at"]) == clock() + timedelta(days=365)
    key = unb64(answer["symmetric_key"])
    assert len(key) == 32
    body = {"plaintext": b64(b"hello"), "associated_data": b64(b"context")}
    sealed = unb64(user.post("/api/v1/keys/user1_symmetric/encrypt", body).json["ciphertext"])
    assert Xaes256Gcm(key).decrypt(sealed[HEADER_BYTES:], sealed[:HEADER_BYTES] + b"context") == b"hello"


@pytest.mark.parametrize(("bits", "expected"), [(None, 3072), (2048, 2048), (4096, 4096)])
def test_rsa(world: World, bits: int | None, expected: int) -> None:
    answer = (
        world.user("user1").post("/generate_rsa_key", {"client_id": "user1", **({"bits": bits} if bits else {})}).json
    )
    assert set(answer) == {"client_id", "key_id", "version", "public_key", "expires_at"}
    key = load_pem_public_key(answer["public_key"].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    assert (answer["key_id"], key.key_size, key.public_numbers().e) == ("user1_rsa", expected, 65537)


@pytest.mark.parametrize(("curve", "expected"), [(None, "secp256r1"), ("P-384", "secp384r1"), ("P-521", "secp521r1")])
def test_ecc(world: World, curve: str | None, expected: str) -> None:
    answer = world.user("user1").post("/generate_ecc_key", {"curve": curve} if curve else {}).json
    key = load_pem_public_key(answer["public_key"].encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert (answer["key_id"], key.curve.name) == ("user1_ecc", expected)


@pytest.mark.parametrize("body", [None, {}, {"client_id": "user1"}, {"group": "ffdhe3072"}, {"group": "x25519"}])
def test_dh(world: World, body: Any) -> None:
    answer = world.user("user1").post("/generate_dh_key", body).json
    group = (body or {}).get("group", "ffdhe2048")
    assert (answer["key_id"], answer["version"], answer["group"]) == ("user1_dh", 1, group)
    key = load_pem_public_key(answer["public_key"].encode())
    assert isinstance(key, x25519.X25519PublicKey if group == "x25519" else dh.DHPublicKey)


@pytest.mark.parametrize("group", ["x25519", "ffdhe2048", "ffdhe8192"])
def test_a_completed_exchange_gives_both_sides_one_key(world: World, group: str) -> None:
    user = world.user("user1")
    private: Any
    if group == "x25519":
        private = x25519.X25519PrivateKey.generate()
    else:
        private = dh.DHParameterNumbers(prime(int(group[5:])), 2).parameters().generate_private_key()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    answers = [user.post("/generate_dh_key", {"peer_public_key": pem}).json for _ in range(2)]
    keys = []
    for version, answer in enumerate(answers, 1):
        assert (answer["key_id"], answer["version"], answer["group"]) == ("user1_session", version, group)
        secret = private.exchange(load_pem_public_key(answer["public_key"].encode()))
        keys.append(hkdf(secret, unb64(answer["salt"]), unb64(answer["info"])))
    assert keys[0] != keys[1]  # ephemeral: each exchange has a secret of its own
    sealed = unb64(user.post("/api/v1/keys/user1_session/encrypt", {"plaintext": b64(b"hi")}).json["ciphertext"])
    assert Xaes256Gcm(keys[1]).decrypt(sealed[HEADER_BYTES:], sealed[:HEADER_BYTES]) == b"hi"
    assert user.post("/rotate_key", {"key_id": "user1_session"}).status_code == 409


def test_weak_peers_are_refused(world: World) -> None:
    user = world.user("user1")
    low = x25519.X25519PublicKey.from_public_bytes(bytes(32))
    ecdh = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = x25519.X25519PrivateKey.generate().public_key().public_bytes(*spki).decode()
    for body in (
        {"peer_public_key": low.public_bytes(*spki).decode()},
        {"peer_public_key": ecdh.public_bytes(*spki).decode()},
        {"peer_public_key": "no key"},
        {"peer_public_key": good, "group": "ffdhe2048"},
        {"group": "ffdhe1024"},
    ):
        answer = user.post("/generate_dh_key", body)
        assert answer.status_code == 422, body
        assert answer.json["detail"].split(":")[0] in {"peer_public_key", "group"}
    assert user.get("/api/v1/keys").json["items"] == []


def test_generating_again_makes_the_next_version_and_the_old_one_still_opens(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    old = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"old")}).json
    assert user.post("/generate_symmetric_key").json["version"] == 2
    new = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"new")}).json
    assert (old["version"], new["version"]) == (1, 2)
    for sealed, text in ((old, b"old"), (new, b"new")):
        opened = user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed["ciphertext"]}).json
        assert (unb64(opened["plaintext"]), opened["version"]) == (text, sealed["version"])


def test_an_rsa_key_may_change_its_size(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_rsa_key", {"bits": 2048})
    signed = user.post("/api/v1/keys/user1_rsa/sign", {"message": b64(b"m")}).json
    user.post("/generate_rsa_key", {"bits": 3072})
    body = {"message": b64(b"m"), "signature": signed["signature"], "version": 1}
    assert user.post("/api/v1/keys/user1_rsa/verify", body).json["valid"] is True
    assert user.post("/api/v1/keys/user1_rsa/verify", {**body, "version": 2}).json["valid"] is False
    assert [v["type"] for v in user.get("/api/v1/keys/user1_rsa").json["versions"]] == ["rsa-2048", "rsa-3072"]


def test_revocation_kills_every_version_and_generating_starts_anew(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    sealed = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"x")}).json["ciphertext"]
    user.post("/generate_symmetric_key")
    for _ in range(2):  # twice is the same
        answer = user.post("/revoke_key", {"key_id": "user1_symmetric"})
        assert (answer.status_code, answer.json) == (200, {"message": "Key user1_symmetric revoked."})
    for path, body in (
        ("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"x")}),
        ("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed}),
        ("/rotate_key", {"key_id": "user1_symmetric"}),
    ):
        refused = user.post(path, body)
        assert (refused.status_code, refused.json["type"]) == (403, "/problems/key-revoked")
    assert user.post("/generate_symmetric_key").json["version"] == 3
    assert user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": b64(b"x")}).json["version"] == 3
    refused = user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed})
    assert refused.status_code == 403
    listed = user.get("/revocation_list").json["revoked_keys"]
    assert [(entry["key_id"], entry["up_to_version"], entry["reason"]) for entry in listed] == [
        ("user1_symmetric", 2, "keyCompromise")
    ]


@pytest.mark.parametrize("reason", ["superseded", "cessationOfOperation"])
def test_softer_reasons_leave_decrypting_and_verifying(world: World, reason: str) -> None:
    user = world.user("user1")
    user.post("/generate_rsa_key", {"bits": 2048})
    path = "/api/v1/keys/user1_rsa"
    sealed = user.post(f"{path}/encrypt", {"plaintext": b64(b"x")}).json["ciphertext"]
    signature = user.post(f"{path}/sign", {"message": b64(b"m")}).json["signature"]
    assert user.post("/revoke_key", {"key_id": "user1_rsa", "reason": reason}).status_code == 200
    assert user.post(f"{path}/decrypt", {"ciphertext": sealed}).json["plaintext"] == b64(b"x")
    assert user.post(f"{path}/verify", {"message": b64(b"m"), "signature": signature}).json["valid"] is True
    for operation, body in (("encrypt", {"plaintext": ""}), ("sign", {"message": ""})):
        refused = user.post(f"{path}/{operation}", body)
        assert (refused.status_code, refused.json["type"]) == (403, "/problems/key-revoked")
    assert user.post("/revoke_key", {"key_id": "user1_rsa"}).status_code == 200  # worse news arrives later
    assert user.post(f"{path}/decrypt", {"ciphertext": sealed}).status_code == 403


def test_a_hold_can_be_lifted(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    sealed = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).json["ciphertext"]
    user.post("/generate_symmetric_key")
    assert user.post("/api/v1/keys/user1_symmetric/resume").status_code == 409
    assert user.post("/revoke_key", {"key_id": "user1_symmetric", "reason": "certificateHold"}).status_code == 200
    for path, body in (
        ("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}),
        ("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed}),
        ("/generate_symmetric_key", {}),
        ("/rotate_key", {"key_id": "user1_symmetric"}),
    ):
        refused = user.post(path, body)
        assert (refused.status_code, refused.json["type"]) == (409, "/problems/key-state"), path
    assert [e["reason"] for e in user.get("/revocation_list").json["revoked_keys"]] == ["certificateHold"]
    assert user.post("/api/v1/keys/user1_symmetric/resume").json["state"] == "active"
    assert user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed}).status_code == 200
    assert user.get("/revocation_list").json["revoked_keys"] == []


def test_the_end_of_the_cryptoperiod(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    sealed = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).json["ciphertext"]
    clock.advance(days=365)
    user = world.login("user1", Role.USER)
    refused = user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""})
    assert (refused.status_code, refused.json["type"]) == (403, "/problems/key-expired")
    assert user.get("/api/v1/keys/user1_symmetric").json["state"] == "deactivated"
    assert user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed}).status_code == 200
    clock.advance(days=3 * 365)
    user = world.login("user1", Role.USER)
    refused = user.post("/api/v1/keys/user1_symmetric/decrypt", {"ciphertext": sealed})
    assert (refused.status_code, refused.json["type"]) == (403, "/problems/key-expired")
    assert user.post("/rotate_key", {"key_id": "user1_symmetric"}).json["version"] == 2
    assert user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": ""}).json["version"] == 2


def test_keys_for_other_clients(world: World) -> None:
    user, admin = world.user("user1"), world.admin
    assert admin.post("/generate_ecc_key", {"client_id": "user1"}).json["key_id"] == "user1_ecc"
    assert user.post("/api/v1/keys/user1_ecc/sign", {"message": ""}).status_code == 200
    assert admin.post("/api/v1/keys/user1_ecc/sign", {"message": ""}).status_code == 403  # not its own
    assert admin.post("/generate_ecc_key", {"client_id": "nobody"}).status_code == 404
    for other in ("admin", "nobody"):
        refused = user.post("/generate_ecc_key", {"client_id": other})
        assert refused.status_code == 403
        assert refused.json["detail"] == (
            f"user1 may do this for itself and not for {other}: keys:create for other clients is for administrators."
        )
    assert (
        user.post("/api/v1/keys", {"owner": "admin"}).json["detail"]
        == user.post("/generate_ecc_key", {"client_id": "admin"}).json["detail"]
    )
    auditor = world.user("carl", Role.AUDITOR)
    assert "carl may not do this" in auditor.post("/generate_ecc_key", {"client_id": "user1"}).json["detail"]
    assert admin.post("/revoke_key", {"key_id": "user1_ecc"}).status_code == 200


def test_rotate_gives_no_secret_out(world: World) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    answer = user.post("/rotate_key", {"key_id": "user1_symmetric"}).json
    assert (answer["version"], set(answer)) == (2, {"client_id", "key_id", "version", "expires_at"})
    assert user.post("/rotate_key", {"key_id": "user1_rsa"}).status_code == 404


def test_revoking(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    assert user.post("/revoke_key", {"key_id": "user1_rsa"}).status_code == 404
    assert user.post("/revoke_key", {"key_id": "user1_rsa", "reason": "boredom"}).status_code == 422
    assert "key_id" in user.post("/revoke_key", {}).json["detail"]
    user.post("/generate_ecc_key")
    late = (clock() + timedelta(days=1)).isoformat()
    assert user.post("/revoke_key", {"key_id": "user1_ecc", "compromised_at": late}).status_code == 422
    before = (clock() - timedelta(days=1)).isoformat()
    assert user.post("/revoke_key", {"key_id": "user1_ecc", "compromised_at": before}).status_code == 422
    early = clock().isoformat()
    clock.advance(minutes=5)
    assert user.post("/revoke_key", {"key_id": "user1_ecc", "compromised_at": early}).status_code == 200
    (entry,) = user.get("/revocation_list").json["revoked_keys"]
    assert datetime.fromisoformat(entry["compromised_at"]) == datetime.fromisoformat(early).replace(microsecond=0)
