"""The inventory: a bill of materials that another library reads, what is due, what is not post-quantum safe."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from sqlalchemy import event

from helpers import aws_in_process
from helpers.support import Api, SteeredClock, World, b64, kind_of, settings_for
from helpers.transfer import wrapped_for
from kms.access.model import Role
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import KEY_TYPES
from kms.keys.cryptoperiod import Cryptoperiods
from kms.keys.model import Alias
from kms.operations import Service
from kms.operations.core import paging
from kms.operations.keys.key_factory import KeySpec, new_key

PATH = "/api/v1/inventory"
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def pages(api: Api, path: str = PATH, **query: Any) -> list[dict[str, Any]]:
    """The answers of all pages."""
    found, cursor = [], None
    while True:
        asked = {**query, "cursor": cursor} if cursor else query
        answer = api.get(f"{path}?{'&'.join(f'{name}={value}' for name, value in asked.items())}")
        assert answer.status_code == 200, answer.json
        found.append(dict(answer.json))
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return found


def listed(api: Api, **query: Any) -> list[dict[str, Any]]:
    return [item for page in pages(api, f"{PATH}/versions", **query) for item in page["items"]]


def names(api: Api, **query: Any) -> list[tuple[str, int]]:
    return [(item["key_id"], item["version"]) for item in listed(api, **query)]


def components(bom: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The components of an asset type, their crypto properties by reference."""
    found = {each["bom-ref"]: each["cryptoProperties"] for each in bom["components"]}
    member = {"algorithm": "algorithmProperties", "related-crypto-material": "relatedCryptoMaterialProperties"}[kind]
    return {ref: each[member] for ref, each in found.items() if each["assetType"] == kind}


