"""What a reviewer broke once, each as the attack that showed it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dh, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from vectors.test_known_answers import imported

from helpers.support import Api, SteeredClock, World, b64, kind_of, unb64
from kms.access.model import Role
from kms.crypto.dh import prime
from kms.crypto.goodkey import _root
from kms.crypto.registry import KEY_TYPES
from kms.message_quota import MessageQuota
from kms.operations.keys.state_changes import remove
from kms.operations.system.schedule import Schedule, rotate_due_keys
from kms.vault.rows import MessageCount

KEY = "/api/v1/keys/k"


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    api.post("/api/v1/keys", {"key_id": "k"})
    return api


def refused_import(api: Api, name: str, material: bytes, form: str) -> str:
    with pytest.raises(AssertionError) as refused:
        imported(api, name, material, form)
    return str(refused.value)


def pkcs8(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def pem_of(n: int, e: int = 65537) -> str:
    key = rsa.RSAPublicNumbers(e, n).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def gone(world: World, key_id: str) -> None:
    with world.service.vault.change() as change:
        key = change.key_by_id(key_id)
        assert key is not None
        remove(change, key)


@pytest.mark.parametrize("name", ["rsa-2048", "ed25519"])
def test_nobody_makes_it_compute_for_minutes(alice: Api, name: str) -> None:
    numbers = {"kty": "RSA", "n": "_" * 4000, "e": "AQAB", "d": "_" * 4000}
    assert "validation-failed" in refused_import(alice, name, json.dumps(numbers).encode(), "jwk")
    p, q = (1 << 3217) - 1, (1 << 4253) - 1  # Mersenne primes: the library would check them for seconds
    d = pow(65537, -1, (p - 1) * (q - 1))
    parts = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q)
    )
    huge = pkcs8(parts.private_key(unsafe_skip_rsa_key_validation=True))
    assert "validation-failed" in refused_import(alice, name, huge, "pkcs8")
    assert "validation-failed" in refused_import(alice, name, b"x" * 20_000, "pkcs8")
    assert "validation-failed" in refused_import(alice, name, b"[" * 10_000, "jwk")


@pytest.mark.parametrize(
    "body",
    [
        b'{"items":[',
        b'{"items":[{"x":tru}]}',
        b'{"items":[{"plaintext":5},{"plaintext":"\\q"}]}',
        b'{"items":[{"plaintext":5,"x":' + b"[" * 50_000,
    ],
)
def test_broken_batches_are_refused_and_recorded(world: World, alice: Api, body: bytes) -> None:
    answer = alice.http.post(f"{KEY}/encrypt", data=body, content_type="application/json", headers=alice.headers)
    assert answer.status_code in (400, 422), answer.json
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    assert [entry["outcome"] for entry in entries if entry["operation"] == "encrypt"] == [kind_of(answer)]


def test_what_fails_unforeseen_is_recorded(world: World, alice: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.service.key_cache, "authorize", lambda *asked: 1 // 0)
    assert alice.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 500
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    assert [entry["outcome"] for entry in entries if entry["operation"] == "encrypt"] == ["internal-error"]


def test_the_schedule_does_not_bring_back_what_was_revoked(world: World, alice: Api, clock: SteeredClock) -> None:
    alice.post("/api/v1/keys", {"key_id": "r", "rotation_period": "PT1H"})
    backup = alice.post("/api/v1/keys/r/backup").json["backup"]
    alice.post("/api/v1/keys/r/revoke")
    gone(world, "r")
    restored = alice.post("/api/v1/keys/restore", {"backup": backup}).json
    assert (restored["state"], restored["next_rotation_at"]) == ("compromised", None)
    alice.post("/api/v1/keys", {"key_id": "c", "type": "aes-256-gcm"})
    alice.post("/api/v1/keys/c/encrypt", {"plaintext": ""})
    alice.post("/api/v1/keys/c/revoke")
    with world.service.vault.change() as change:  # as if a count had made it due at that moment
        for key_id in ("c", "r"):
            key = change.key_by_id(key_id)
            assert key is not None
            change.replace(key, replace(key, next_rotation_at=clock.now))
    rotate_due_keys(world.service, clock.now + timedelta(hours=2))
    for key_id in ("c", "r"):
        assert alice.get(f"/api/v1/keys/{key_id}").json["latest_version"] == 1


def test_raw_does_not_cross_between_data_and_wrapped_keys(world: World, alice: Api) -> None:
    wrapped = unb64(alice.post(f"{KEY}/wrap", {"key": "AAAA"}).json["wrapped_key"])
    crossing = {"ciphertext": b64(wrapped[21:]), "associated_data": b64(wrapped[:21]), "format": "raw"}
    assert kind_of(alice.post(f"{KEY}/decrypt", crossing)) == "validation-failed"
    forged = {"plaintext": "AAAA", "associated_data": b64(wrapped[:21]), "format": "raw"}
    assert kind_of(alice.post(f"{KEY}/encrypt", forged)) == "validation-failed"
    several = alice.post(f"{KEY}/encrypt", {"items": [forged]}).json["items"]
    assert several[0]["error"]["type"] == "/problems/validation-failed"
    alice.post("/api/v1/keys", {"key_id": "rsa", "type": "rsa-2048"})
    bob = world.user("bob")
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:decrypt", "key_pattern": "rsa"})
    wrapped_key = alice.post("/api/v1/keys/rsa/wrap", {"key": "AAAA", "algorithm": "RSA-OAEP-256"}).json[
        "wrapped_key"
    ]
    raw = {"ciphertext": wrapped_key, "format": "raw"}
    assert kind_of(bob.post("/api/v1/keys/rsa/decrypt", raw)) == "permission-denied"
    assert alice.post("/api/v1/keys/rsa/decrypt", raw).status_code == 200


def test_a_revocation_while_messages_are_claimed_holds(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("/api/v1/keys", {"key_id": "g", "type": "aes-256-gcm"})
    claim = MessageQuota._claim

    def slow(self: MessageQuota, *arguments: Any) -> None:
        assert world.login("alice", Role.USER).post("/api/v1/keys/g/revoke").status_code == 200
        claim(self, *arguments)

    monkeypatch.setattr(MessageQuota, "_claim", slow)
    assert kind_of(alice.post("/api/v1/keys/g/encrypt", {"plaintext": ""})) == "key-revoked"


def test_a_restored_key_with_counted_messages_protects_with_a_new_version(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "g", "type": "aes-256-gcm"})
    backup = alice.post("/api/v1/keys/g/backup").json["backup"]
    sealed = alice.post("/api/v1/keys/g/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    gone(world, "g")
    restored = alice.post("/api/v1/keys/restore", {"backup": backup}).json
    assert [version["state"] for version in restored["versions"]] == ["deactivated", "active"]
    assert alice.post("/api/v1/keys/g/decrypt", {"ciphertext": sealed}).json["plaintext"] == "AAAA"


def test_no_old_version_gets_another_use(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "alice_symmetric", "type": "rsa-2048", "usages": ["sign", "verify"]})
    assert kind_of(alice.post("/generate_symmetric_key")) == "conflict"
    alice.post("/api/v1/keys", {"key_id": "alice_rsa", "type": "rsa-2048", "usages": ["sign", "verify"]})
    assert alice.post("/generate_rsa_key").json["version"] == 2
    assert alice.get("/api/v1/keys/alice_rsa").json["usages"] == ["sign", "verify"]


def test_a_public_half_alone_is_not_asked_for_what_needs_the_other(alice: Api) -> None:
    path = imported(alice, "ec-p256", KEY_TYPES["ec-p256"].generate(), "pkcs8")
    public = alice.get(path).json["versions"][0]["public_key"]
    alice.post(f"{path}/versions/1/destroy")
    assert kind_of(alice.post(f"{path}/import", {"public_key": public})) == "conflict"
    rsa_public = pem_of(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n)
    alice.post("/api/v1/keys/import", {"key_id": "alice_rsa", "type": "rsa-2048", "public_key": rsa_public})
    assert alice.post("/generate_rsa_key").status_code == 200
    body = {"ciphertext": "AAAA", "format": "raw", "version": 1}
    assert kind_of(alice.post("/api/v1/keys/alice_rsa/decrypt", body)) == "operation-not-supported"


def test_keys_that_wait_do_not_stop_the_schedule(world: World, alice: Api, clock: SteeredClock) -> None:
    for number in range(3):
        later = (clock.now + timedelta(days=300)).isoformat()
        alice.post("/api/v1/keys", {"key_id": f"p{number}", "rotation_period": "PT1S", "activate_at": later})
    alice.post("/api/v1/keys", {"key_id": "d", "rotation_period": "PT1S"})
    alice.delete("/api/v1/keys/d")
    alice.post("/api/v1/keys", {"key_id": "v", "rotation_period": "PT1S"})
    clock.advance(seconds=5)
    Schedule(world.service).tick()
    assert alice.get("/api/v1/keys/v").json["latest_version"] == 2


def test_only_a_client_s_own_keys_in_force_are_published(world: World, alice: Api) -> None:
    path = "/clients/alice/.well-known/jwks.json"
    foreign = pem_of(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n)
    planted = {"type": "rsa-2048", "public_key": foreign, "owner": "alice"}
    assert world.admin.post("/api/v1/keys/import", planted).status_code == 201
    assert world.http.get(path).json == {"keys": []}
    alice.post("/api/v1/keys", {"key_id": "s", "type": "ed25519"})
    alice.post("/api/v1/keys/s/rotate")
    assert len(world.http.get(path).json["keys"]) == 2
    alice.post("/api/v1/keys/s/suspend")
    assert world.http.get(path).json == {"keys": []}
    alice.post("/api/v1/keys/s/resume")
    world.admin.post("/api/v1/clients/alice/disable")
    assert world.http.get(path).json == {"keys": []}


def test_a_suspended_key_is_not_exported_by_an_older_version(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "e", "exportable": True})
    alice.post("/api/v1/keys/e/rotate")
    alice.post("/api/v1/keys/e/suspend")
    to = {"recipient_public_key": pem_of(rsa.generate_private_key(65537, 2048).public_key().public_numbers().n)}
    for version in (1, 2):
        assert kind_of(alice.post("/api/v1/keys/e/export", {**to, "version": version})) == "key-state"


def test_a_batch_that_is_refused_in_the_middle_leaves_its_entries(world: World, alice: Api) -> None:
    world.user("bob")
    alice.post("/api/v1/keys", {"key_id": "h", "type": "hmac-sha256", "usages": ["derive"]})
    items = [{"keep_as": {"type": "aes-256-gcm", "key_id": "kept"}}, {"keep_as": {"owner": "bob", "key_id": "x"}}]
    assert kind_of(alice.post("/api/v1/keys/h/derive", {"items": items})) == "permission-denied"
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    outcomes = [entry["outcome"] for entry in entries if entry["operation"] == "derive"]
    assert outcomes == ["success", "permission-denied"]


def test_keys_made_by_derivation_count_as_made(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "h", "type": "hmac-sha256", "usages": ["derive"]})
    items = [{"context": b64(bytes(n)), "keep_as": {"type": "aes-256-gcm"}} for n in range(400)]
    assert kind_of(alice.post("/api/v1/keys/h/derive", {"items": items})) == "rate-limited"


def test_grants_reach_what_they_say_and_no_more(world: World, alice: Api) -> None:
    bob = world.user("bob")
    alice.post("/api/v1/keys", {"key_id": "PAYsecret"})
    alice.post("/api/v1/keys", {"key_id": "payroll"})
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:read", "key_pattern": "pay*"})
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "k"})
    assert [key["key_id"] for key in bob.get("/api/v1/keys").json["items"]] == ["payroll"]
    assert [key["key_id"] for key in alice.get("/api/v1/keys?prefix=PAY").json["items"]] == ["PAYsecret"]


def test_aliases_of_others_look_as_if_they_were_not_there(world: World, alice: Api) -> None:
    alice.put("/api/v1/aliases/secretname", {"key_id": "k"})
    bob = world.user("bob")
    bob.post("/api/v1/keys", {"key_id": "b"})
    theirs, none = bob.delete("/api/v1/aliases/secretname"), bob.delete("/api/v1/aliases/nonesuch")
    assert theirs.json["detail"].replace("secretname", "nonesuch") == none.json["detail"]
    assert kind_of(bob.put("/api/v1/aliases/secretname", {"key_id": "b"})) == "already-exists"


def test_rsa_keys_that_are_none(alice: Api) -> None:
    p = rsa.generate_private_key(65537, 2048).private_numbers().p
    big = rsa.generate_private_key(65537, 4096).public_key().public_numbers().n
    mersenne = (1 << 2203) - 1
    root = _root(3 << 2046, 3)
    cube = next(q for q in range(root | 1, root + 10_000, 2) if pow(2, q - 1, q) == 1) ** 3
    for name, n, e in (("rsa-2048", p * p, 65537), ("rsa-4096", big, (1 << 100) + 1), ("rsa-2048", cube, 65537)):
        assert (
            kind_of(alice.post("/api/v1/keys/import", {"type": name, "public_key": pem_of(n, e)}))
            == "validation-failed"
        )
    body = {"recipient_public_key": pem_of(mersenne)}
    alice.post("/api/v1/keys", {"key_id": "e", "exportable": True})
    assert kind_of(alice.post("/api/v1/keys/e/export", body)) == "validation-failed"
    guessed = dh.DHPrivateNumbers(1, dh.DHPublicNumbers(2, dh.DHParameterNumbers(prime(2048), 2))).private_key()
    assert "validation-failed" in refused_import(alice, "ffdhe2048", pkcs8(guessed), "pkcs8")


def test_a_session_key_never_rotates(world: World, alice: Api) -> None:
    refused = alice.post("/api/v1/keys", {"key_id": "alice_session", "rotation_period": "P1D"})
    assert kind_of(refused) == "validation-failed"


def test_a_restoration_keeps_a_hold(world: World, alice: Api) -> None:
    backup = alice.post(f"{KEY}/backup").json["backup"]
    alice.post(f"{KEY}/suspend")
    gone(world, "k")
    assert alice.post("/api/v1/keys/restore", {"backup": backup}).json["state"] == "suspended"
    alice.post(f"{KEY}/resume")
    gone(world, "k")
    assert alice.post("/api/v1/keys/restore", {"backup": backup}).json["state"] == "active"


def test_a_compromised_pair_does_not_come_back_as_the_next_version(alice: Api) -> None:
    material = KEY_TYPES["ec-p256"].generate()
    path = imported(alice, "ec-p256", material, "pkcs8", key_id="mine")
    alice.post(f"{path}/revoke")
    public = alice.get(path).json["versions"][0]["public_key"]
    alice.post("/api/v1/keys/import", {"key_id": "pub", "type": "ec-p256", "public_key": public})
    alice.post("/api/v1/keys/pub/revoke")
    assert kind_of(alice.post("/api/v1/keys/pub/import", {"public_key": public})) == "key-revoked"


def test_rewrapping_does_not_bind_anew_without_more(world: World, alice: Api) -> None:
    bob = world.user("bob")
    sealed = alice.post(f"{KEY}/encrypt", {"plaintext": "AAAA", "associated_data": "AAAA"}).json["ciphertext"]
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:rewrap", "key_pattern": "k"})
    body = {"ciphertext": sealed, "associated_data": "AAAA"}
    assert bob.post(f"{KEY}/rewrap", body).status_code == 200
    assert kind_of(bob.post(f"{KEY}/rewrap", {**body, "to_associated_data": ""})) == "permission-denied"
    alice.post("/api/v1/keys", {"key_id": "t1"})
    alice.post("/api/v1/keys", {"key_id": "t2"})
    items = [{**body, "to_key_id": "t1"}, {**body, "to_key_id": "t2"}]
    results = alice.post(f"{KEY}/rewrap", {"items": items}).json["items"]
    assert ["error" in each for each in results] == [False, True]


def test_counts_of_messages_are_kept_for_the_version_that_made_them(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "g", "type": "chacha20-poly1305"})
    alice.post("/api/v1/keys/g/encrypt", {"items": [{"plaintext": ""}] * 1000})
    with world.service.vault.read() as snapshot:
        assert [count.claimed for count in snapshot.select(MessageCount)] == [65_536]
    left = world.service.message_quota._left
    assert list(left.values()) == [65_536 - 1000]
