"""Many keys in one transaction: made, rotated, revoked; what is refused leaves nothing and the others alone."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, kind_of
from kms.operations.system.schedule import rotate_due_keys
from kms.vault.checking import wrong_tables


@pytest.fixture
def alice(world: World) -> Api:
    return world.user("alice")


def counter(world: World) -> int:
    with world.service.vault.read() as snapshot:
        return snapshot.head().counter


def shown(items: list[dict[str, Any]], member: str) -> list[Any]:
    """That member of each item, or the problem type of an error."""
    return [each["error"]["type"].removeprefix("/problems/") if "error" in each else each[member] for each in items]


def test_a_batch_of_new_keys_is_one_commit(world: World, alice: Api) -> None:
    alice.get("/api/v1/keys")
    before = counter(world)
    wanted: list[Any] = [{"key_id": f"k{number}"} for number in range(20)]
    wanted += [{"key_id": "k3"}, {"key_id": "bob_rsa"}, {"type": "no such type"}, {"typ": "x"}, 7]
    wanted += [{"key_id": "pair", "type": "ec-p256"}, {"owner": "bob"}]
    answer = alice.post("/api/v1/keys", {"items": wanted})
    assert answer.status_code == 201
    refused = ["already-exists", "validation-failed", "operation-not-supported", *["validation-failed"] * 2]
    expected = [*(f"k{number}" for number in range(20)), *refused, "pair", "permission-denied"]
    assert shown(answer.json["items"], "key_id") == expected
    assert counter(world) == before + 1
    assert alice.post("/api/v1/keys/k7/encrypt", {"plaintext": ""}).status_code == 200
    assert alice.post("/api/v1/keys/pair/sign", {"message": ""}).status_code == 200
    assert wrong_tables(world.service.vault) == []
    entries = [
        e for e in world.admin.get("/api/v1/audit/entries?limit=1000").json["items"] if e["operation"] == "create_key"
    ]
    made = {entry["key_id"] for entry in entries if "key_id" in entry}
    assert made == {f"k{number}" for number in range(20)} | {"pair"}
    (summary,) = [entry for entry in entries if "items" in entry]
    assert (summary["items"], summary["refused"]) == (27, 6)


def test_a_batch_of_rotations(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"items": [{"key_id": f"k{number}"} for number in range(3)]})
    alice.post("/api/v1/keys/k1/suspend")
    bob = world.user("bob")
    bob.post("/api/v1/keys", {"key_id": "of-bob"})
    before = counter(world)
    names = ["k0", "k1", "k2", "none", "of-bob", "k0"]
    items = alice.post("/api/v1/keys/rotate", {"items": [{"key_id": name} for name in names]}).json["items"]
    assert shown(items, "latest_version") == [2, "key-state", 2, "not-found", "not-found", 3]
    assert counter(world) == before + 1
    assert alice.post("/api/v1/keys/k0/encrypt", {"plaintext": ""}).json["version"] == 3
    assert alice.post("/api/v1/keys/rotate", {"key_id": "k2"}).json["latest_version"] == 3
    assert wrong_tables(world.service.vault) == []


def test_a_batch_of_revocations(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"items": [{"key_id": f"k{number}"} for number in range(4)]})
    for number in range(4):
        assert alice.post(f"/api/v1/keys/k{number}/encrypt", {"plaintext": ""}).status_code == 200
    items = [{"key_id": "k0"}, {"key_id": "k1", "reason": "superseded"}, {"key_id": "none"}]
    answer = alice.post("/api/v1/keys/revoke", {"items": items})
    assert shown(answer.json["items"], "state") == ["compromised", "deactivated", "not-found"]
    statuses = [alice.post(f"/api/v1/keys/k{number}/encrypt", {"plaintext": ""}).status_code for number in range(4)]
    assert statuses == [403, 403, 200, 200]
    listed = alice.get("/revocation_list").json["revoked_keys"]
    assert [(each["key_id"], each["reason"]) for each in listed] == [("k0", "keyCompromise"), ("k1", "superseded")]
    assert kind_of(alice.post("/api/v1/keys/revoke", {"key_id": "none"})) == "not-found"
    assert wrong_tables(world.service.vault) == []


def test_keys_that_were_made_together_fall_due_apart_and_none_is_forgotten(
    world: World, alice: Api, clock: SteeredClock
) -> None:
    items = [{"key_id": f"k{number}", "rotation_period": "P30D"} for number in range(120)]
    made = alice.post("/api/v1/keys", {"items": items}).json["items"]
    assert len({each["next_rotation_at"] for each in made}) > 100
    alice.post("/api/v1/keys/k5/suspend")
    alice.post("/api/v1/keys/k6/revoke")
    clock.advance(days=30)
    before = counter(world)
    rotate_due_keys(world.service, clock())
    versions = {
        each["key_id"]: each["latest_version"]
        for each in world.login("alice").get("/api/v1/keys?limit=1000").json["items"]
    }
    assert {key_id for key_id, version in versions.items() if version == 1} == {"k5", "k6"}
    assert counter(world) - before < 20  # many in one transaction
    assert wrong_tables(world.service.vault) == []