def material(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return components(bom, "related-crypto-material")


def test_every_key_type_in_a_document_that_is_valid(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    with world.service.vault.change() as change:  # keys of any bytes: nothing here may open them
        for name, kind in KEY_TYPES.items():
            for at, purpose in enumerate(kind.purposes):
                spec = KeySpec(kind, "alice", f"{name}.{at}", usages=purpose)
                size = (kind.secret_bits + 7) // 8
                new_key(change, Cryptoperiods(), spec, KeyMaterial(bytes(size)), clock())
    (page,) = pages(alice, limit=1000)
    text = json.dumps(page["bom"])
    assert VALIDATOR.validate_str(text) is None
    algorithms, keys = components(page["bom"], "algorithm"), material(page["bom"])
    assert len(keys) == sum(len(kind.purposes) for kind in KEY_TYPES.values())
    for ref, key in keys.items():
        kind = KEY_TYPES[ref.split("/")[1].rpartition(".")[0]]
        algorithm = algorithms[key["algorithmRef"]]
        assert algorithm["nistQuantumSecurityLevel"] == kind.strength.category
        assert algorithm["classicalSecurityLevel"] == kind.strength.classical_bits
        assert algorithm["cryptoFunctions"]
        assert algorithm["primitive"] != "unknown"
        assert (key["state"], key["size"]) == ("active", kind.secret_bits)
        assert key["securedBy"]["algorithmRef"] in algorithms
    primitives = {ref.removesuffix("/1"): algorithms[key["algorithmRef"]]["primitive"] for ref, key in keys.items()}
    assert primitives["key/aes-256-gcm.0"] == "ae"
    assert primitives["key/aes-256-kw.0"] == "other", "key-wrap came with CycloneDX 1.7"
    assert [primitives[f"key/hmac-sha256.{at}"] for at in (0, 1)] == ["mac", "kdf"]
    assert [primitives[f"key/ec-p256.{at}"] for at in (0, 1, 2)] == ["signature", "key-agree", "pke"]
    assert primitives["key/rsa-2048.0"] == "pke"
    assert primitives["key/ml-kem-768.0"] == "kem"
    dependencies = {each["ref"]: each.get("dependsOn") for each in page["bom"]["dependencies"]}
    assert all(dependencies[ref] == [key["algorithmRef"]] for ref, key in keys.items())
    assert set(dependencies["kms"]) == set(algorithms)


def test_the_library_reads_what_is_written_beside_it(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    alice.post("/api/v1/keys", {"key_id": "signer", "type": "ec-p256"})
    alice.post("/api/v1/keys/signer/revoke", {"reason": "superseded"})
    bom = pages(alice)[0]["bom"]
    read: Any = Bom.from_json(bom)  # type: ignore[attr-defined]  # its decorator makes it
    again = json.loads(JsonV1Dot6(read).output_as_string())
    for document in (bom, again):
        for each in document["components"]:
            each["properties"].sort(key=lambda one: one["name"])
        document["components"].sort(key=lambda one: one["bom-ref"])
        document["dependencies"].sort(key=lambda one: one["ref"])
    assert json.loads(json.dumps(again).replace("+00:00", "Z")) == json.loads(json.dumps(bom).replace("+00:00", "Z"))


def test_states_dates_and_versions(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    later = (clock() + timedelta(days=3)).isoformat()
    alice.post("/api/v1/keys", {"key_id": "later", "activate_at": later})
    for key_id in ("held", "leaked", "gone", "plain"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    alice.post("/api/v1/keys/held/suspend")
    alice.post("/api/v1/keys/leaked/revoke", {"reason": "keyCompromise"})
    alice.post("/api/v1/keys/gone/rotate")
    alice.post("/api/v1/keys/gone/versions/1/destroy")
    (page,) = pages(alice)
    assert VALIDATOR.validate_str(json.dumps(page["bom"])) is None
    found = material(page["bom"])
    assert {ref: each["state"] for ref, each in found.items()} == {
        "key/gone/1": "destroyed",
        "key/gone/2": "active",
        "key/held/1": "suspended",
        "key/later/1": "pre-activation",
        "key/leaked/1": "compromised",
        "key/plain/1": "active",
    }
    assert "securedBy" not in found["key/gone/1"]
    assert found["key/held/1"]["updateDate"]
    assert "updateDate" not in found["key/plain/1"]
    shown = alice.get("/api/v1/keys/later").json["versions"][0]
    dates = {"activationDate": "activate_at", "creationDate": "created_at", "expirationDate": "expires_at"}
    assert all(found["key/later/1"][theirs] == shown[ours] for theirs, ours in dates.items())
    clock.advance(days=400)
    alice = world.login("alice", Role.USER)
    assert material(pages(alice)[0]["bom"])["key/plain/1"]["state"] == "deactivated"


def test_nothing_secret_is_in_it(world: World) -> None:
    alice = world.user("alice")
    canary = b"a canary of 32 bytes, not secret"
    body = {"key_id": "brought", "type": "aes-256-gcm", **wrapped_for(alice, canary)}
    assert alice.post("/api/v1/keys/import", body).status_code == 201
    text = json.dumps([pages(alice), listed(alice)])
    for form in (canary.hex(), b64(canary), canary.decode()):
        assert form not in text


@pytest.fixture
def world_on_either(tmp_path: Path, database_url: str, clock: SteeredClock) -> Iterator[World]:
    """A world on each kind of database in turn."""
    opened = Service.open(settings_for(tmp_path / "data", database_url=database_url), clock)
    yield World.of(opened)
    opened.close()


def test_pages_of_any_size_show_the_same(world_on_either: World) -> None:
    alice = world_on_either.user("alice")
    for key_id in ("a", "a.1", "b", "B", "z_z"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    for _ in range(4):
        alice.post("/api/v1/keys/a.1/rotate")
    whole = names(alice, limit=1000)
    assert len(whole) == 9
    assert len(set(whole)) == 9
    for limit in (1, 2, 3, 4, 8, 9):
        assert names(alice, limit=limit) == whole
        boms = [page["bom"] for page in pages(alice, limit=limit)]
        assert all(VALIDATOR.validate_str(json.dumps(bom)) is None for bom in boms)
        refs = [ref for bom in boms for ref in material(bom)]
        assert refs == [f"key/{key_id}/{version}" for key_id, version in whole]
    assert kind_of(alice.get(f"{PATH}?cursor=AAAA")) == "validation-failed"
    other = alice.get(f"{PATH}/versions?limit=1").json["next_cursor"]
    assert kind_of(alice.get(f"{PATH}?cursor={other}")) == "validation-failed", "a cursor is for its own list"


def test_one_request_looks_at_a_bounded_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.user("alice")
    for number in range(7):
        alice.post("/api/v1/keys", {"key_id": f"k{number}", "type": "hmac-sha256"})
    alice.post("/api/v1/keys", {"key_id": "last", "type": "ed25519"})
    monkeypatch.setattr(paging, "MOST_READ", 2)  # HMAC keys may be short, so each has to be looked at
    found = pages(alice, f"{PATH}/versions", limit=1, not_post_quantum_safe="true")
    assert [len(page["items"]) for page in found[:3]] == [0, 0, 0]
    assert [item["key_id"] for page in found for item in page["items"]] == ["last"]


def test_keys_of_others_are_not_named_and_cost_few_statements(
    world: World, clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key with a key policy has to be looked at for everybody; most of them are nothing to the caller."""
    eve, _ = world.user("eve"), world.user("zoe")
    whole = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kms:*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**whole, "Resource": "*"}]})
    kind = KEY_TYPES["xaes-256-gcm"]
    with world.service.vault.change() as change:
        for number in range(250):
            spec = KeySpec(kind, "zoe", f"secret-{number:03}", policy=policy)
            key, _version = new_key(change, Cryptoperiods(), spec, KeyMaterial(bytes(32)), clock())
            change.insert(Alias(f"secret:alias/{number:03}", key.uid, clock()))
    eve.post("/api/v1/keys", {"key_id": "zz-own"})
    eve.put("/api/v1/aliases/zz-alias", {"key_id": "zz-own"})
    statements: list[str] = []
    event.listen(world.service.vault.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    paths = "/api/v1/keys", f"{PATH}/versions", "/api/v1/aliases"
    for path in paths:
        statements.clear()
        assert [each["key_id"] for each in eve.get(f"{path}?limit=1").json["items"]] == ["zz-own"]
        assert len(statements) < 25, path
    monkeypatch.setattr(paging, "MOST_READ", 100)
    for path in paths:
        found = pages(eve, path, limit=1)
        assert [len(page["items"]) for page in found[:3]] == [0, 0, 1], path
        assert b"secret" not in urlsafe_b64decode(found[0]["next_cursor"] + "===")
    access = eve.post("/api/v1/access-keys", {}).json
    kms = aws_in_process.client(world, "kms", access)
    seen = kms.list_keys(Limit=1)
    assert (seen["Keys"], b"secret" in urlsafe_b64decode(seen["NextMarker"] + "===")) == ([], False)
    seen = kms.list_keys(Limit=1, Marker=kms.list_keys(Limit=1, Marker=seen["NextMarker"])["NextMarker"])
    assert [each["KeyId"] for each in seen["Keys"]] == ["zz-own"]
    with pytest.raises(kms.exceptions.InvalidMarkerException):
        kms.list_keys(Marker="secret-100")


def test_who_sees_what(world: World) -> None:
    alice, bob, carol = (world.user(name) for name in ("alice", "bob", "carol"))
    auditor = world.user("auditor", Role.AUDITOR)
    for key_id in ("shared", "own"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    bob.post("/api/v1/keys", {"key_id": "bob-s"})
    given = {"subject": "client:carol", "permissions": ["keys:read", "keys:encrypt"], "key_pattern": "shared"}
    assert alice.post("/api/v1/grants", given).status_code == 201
    carol = world.login("carol", Role.USER)
    assert names(alice) == [("own", 1), ("shared", 1)]
    assert names(bob) == [("bob-s", 1)]
    assert names(carol) == [("shared", 1)]
    assert names(auditor) == names(world.admin) == [("bob-s", 1), ("own", 1), ("shared", 1)]
    carol_s = [{"subject": "client:carol", "permissions": ["keys:encrypt"], "members": []}]
    assert [item.get("users") for item in listed(alice)] == [[], carol_s]
    assert [item.get("users") for item in listed(auditor)] == [[], [], carol_s]
    assert "users" not in listed(carol)[0], "who else may use a key is not for those who may"
    denied = {"subject": "client:auditor", "permission": "keys:read", "key_pattern": "own", "effect": "deny"}
    assert world.admin.post("/api/v1/grants", denied).status_code == 201
    assert names(auditor) == [("bob-s", 1), ("shared", 1)]
    narrow = auditor.post(
        "/auth/token",
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": auditor.headers["Authorization"].removeprefix("Bearer "),
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "scope": "keys:read@sha*",
        },
    ).json["access_token"]
    narrowed = Api(world.http, {"Authorization": f"Bearer {narrow}"}, "auditor")
    (item,) = listed(narrowed)
    assert item["key_id"] == "shared"
    assert "users" not in item, "its scope shows keys and no clients"


def test_who_uses_what_is_not_post_quantum_safe(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    world.enrol("bob")
    world.admin.put("/api/v1/groups/team", {"members": ["bob"]})
    for key_id, kind in (("aes", "aes-128-gcm"), ("signer", "ec-p256"), ("pq", "ml-dsa-65"), ("old", "ed25519")):
        alice.post("/api/v1/keys", {"key_id": key_id, "type": kind})
    alice.post("/api/v1/keys/old/versions/1/destroy")
    over = {"not_after": (clock() + timedelta(days=1)).isoformat()}
    for subject, conditions in (("group:team", None), ("client:bob", over), ("role:auditor", None)):
        body = {"subject": subject, "permission": "keys:sign", "key_pattern": "sig*", "conditions": conditions}
        assert alice.post("/api/v1/grants", {k: v for k, v in body.items() if v}).status_code == 201
    read_only = {"subject": "client:bob", "permission": "keys:read", "key_pattern": "*"}
    assert alice.post("/api/v1/grants", read_only).status_code == 201
    alice.post("/api/v1/keys/signer/sign", {"message": ""})
    used_at = clock().isoformat().replace("+00:00", "Z")
    clock.advance(days=2)
    world.service.last_uses.write()
    (item,) = listed(world.admin, not_post_quantum_safe="true")
    assert (item["key_id"], item["owner"], item["key_last_used_at"]) == ("signer", "alice", used_at)
    assert (item["nist_category"], item["classical_bits"]) == (0, 128)
    assert "Shor" in item["strength_source"]
    assert item["users"] == [
        {"subject": "group:team", "permissions": ["keys:sign"], "members": ["bob"]},
        {"subject": "role:auditor", "permissions": ["keys:sign"], "members": []},
    ]
    assert list(material(pages(world.admin, not_post_quantum_safe="true")[0]["bom"])) == ["key/signer/1"]


def test_an_owner_is_not_told_who_is_in_a_group(world: World) -> None:
    alice = world.user("alice")
    world.enrol("bob")
    world.admin.put("/api/v1/groups/team", {"members": ["bob"]})
    assert alice.get("/api/v1/groups/team").status_code == 403
    alice.post("/api/v1/keys", {"key_id": "orders"})
    alice.post("/api/v1/grants", {"subject": "group:team", "permission": "keys:encrypt", "key_pattern": "orders"})
    user = {"subject": "group:team", "permissions": ["keys:encrypt"]}
    assert listed(alice)[0]["users"] == [user]
    assert [each["users"] for each in listed(world.admin)] == [[{**user, "members": ["bob"]}]]


def test_a_key_is_as_weak_as_where_it_came_from(world: World) -> None:
    alice = world.user("alice")
    agreer = {"key_id": "agreer", "type": "x25519"}
    alice.post("/api/v1/keys", agreer)
    alice.post("/api/v1/keys", {"key_id": "peer", "type": "x25519"})
    peer = alice.get("/api/v1/keys/peer/public-key").json["public_key"]
    kept = {"key_id": "agreed", "type": "aes-256-gcm"}
    assert alice.post("/api/v1/keys/agreer/agree", {"peer_public_key": peer, "keep_as": kept}).status_code == 200
    for key_id, size in (("short", 15), ("middle", 16), ("long", 64)):
        body = {"key_id": key_id, "type": "hmac-sha256", **wrapped_for(alice, bytes(size))}
        assert alice.post("/api/v1/keys/import", body).status_code == 201
    assert [key_id for key_id, _ in names(alice, not_post_quantum_safe="true")] == [
        "agreed",
        "agreer",
        "peer",
        "short",
    ]
    shown = {item["key_id"]: (item["classical_bits"], item["nist_category"]) for item in listed(alice)}
    assert shown["agreed"] == (256, 0)
    assert (shown["short"], shown["middle"], shown["long"]) == ((120, 0), (128, 1), (256, 5))
    (page,) = pages(alice)
    algorithms, keys = components(page["bom"], "algorithm"), material(page["bom"])
    assert (keys["key/short/1"]["size"], keys["key/long/1"]["size"]) == (120, 512)
    levels = {ref: algorithms[key["algorithmRef"]]["nistQuantumSecurityLevel"] for ref, key in keys.items()}
    assert (levels["key/agreed/1"], levels["key/short/1"], levels["key/middle/1"], levels["key/long/1"]) == (
        0,
        0,
        1,
        5,
    )


def test_what_is_due(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "lives"})
    alice.post("/api/v1/keys", {"key_id": "ends", "cryptoperiod": "P20D"})
    alice.post("/api/v1/keys", {"key_id": "rotates", "cryptoperiod": "P20D", "rotation_period": "P10D"})
    alice.post("/api/v1/keys", {"key_id": "leaves", "cryptoperiod": "P20D"})
    alice.delete("/api/v1/keys/leaves", {})
    (item,) = listed(alice, due="true")
    assert (item["key_id"], item["is_latest"]) == ("ends", True)
    (said,) = item["due"]
    assert (said["period"], said["is_over"], said["ends_at"]) == ("originator-usage", False, item["expires_at"])
    assert listed(alice, due="true", within="P19D") == []
    assert {key_id for key_id, _ in names(alice, due="true", within="P366D")} == {"ends", "lives"}
    clock.advance(days=21)
    alice = world.login("alice", Role.USER)
    assert {item["key_id"]: item["due"][0]["is_over"] for item in listed(alice, due="true", within="P0D")} == {
        "ends": True,
        "rotates": True,  # nobody ran the schedule
    }
    alice.post("/api/v1/keys/ends/rotate")
    assert names(alice, due="true", within="P0D") == [("rotates", 1)]
    clock.advance(days=3 * 365)
    alice = world.login("alice", Role.USER)
    over = {(item["key_id"], item["version"]): item["due"] for item in listed(alice, due="true", within="P0D")}
    assert [each["period"] for each in over["ends", 1]] == ["recipient-usage"]
    assert "Destroy it" in over["ends", 1][0]["advice"]
    alice.post("/api/v1/keys/ends/versions/1/destroy")
    assert ("ends", 1) not in names(alice, due="true", within="P0D")
    assert listed(alice, due="true", not_post_quantum_safe="true") == []


@pytest.mark.parametrize("within", ["-P1D", "P9999D", "P99999999D", "soon"])
def test_within_is_a_period(world: World, within: str) -> None:
    for path in (PATH, f"{PATH}/versions"):
        assert kind_of(world.admin.get(f"{path}?within={within}")) == "validation-failed"
