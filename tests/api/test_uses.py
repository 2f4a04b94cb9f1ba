"""Every key type does what it is made for, on any bytes, and nothing else."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dh
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers.support import Api, World, b64, unb64
from helpers.uses import IDS, OPERATION_OF, PURPOSES, context_of, exercise, peer_of
from kms.crypto.dh import prime
from kms.crypto.dh import spki as dh_spki
from kms.crypto.pkcs8 import public_pem
from kms.crypto.registry import KEY_TYPES
from kms.keys.model import Usage
from kms.operations import OPERATIONS

RSA_LONGEST = 190  # OAEP with SHA-256 under 2048 bits


@pytest.fixture(scope="module")
def user(unlimited_world: World) -> Api:
    """A client with a key of each type and purpose, made once for all tests here."""
    api = unlimited_world.user("alice")
    for key_id, (name, usages) in zip(IDS, PURPOSES, strict=True):
        made = api.post("/api/v1/keys", {"type": name, "key_id": key_id, "usages": sorted(usages)})
        assert made.status_code == 201, made.json
        assert made.headers["Location"] == f"/api/v1/keys/{key_id}"
    return api


def call(user: Api, key_id: str, operation: str, body: Any) -> Any:
    answer = user.post(f"/api/v1/keys/{key_id}/{operation}", body)
    assert answer.status_code == 200, (key_id, operation, answer.json)
    return answer.json


@pytest.mark.parametrize(("key_id", "name", "usages"), [(i, *p) for i, p in zip(IDS, PURPOSES, strict=True)], ids=IDS)
def test_what_a_key_is_made_for_works(user: Api, key_id: str, name: str, usages: frozenset[Usage]) -> None:
    exercise(lambda operation, body: call(user, key_id, operation, body), name, usages, b"a message", b"a context")


@pytest.mark.parametrize("key_id", IDS)
def test_everything_else_is_refused_by_name(user: Api, key_id: str) -> None:
    usages = dict(zip(IDS, PURPOSES, strict=True))[key_id][1]
    for operation, (usage, body) in OPERATION_OF.items():
        answer = user.post(f"/api/v1/keys/{key_id}/{operation}", body)
        if usage in usages:
            assert answer.json.get("type") != "/problems/operation-not-supported", (operation, answer.json)
        else:
            assert (answer.status_code, answer.json["type"]) == (400, "/problems/operation-not-supported"), operation
        assert answer.status_code < 500


def test_every_use_is_in_the_matrix() -> None:
    uses = {each.path.rpartition("/")[2] for each in OPERATIONS.values() if each.hot and "<key_id>" in each.path}
    assert uses <= set(OPERATION_OF)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.sampled_from(IDS),
    size=st.sampled_from([0, 1, 15, 16, 17, 31, 32, 33, 4096, 65535, 65536]) | st.integers(0, 65536),
    associated_data=st.binary(max_size=200),
    data=st.data(),
)
def test_any_bytes_come_back(user: Api, which: str, size: int, associated_data: bytes, data: st.DataObject) -> None:
    name, usages = dict(zip(IDS, PURPOSES, strict=True))[which]
    if name.startswith("rsa") and Usage.ENCRYPT in usages:
        size %= RSA_LONGEST
    seed = data.draw(st.binary(min_size=1, max_size=32))
    message = (seed * (size // len(seed) + 1))[:size]
    exercise(lambda operation, body: call(user, which, operation, body), name, usages, message, associated_data)


AEADS = [name for name, purpose in PURPOSES if Usage.ENCRYPT in purpose and not name.startswith("rsa")]


@pytest.mark.parametrize("name", AEADS)
@pytest.mark.parametrize("form", ["kms", "raw"])
def test_any_altered_bit_is_noticed_with_one_answer(user: Api, name: str, form: str) -> None:
    key_id = next(key_id for key_id in IDS if key_id.startswith(f"{name}-decrypt"))
    bound = {"format": form, **context_of(name)}
    sealed = unb64(call(user, key_id, "encrypt", {"plaintext": b64(b"text"), **bound})["ciphertext"])
    wrong = [sealed[:n] for n in range(len(sealed))] + [sealed + b"\0"]
    wrong += [sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :] for n in range(len(sealed))]
    items = [{"ciphertext": b64(each), **bound} for each in wrong]
    answer = call(user, key_id, "decrypt", {"items": items})["items"]
    assert {(each["error"]["type"], each["error"]["detail"]) for each in answer} == {
        ("/problems/decryption-failed", "The ciphertext did not open.")
    }


def test_only_the_deterministic_types_give_equal_ciphertexts(user: Api) -> None:
    for name in AEADS:
        key_id = next(key_id for key_id in IDS if key_id.startswith(f"{name}-decrypt"))
        body = {"plaintext": b64(b"text"), "associated_data": b64(b"context"), **context_of(name)}
        first, second = (call(user, key_id, "encrypt", body)["ciphertext"] for _ in range(2))
        assert (first == second) is (name == "aes-256-siv" or name.endswith("-convergent"))
    other = call(user, key_id, "encrypt", {**body, "associated_data": ""})["ciphertext"]
    assert other != first


@pytest.mark.parametrize("name", [name for name in KEY_TYPES if name.startswith("ec-")])
def test_ecdsa_signatures_have_exactly_one_form(user: Api, name: str) -> None:
    key_id = f"{name}-sign-verify"
    for form in ("p1363", "der"):
        body = {"message": b64(b"text"), "signature_format": form}
        signature = unb64(call(user, key_id, "sign", body)["signature"])
        wrong = [signature[:-1], signature + b"\0", b"\0" + signature, b"", bytes(len(signature)), signature[:8]]
        if form == "der":
            wrong += [
                b"\x30\x81" + signature[1:],
                signature.replace(b"\x02", b"\x02\x81", 1),
                b"\x30\x80" + signature[2:],
            ]
            r_length = signature[signature.index(2) + 1]
            start = signature.index(2)
            padded = signature[:start] + bytes([2, r_length + 1, 0]) + signature[start + 2 :]
            wrong.append(padded[:1] + bytes([padded[1] + 1]) + padded[2:])
        verdicts = [
            call(user, key_id, "verify", {**body, "signature": b64(each)})["valid"] for each in [signature, *wrong]
        ]
        assert verdicts == [True] + [False] * len(wrong), form
        other = {**body, "signature": b64(signature), "signature_format": {"der": "p1363", "p1363": "der"}[form]}
        assert call(user, key_id, "verify", other)["valid"] is False


def test_options_that_an_algorithm_does_not_have_are_refused(user: Api) -> None:
    for name, body in (
        ("ed25519", {"digest": b64(bytes(64))}),
        ("ed448", {"message": "", "context": "AAAA"}),
        ("rsa-2048", {"message": "", "signature_format": "der"}),
        ("ml-dsa-44", {"message": "", "signature_format": "der"}),
        ("ml-dsa-44", {"message": "", "context": b64(bytes(256))}),
        ("ml-dsa-44", {"digest": b64(bytes(32))}),
        ("ec-p256", {"message": "", "context": "AAAA"}),
        ("ec-p256", {"message": "", "algorithm": "ES384"}),
        ("ec-secp256k1", {"digest": b64(bytes(20))}),
    ):
        key_id = next(key_id for key_id in IDS if key_id.startswith(name) and "sign" in key_id)
        refused = user.post(f"/api/v1/keys/{key_id}/sign", body)
        assert (refused.status_code, refused.json["type"]) == (422, "/problems/validation-failed"), (name, body)


def test_wrapping_keys_of_the_standards(user: Api) -> None:
    for name in ("aes-128-kw", "aes-256-kw"):
        key_id = f"{name}-unwrap-wrap"
        for length in (0, 8, 15, 17, 20):
            refused = user.post(f"/api/v1/keys/{key_id}/wrap", {"key": b64(bytes(length))})
            assert refused.json["type"] == "/problems/validation-failed", length
    key_id = "aes-256-kwp-unwrap-wrap"
    for length in (1, 7, 8, 9, 4096):
        wrapped = call(user, key_id, "wrap", {"key": b64(bytes(length))})["wrapped_key"]
        assert unb64(call(user, key_id, "unwrap", {"wrapped_key": wrapped})["key"]) == bytes(length)
    rsa = next(key_id for key_id in IDS if key_id.startswith("rsa-2048"))
    for algorithm in ("RSA-OAEP-256", "RSA_AES_KEY_WRAP_SHA_256"):
        wrapped = call(user, rsa, "wrap", {"key": "AAAA", "algorithm": algorithm})["wrapped_key"]
        body = {"wrapped_key": wrapped, "algorithm": algorithm}
        assert call(user, rsa, "unwrap", body)["key"] == "AAAA"
        cut = b64(unb64(wrapped)[:-1])
        refused = user.post(f"/api/v1/keys/{rsa}/unwrap", {**body, "wrapped_key": cut})
        assert refused.json["type"] == "/problems/decryption-failed"
    refused = user.post(f"/api/v1/keys/{rsa}/wrap", {"key": "AAAA", "algorithm": "RSA1_5"})
    assert refused.json["type"] == "/problems/validation-failed"


def test_a_wrapped_key_is_no_ciphertext_and_the_other_way_round(user: Api) -> None:
    key_id = next(key_id for key_id in IDS if key_id.startswith("xaes"))
    wrapped = call(user, key_id, "wrap", {"key": "AAAA"})["wrapped_key"]
    sealed = call(user, key_id, "encrypt", {"plaintext": "AAAA"})["ciphertext"]
    for operation, body in (("decrypt", {"ciphertext": wrapped}), ("unwrap", {"wrapped_key": sealed})):
        refused = user.post(f"/api/v1/keys/{key_id}/{operation}", body)
        assert refused.json["type"] == "/problems/decryption-failed"
    relabelled = b64(b"\x01" + unb64(wrapped)[1:])
    refused = user.post(f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": relabelled})
    assert refused.json["type"] == "/problems/decryption-failed"


def test_altered_encapsulations_give_another_secret_and_wrong_lengths_nothing(user: Api) -> None:
    key_id = "ml-kem-768-decapsulate-encapsulate"
    made = call(user, key_id, "encapsulate", {})
    ciphertext = unb64(made["ciphertext"])
    altered = b64(bytes([ciphertext[0] ^ 1]) + ciphertext[1:])
    assert call(user, key_id, "decapsulate", {"ciphertext": altered})["shared_secret"] != made["shared_secret"]
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
        refused = user.post(f"/api/v1/keys/{key_id}/decapsulate", {"ciphertext": b64(wrong)})
        assert refused.json["type"] == "/problems/decryption-failed"


@pytest.mark.parametrize("name", ["x25519", "ec-p384", "ml-kem-1024", "ml-kem-768-x25519"])
def test_sealed_messages_open_whole_or_not_at_all(user: Api, name: str) -> None:
    key_id = f"{name}-open-seal"
    sealed = unb64(call(user, key_id, "seal", {"plaintext": "AAAA", "info": "AAAA"})["ciphertext"])
    for wrong in (
        b"",
        sealed[:5],
        sealed[:-1],
        sealed + b"\0",
        bytes(len(sealed)),
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
    ):
        refused = user.post(f"/api/v1/keys/{key_id}/open", {"ciphertext": b64(wrong), "info": "AAAA"})
        assert refused.json["type"] == "/problems/decryption-failed"
    refused = user.post(f"/api/v1/keys/{key_id}/open", {"ciphertext": b64(sealed), "info": ""})
    assert refused.json["type"] == "/problems/decryption-failed"


def test_random_bytes_and_digests(user: Api) -> None:
    first, second = (user.post("/api/v1/random", {"length": 32}).json["random"] for _ in range(2))
    assert first != second
    assert len(unb64(first)) == 32
    for length in (0, 65_537, -1, "x"):
        assert user.post("/api/v1/random", {"length": length}).status_code == 422
    digest = user.post("/api/v1/hash", {"message": b64(b"abc"), "algorithm": "SHA-256"}).json
    assert unb64(digest["digest"]).hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert user.post("/api/v1/hash", {"message": "", "algorithm": "MD5"}).status_code == 422


def test_data_key_pairs(user: Api) -> None:
    key_id = next(key_id for key_id in IDS if key_id.startswith("xaes"))
    path = f"/api/v1/keys/{key_id}/data-key-pair"
    pair = user.post(path, {"type": "ed25519", "associated_data": "AAAA"}).json
    opened = call(user, key_id, "decrypt", {"ciphertext": pair["ciphertext"], "associated_data": "AAAA"})
    assert opened["plaintext"] == pair["plaintext"]
    spki = KEY_TYPES["ed25519"].public_key(unb64(pair["plaintext"])) or b""
    assert base64.b64encode(spki).decode() in pair["public_key"].replace("\n", "")
    assert "plaintext" not in user.post(path, {"type": "ed25519", "with_plaintext": False}).json
    assert user.post(path, {"type": "aes-256-gcm"}).status_code == 422
    assert user.post(path, {"type": "rot13"}).json["type"] == "/problems/operation-not-supported"


def test_derivations(user: Api) -> None:
    key_id = "hmac-sha256-derive"
    for body, status in (
        ({"algorithm": "KBKDF-HMAC-SHA-256", "label": "AAAA", "context": "AAAA"}, 200),
        ({"algorithm": "KBKDF-HMAC-SHA-256", "salt": "AAAA"}, 422),
        ({"algorithm": "HKDF-SHA-256", "label": "AAAA"}, 422),
        ({"algorithm": "HKDF-SHA-256", "length": 8160}, 200),
        ({"algorithm": "HKDF-SHA-256", "length": 8161}, 422),
        ({"algorithm": "HKDF-SHA-512"}, 422),
        ({"length": 15}, 422),
    ):
        assert user.post(f"/api/v1/keys/{key_id}/derive", body).status_code == status, body
    keep = {"type": "aes-256-gcm", "key_id": "kept", "labels": {"from": "hmac"}}
    kept = call(user, key_id, "derive", {"context": "AAAA", "keep_as": keep})
    assert kept == {"key_id": key_id, "version": 1, "kept_as": "kept"}
    shown = user.get("/api/v1/keys/kept").json
    assert (shown["origin"], shown["exportable"], shown["labels"]) == ("derived", False, {"from": "hmac"})
    sealed = call(user, "kept", "encrypt", {"plaintext": "AAAA", "format": "raw"})["ciphertext"]
    again = call(user, key_id, "derive", {"context": "AAAA", "keep_as": {"type": "aes-256-gcm", "key_id": "same"}})
    assert again["kept_as"] == "same"
    assert call(user, "same", "decrypt", {"ciphertext": sealed, "format": "raw"})["plaintext"] == "AAAA"
    assert user.post("/api/v1/keys/kept/rotate").json["type"] == "/problems/conflict"
    wrong = {"context": "AAAA", "keep_as": {"type": "ec-p256"}}
    assert user.post(f"/api/v1/keys/{key_id}/derive", wrong).status_code == 422


def ffdhe_pem(y: int) -> str:
    numbers = dh.DHPublicNumbers(y, dh.DHParameterNumbers(prime(2048), 2))
    return public_pem(dh_spki(numbers.public_key()))


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("x25519", public_pem(bytes.fromhex("302a300506032b656e032100") + bytes(32))),
        ("x25519", public_pem(bytes.fromhex("302a300506032b656e032100") + b"\x01" + bytes(31))),
        ("x448", public_pem(bytes.fromhex("3042300506032b656f033900") + bytes(56))),
        ("ec-p256", public_pem(bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200") + b"\x04" * 65)),
        ("ec-p256", peer_of(KEY_TYPES["ec-p384"])),
        ("ec-p256", peer_of(KEY_TYPES["x25519"])),
        ("ffdhe2048", ffdhe_pem(prime(2048) - 2)),
        ("ffdhe2048", ffdhe_pem(next(y for y in range(2, 99) if pow(y, prime(2048) // 2, prime(2048)) != 1))),
        ("ffdhe2048", peer_of(KEY_TYPES["ffdhe3072"])),
        ("x25519", peer_of(KEY_TYPES["x25519"]).replace("PUBLIC", "PRIVATE")),
        ("x25519", peer_of(KEY_TYPES["x25519"]) + "x"),
        ("x25519", ""),
    ],
)
def test_peers_that_would_weaken_the_secret_are_refused(user: Api, name: str, peer: str) -> None:
    for more in ({}, {"kdf": "none"}):
        refused = user.post(f"/api/v1/keys/{name}-agree/agree", {"peer_public_key": peer, **more})
        assert (refused.status_code, refused.json["type"]) == (422, "/problems/validation-failed"), refused.json
