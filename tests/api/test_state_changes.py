"""The life of a key: created as asked, trimmed, destroyed, deleted after a wait, and what each state allows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, b64, kind_of, unb64
from kms.access.model import Role
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.keys.model import KeyState, RevocationReason
from kms.message_quota import MessageQuota
from kms.operations.keys import key_factory
from kms.operations.system.schedule import Schedule
from kms.vault import tables
from kms.vault.checking import wrong_tables
from kms.vault.rows import MessageCount

KEY = "/api/v1/keys/orders"


def with_a_key(world: World) -> Api:
    api = world.user("alice")
    api.post("/api/v1/keys", {"key_id": "orders"})
    return api


@pytest.fixture
def alice(world: World) -> Api:
    return with_a_key(world)


@pytest.fixture(scope="module")
def refused(shared_world: World) -> Api:
    """A client with one key, who is refused every other."""
    return with_a_key(shared_world)


def renew(world: World, api: Api) -> None:
    """A new session, where the clock has passed the end of the old one."""
    api.headers.update(world.login(api.client_id, Role.USER).headers)


def sealed_by(api: Api, path: str = KEY) -> str:
    return str(api.post(f"{path}/encrypt", {"plaintext": "AAAA"}).json["ciphertext"])


def opens(api: Api, ciphertext: str, path: str = KEY, **more: Any) -> str:
    """`ok`, or the kind of the refusal."""
    answer = api.post(f"{path}/decrypt", {"ciphertext": ciphertext, **more})
    return "ok" if answer.status_code == 200 else kind_of(answer)


def test_a_key_is_made_as_asked(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    asked: dict[str, Any] = {
        "type": "aes-128-gcm", "key_id": "a.b-c_d", "usages": ["encrypt"], "exportable": True,
        "cryptoperiod": "P30D", "rotation_period": "P7D", "labels": {"env": "prod"}, "description": "what for",
    }  # fmt: skip
    answer = alice.post("/api/v1/keys", asked)
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/api/v1/keys/a.b-c_d"
    for name, value in asked.items():
        assert answer.json[name] == value, name
    assert (answer.json["owner"], answer.json["origin"], answer.json["state"]) == ("alice", "generated", "active")
    assert answer.json["expires_at"] == (clock.now + timedelta(days=30)).isoformat().replace("+00:00", "Z")
    unnamed = alice.post("/api/v1/keys", {}).json
    assert (len(unnamed["key_id"]), unnamed["type"]) == (36, "xaes-256-gcm")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"type": "rot13"}, "operation-not-supported"),
        ({"key_id": "orders"}, "already-exists"),
        ({"key_id": "bob_symmetric"}, "validation-failed"),
        ({"key_id": "-x"}, "validation-failed"),
        ({"usages": []}, "validation-failed"),
        ({"usages": ["sign"]}, "validation-failed"),
        ({"type": "ec-p256", "usages": ["sign", "agree"]}, "validation-failed"),
        ({"type": "hmac-sha256", "usages": ["mac", "derive"]}, "validation-failed"),
        ({"usages": ["fly"]}, "validation-failed"),
        ({"cryptoperiod": "PT0S"}, "validation-failed"),
        ({"cryptoperiod": "P999999D"}, "validation-failed"),
        ({"rotation_period": "-P1D"}, "validation-failed"),
        ({"activate_at": "2001-01-01T00:00:00Z"}, "validation-failed"),
        ({"activate_at": "2030-01-01T00:00:00"}, "validation-failed"),
        ({"activate_at": "9999-01-01T00:00:00Z"}, "validation-failed"),
        ({"labels": {"x": 1}}, "validation-failed"),
        ({"description": "x" * 8193}, "validation-failed"),
        ({"owner": "nobody"}, "permission-denied"),
        ({"colour": "red"}, "validation-failed"),
    ],
)
def test_what_cannot_be_made_is_refused(refused: Api, body: dict[str, Any], expected: str) -> None:
    assert kind_of(refused.post("/api/v1/keys", body)) == expected
    assert [key["key_id"] for key in refused.get("/api/v1/keys").json["items"]] == ["orders"]


def test_administrators_make_keys_for_others_and_do_not_use_them(world: World, alice: Api) -> None:
    admin = world.admin
    made = admin.post("/api/v1/keys", {"key_id": "alice_symmetric", "owner": "alice"})
    assert made.json["owner"] == "alice"
    assert kind_of(admin.post("/api/v1/keys/alice_symmetric/encrypt", {"plaintext": ""})) == "permission-denied"
    assert alice.post("/api/v1/keys/alice_symmetric/encrypt", {"plaintext": ""}).status_code == 200
    assert alice.post("/generate_symmetric_key").json["version"] == 2
    assert kind_of(admin.post("/api/v1/keys", {"owner": "nobody"})) == "not-found"


def test_activation(world: World, alice: Api, clock: SteeredClock) -> None:
    later = (clock.now + timedelta(hours=1)).isoformat()
    made = alice.post("/api/v1/keys", {"key_id": "later", "activate_at": later}).json
    assert made["state"] == "pre-activation"
    refused = alice.post("/api/v1/keys/later/encrypt", {"plaintext": ""})
    assert kind_of(refused) == "key-state"
    assert "becomes active at" in refused.json["detail"]
    assert kind_of(alice.post("/api/v1/keys/later/rotate")) == "key-state"
    clock.advance(hours=2)
    renew(world, alice)
    assert alice.post("/api/v1/keys/later/encrypt", {"plaintext": ""}).status_code == 200
    assert alice.get("/api/v1/keys/later").json["state"] == "active"


def test_lists_are_filtered(world: World, alice: Api, clock: SteeredClock) -> None:
    for key_id, body in (
        ("a1", {"type": "ec-p256", "labels": {"env": "prod", "team": "pay"}}),
        ("a2", {"labels": {"env": "test"}}),
        ("b1", {"labels": {"env": 'prod","team":"pay'}, "cryptoperiod": "PT1H"}),
        ("b2", {"activate_at": (clock.now + timedelta(days=1)).isoformat()}),
    ):
        assert alice.post("/api/v1/keys", {"key_id": key_id, **body}).status_code == 201
    clock.advance(hours=2)
    renew(world, alice)

    def ids(query: str) -> list[str]:
        return [key["key_id"] for key in alice.get(f"/api/v1/keys?{query}").json["items"]]

    assert ids("type=ec-p256") == ["a1"]
    assert ids("prefix=a") == ["a1", "a2"]
    assert ids("label=env") == ["a1", "a2", "b1"]
    assert ids("label=env:prod") == ["a1"]
    assert ids("label=team:pay") == ["a1"]
    assert ids("label=%25") == []
    assert ids("state=active") == ["a1", "a2", "orders"]
    assert ids("state=deactivated") == ["b1"]
    assert ids("state=pre-activation") == ["b2"]
    assert ids("state=active&prefix=a&label=env:test&owner=alice") == ["a2"]
    alice.post("/api/v1/keys/a2/suspend")
    assert ids("state=suspended") == ["a2"]
    assert alice.get("/api/v1/keys?state=asleep").status_code == 422


def test_versions_are_listed_in_pages(alice: Api) -> None:
    for _ in range(4):
        alice.post(f"{KEY}/rotate")
    first = alice.get(f"{KEY}/versions?limit=2").json
    assert [each["version"] for each in first["items"]] == [5, 4]
    rest = alice.get(f"{KEY}/versions?limit=9&cursor={first['next_cursor']}").json
    assert [each["version"] for each in rest["items"]] == [3, 2, 1]
    assert rest["next_cursor"] is None


@pytest.mark.slow
def test_ten_thousand_versions_neither_slow_nor_break_a_rotation(
    world: World, alice: Api, clock: SteeredClock
) -> None:

    kind = key_type("xaes-256-gcm")
    first = sealed_by(alice)
    service = world.service
    with service.vault.change() as change:
        key = change.key_by_id("orders")
        assert key is not None
        for _ in range(9_998):
            key, _ = key_factory.next_version(
                change, service.cryptoperiods, key, kind, KeyMaterial.of(kind, kind.generate()), clock()
            )
    before = len(alice.get(KEY).data)
    rotated = alice.post(f"{KEY}/rotate").json
    assert rotated["latest_version"] == 10_000
    assert len(rotated["versions"]) == 100
    assert len(alice.get(KEY).data) < before + 1000
    assert opens(alice, first) == opens(alice, sealed_by(alice)) == "ok"
    assert alice.get(f"{KEY}/versions?limit=1000").json["items"][-1]["version"] == 9_001
    trimmed = alice.post(f"{KEY}/trim", {"oldest_version": 9_999}).json
    assert [each["version"] for each in trimmed["versions"]] == [9_999, 10_000]
    assert wrong_tables(service.vault) == []


def test_trimming(alice: Api) -> None:
    old = sealed_by(alice)
    alice.post(f"{KEY}/rotate")
    new = sealed_by(alice)
    assert kind_of(alice.post(f"{KEY}/trim", {"oldest_version": 3})) == "validation-failed"
    assert alice.post(f"{KEY}/trim", {"oldest_version": 2}).json["oldest_version"] == 2
    assert (opens(alice, old), opens(alice, new)) == ("key-state", "ok")
    assert kind_of(alice.post(f"{KEY}/trim", {"oldest_version": 1})) == "validation-failed"
    assert kind_of(alice.patch(KEY, {"min_process_version": 1})) == "validation-failed"


def test_lowest_versions(alice: Api) -> None:
    old = sealed_by(alice)
    alice.post(f"{KEY}/rotate")
    new = sealed_by(alice)
    changed = alice.patch(KEY, {"min_process_version": 2, "min_protect_version": 2}).json
    assert (changed["min_process_version"], changed["min_protect_version"]) == (2, 2)
    assert (opens(alice, old), opens(alice, new)) == ("key-state", "ok")
    alice.patch(KEY, {"min_process_version": 1})
    assert opens(alice, old) == "ok"
    for wrong in ({"min_process_version": 3}, {"min_protect_version": 3}, {"min_process_version": 0}):
        assert kind_of(alice.patch(KEY, wrong)) == "validation-failed"
    assert kind_of(alice.patch(KEY, {"min_process_version": 2, "min_protect_version": 1})) == "validation-failed"


def test_destroying_a_version_erases_its_material_and_keeps_the_rest(world: World, alice: Api) -> None:
    old = sealed_by(alice)
    alice.post(f"{KEY}/rotate")
    new = sealed_by(alice)
    destroyed = alice.post(f"{KEY}/versions/1/destroy").json["versions"]
    assert [each["state"] for each in destroyed] == ["destroyed", "active"]
    assert alice.post(f"{KEY}/versions/1/destroy").status_code == 200
    assert (opens(alice, old), opens(alice, new)) == ("key-state", "ok")
    assert kind_of(alice.post(f"{KEY}/versions/3/destroy")) == "not-found"
    assert kind_of(alice.post(f"{KEY}/versions/99999999999999999999/destroy")) == "not-found"
    with world.service.vault.read() as snapshot:
        key = snapshot.key_by_id("orders")
        assert key is not None
        assert [version.material is None for version in snapshot.versions(key)] == [True, False]


def test_deletion_waits_and_can_be_cancelled(world: World, alice: Api, clock: SteeredClock) -> None:
    ciphertext = sealed_by(alice)
    schedule = Schedule(world.service)
    for wrong in ("PT1H", "P366D", "soon"):
        assert kind_of(alice.delete(KEY, {"waiting_period": wrong})) == "validation-failed"
    deleted = alice.delete(KEY, {"waiting_period": "P7D"}).json
    assert deleted["deletion_at"] == (clock.now + timedelta(days=7)).isoformat().replace("+00:00", "Z")
    assert opens(alice, ciphertext) == kind_of(alice.post(f"{KEY}/encrypt", {"plaintext": ""})) == "key-state"
    assert kind_of(alice.post(f"{KEY}/rotate")) == kind_of(alice.delete(KEY)) == "key-state"
    clock.advance(days=6)
    schedule.tick()
    renew(world, alice)
    assert alice.post(f"{KEY}/cancel-deletion").json["deletion_at"] is None
    assert kind_of(alice.post(f"{KEY}/cancel-deletion")) == "key-state"
    assert opens(alice, ciphertext) == "ok"
    alice.put("/api/v1/aliases/current", {"key_id": "orders"})
    alice.delete(KEY)
    clock.advance(days=29)
    schedule.tick()
    clock.advance(days=2)
    schedule.tick()
    with world.service.vault.read() as snapshot:
        assert snapshot.key_named("orders") is snapshot.key_named("current") is None
        for table in (tables.key_versions, tables.aliases, tables.message_counts):
            assert snapshot.connection.execute(table.select()).all() == []
        entries = [row.entry for row in snapshot.connection.execute(tables.audit_outbox.select())]
    assert any('"operation":"scheduled_deletion"' in entry and '"key_id":"orders"' in entry for entry in entries)
    assert wrong_tables(world.service.vault) == []


STATES = {
    # state: (protects, processes), by SP 800-57 part 1, section 7
    KeyState.PRE_ACTIVATION: (False, False),
    KeyState.ACTIVE: (True, True),
    KeyState.SUSPENDED: (False, False),
    KeyState.DEACTIVATED: (False, True),
    KeyState.COMPROMISED: (False, False),
    KeyState.DESTROYED: (False, False),
}


@pytest.mark.parametrize("state", KeyState)
def test_who_may_do_what_in_each_state(alice: Api, clock: SteeredClock, state: KeyState) -> None:
    protects, processes = STATES[state]
    ciphertext = sealed_by(alice)
    if state is KeyState.SUSPENDED:
        alice.post(f"{KEY}/suspend")
    elif state is KeyState.DEACTIVATED:
        clock.advance(minutes=30)
        alice.patch(KEY, {})
        alice.post(f"{KEY}/revoke", {"reason": "cessationOfOperation"})
    elif state is KeyState.COMPROMISED:
        alice.post(f"{KEY}/revoke", {})
    elif state is KeyState.DESTROYED:
        alice.post(f"{KEY}/versions/1/destroy")
    elif state is KeyState.PRE_ACTIVATION:
        alice.post("/api/v1/keys", {"key_id": "later", "activate_at": (clock.now + timedelta(days=1)).isoformat()})
        assert kind_of(alice.post("/api/v1/keys/later/encrypt", {"plaintext": ""})) == "key-state"
        return
    assert alice.get(KEY).json["state"] == state
    assert (alice.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200) is protects
    assert (opens(alice, ciphertext) == "ok") is processes


def test_recovery_needs_the_permission_that_only_an_administrator_grants(world: World, alice: Api) -> None:
    ciphertext = sealed_by(alice)
    alice.post(f"{KEY}/revoke", {"reason": str(RevocationReason.KEY_COMPROMISE)})
    assert opens(alice, ciphertext) == "key-revoked"
    assert opens(alice, ciphertext, recover=True) == "permission-denied"
    grant = {"subject": "client:alice", "permission": "keys:recover", "key_pattern": "orders", "owner": "alice"}
    assert kind_of(alice.post("/api/v1/grants", grant)) == "permission-denied"
    admin = world.admin
    assert admin.post("/api/v1/grants", grant).status_code == 201
    assert opens(alice, ciphertext) == "key-revoked"
    assert opens(alice, ciphertext, recover=True) == "ok"
    assert kind_of(alice.post(f"{KEY}/encrypt", {"plaintext": ""})) == "key-revoked"
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    recoveries = [entry["outcome"] for entry in entries if entry.get("recovery")]
    assert recoveries == ["permission-denied", "success"]
    admin.post("/api/v1/grants", {**grant, "subject": "client:admin"})
    assert opens(admin, ciphertext, recover=True) == "permission-denied"
    others = {**grant, "permission": "keys:decrypt", "subject": "client:admin"}
    assert kind_of(admin.post("/api/v1/grants", others)) == "permission-denied"


def test_messages_are_counted_and_the_key_rotates_by_itself(
    world: World, alice: Api, clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("/api/v1/keys", {"key_id": "counted", "type": "aes-256-gcm"})
    path = "/api/v1/keys/counted"
    first = sealed_by(alice, path)
    with world.service.vault.change() as change:
        key = change.key_by_id("counted")
        assert key is not None
        (count,) = change.select(MessageCount)
        assert (count.version, count.claimed) == (1, 65_536)
        change.replace(count, MessageCount(key.uid, 1, (1 << 31)))
    world.service.message_quota = MessageQuota(world.service.vault, clock)  # a worker that starts anew
    assert alice.get(path).json["next_rotation_at"] is None
    sealed_by(alice, path)
    assert alice.get(path).json["next_rotation_at"] is not None
    Schedule(world.service).tick()
    assert alice.get(path).json["latest_version"] == 2
    assert opens(alice, first, path) == "ok"
    with world.service.vault.change() as change:
        change.insert(MessageCount(key.uid, 2, (1 << 32) - 1))
    refused = alice.post(f"{path}/encrypt", {"plaintext": ""})
    assert kind_of(refused) == "key-expired"
    assert "Rotate" in refused.json["detail"]
    assert alice.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200  # no limit there


def test_aliases(world: World, alice: Api) -> None:
    assert alice.put("/api/v1/aliases/current", {"key_id": "orders"}).json["key_id"] == "orders"
    made = alice.post("/api/v1/keys/current/encrypt", {"plaintext": "AAAA"}).json
    assert made["key_id"] == "orders"
    assert opens(alice, made["ciphertext"], "/api/v1/keys/current") == "ok"
    assert alice.get("/api/v1/keys/current").json["aliases"] == ["current"]
    bob = world.user("bob")
    bob.post("/api/v1/keys", {"key_id": "bobs"})
    for refused in (
        bob.post("/api/v1/keys/current/encrypt", {"plaintext": ""}),
        bob.delete("/api/v1/aliases/current"),
    ):
        assert kind_of(refused) == "not-found"
        assert "orders" not in refused.json["detail"]
    assert kind_of(bob.put("/api/v1/aliases/current", {"key_id": "bobs"})) == "already-exists"
    assert bob.get("/api/v1/aliases").json["items"] == []
    assert kind_of(bob.put("/api/v1/aliases/orders", {"key_id": "bobs"})) == "already-exists"
    assert kind_of(bob.post("/api/v1/keys", {"key_id": "current"})) == "already-exists"
    for wrong in ("bob_rsa", "-x", "a b"):
        assert bob.put(f"/api/v1/aliases/{wrong}", {"key_id": "bobs"}).status_code in (404, 422)
    alice.post("/api/v1/keys", {"key_id": "newer"})
    alice.put("/api/v1/aliases/current", {"key_id": "newer"})
    assert alice.post("/api/v1/keys/current/encrypt", {"plaintext": ""}).json["key_id"] == "newer"
    for name in ("a", "b", "c"):
        alice.put(f"/api/v1/aliases/{name}", {"key_id": "orders"})
    page = alice.get("/api/v1/aliases?limit=2").json
    assert [each["alias"] for each in page["items"]] == ["a", "b"]
    cursor = page["next_cursor"]
    page = alice.get(f"/api/v1/aliases?limit=2&cursor={cursor}").json
    assert ([each["alias"] for each in page["items"]], page["next_cursor"]) == (["c", "current"], None)
    assert alice.delete("/api/v1/aliases/current").status_code == 200
    assert kind_of(alice.get("/api/v1/keys/current")) == "not-found"


@pytest.mark.parametrize("name", ["rsa-2048", "ec-p256", "ed25519", "x25519", "ml-dsa-44", "ml-kem-768", "ffdhe2048"])
def test_public_keys_in_each_form(alice: Api, name: str) -> None:
    alice.post("/api/v1/keys", {"key_id": "pair", "type": name})
    path = "/api/v1/keys/pair/public-key"
    pem = alice.get(path).json
    assert pem["public_key"] == alice.get("/api/v1/keys/pair").json["versions"][0]["public_key"]
    jwk = alice.get(f"{path}?format=jwk")
    assert (jwk.status_code == 200) is (name != "ffdhe2048")
    ssh = alice.get(f"{path}?format=ssh")
    assert (ssh.status_code == 200) is (name in {"rsa-2048", "ec-p256", "ed25519"}), ssh.json
    assert alice.get(f"{path}?version=2").status_code == 422
    assert kind_of(alice.get(f"{KEY}/public-key")) == "operation-not-supported"


def test_rewrapping_to_another_key(world: World, alice: Api) -> None:
    bob = world.user("bob")
    alice.post("/api/v1/keys", {"key_id": "second"})
    body = {"ciphertext": sealed_by(alice), "to_key_id": "second", "to_associated_data": "AAAA"}
    moved = alice.post(f"{KEY}/rewrap", body).json
    assert moved["key_id"] == "second"
    assert opens(alice, moved["ciphertext"], "/api/v1/keys/second", associated_data="AAAA") == "ok"
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:rewrap", "key_pattern": "orders"})
    assert bob.post(f"{KEY}/rewrap", {"ciphertext": body["ciphertext"]}).status_code == 200
    bob.post("/api/v1/keys", {"key_id": "bobs"})
    to_bob = {"ciphertext": body["ciphertext"], "to_key_id": "bobs"}
    assert kind_of(bob.post(f"{KEY}/rewrap", to_bob)) == "permission-denied"  # that would be reading
    alice.post(f"{KEY}/rotate")
    renewed = alice.post(f"{KEY}/rewrap", {"ciphertext": body["ciphertext"]}).json
    assert renewed["version"] == 2
    assert unb64(renewed["ciphertext"])[17:21] == (2).to_bytes(4)


def test_batches(alice: Api) -> None:
    good = {"plaintext": b64(b"one")}
    answer = alice.post(f"{KEY}/encrypt", {"items": [good, {"plaintext": "no base64!"}, {}, good, {"plain": ""}, 7]})
    assert answer.status_code == 200
    kinds = [each.get("error", {}).get("type") for each in answer.json["items"]]
    wrong = "/problems/validation-failed"
    assert kinds == [None, wrong, wrong, None, wrong, wrong]
    request_ids = {each["error"]["request_id"] for each in answer.json["items"] if "error" in each}
    assert request_ids == {answer.headers["X-Request-Id"]}
    ciphertexts = [{"ciphertext": each["ciphertext"]} for each in answer.json["items"] if "ciphertext" in each]
    opened = alice.post(f"{KEY}/decrypt", {"items": [{"ciphertext": "AAAA"}, *ciphertexts]}).json["items"]
    assert [each.get("plaintext", "failed") for each in opened] == ["failed", b64(b"one"), b64(b"one")]
    assert len(alice.post(f"{KEY}/encrypt", {"items": [good] * 1000}).json["items"]) == 1000
    for wrong_batch in ({"items": [good] * 1001}, {"items": []}, {"items": good}, {"items": [good], "plaintext": ""}):
        assert kind_of(alice.post(f"{KEY}/encrypt", wrong_batch)) == "validation-failed"
    assert kind_of(alice.post("/api/v1/keys/none/encrypt", {"items": [good]})) == "not-found"
    assert kind_of(alice.post(f"{KEY}/sign", {"items": [{"message": ""}]})) == "operation-not-supported"


def test_a_batch_leaves_one_entry_with_its_counts(world: World, alice: Api) -> None:
    alice.post(f"{KEY}/encrypt", {"items": [{"plaintext": ""}, {}, {"plaintext": ""}]})
    entries = world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    (entry,) = [each for each in entries if each["operation"] == "encrypt"]
    assert (entry["items"], entry["refused"], entry["key_id"], entry["outcome"]) == (3, 1, "orders", "success")


def test_slow_items_count_one_by_one(world: World, alice: Api) -> None:
    pair = {"type": "ec-p256", "with_plaintext": False}
    refused = alice.post(f"{KEY}/data-key-pair", {"items": [pair] * 400})
    assert kind_of(refused) == "rate-limited"
    assert int(refused.headers["Retry-After"]) >= 1
