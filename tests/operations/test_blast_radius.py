"""The blast radius of a key: who used which version since when, and who has its material."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, b64, kind_of
from kms.access.model import Role
from kms.operations.keys.state_changes import remove

KEY = "/api/v1/keys/orders"
RADIUS = f"{KEY}/blast-radius"


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    api.post("/api/v1/keys", {"key_id": "orders", "exportable": True})
    return api


@pytest.fixture
def bob(world: World, alice: Api) -> Api:
    """A client that may encrypt."""
    world.enrol("bob")
    given = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "orders"}
    assert alice.post("/api/v1/grants", given).status_code == 201
    return world.login("bob", Role.USER)


def shown(world: World, query: str = "") -> dict[str, Any]:
    return dict(world.admin.get(f"{RADIUS}{query}").json)


def uses(world: World, query: str = "", member: str = "used_by") -> dict[tuple[str, int | None], tuple[int, Any]]:
    """How many messages and which operations, by client and version."""
    found = shown(world, query)[member]
    return {(each["client_id"], each["version"]): (each["messages"], each["operations"]) for each in found}


@pytest.mark.parametrize("is_next_key_gone", [False, True])
def test_the_next_key_of_a_name_is_another_key(
    world: World, alice: Api, clock: SteeredClock, is_next_key_gone: bool
) -> None:
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    clock.advance(minutes=1)
    renamed = alice.delete(KEY, {"release_name": True}).json["key_id"]
    clock.advance(minutes=1)
    carol = world.user("carol")
    assert carol.post("/api/v1/keys", {"key_id": "orders"}).status_code == 201
    assert carol.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200
    if is_next_key_gone:
        with world.service.vault.change() as change:
            key = change.key_by_id("orders")
            assert key is not None
            remove(change, key)
    answer = world.admin.get(f"/api/v1/keys/{renamed}/blast-radius").json
    assert [each["client_id"] for each in answer["used_by"]] == ["alice"]


def test_who_used_which_version_since_when(world: World, alice: Api, bob: Api, clock: SteeredClock) -> None:
    began = clock()
    sealed = bob.post(f"{KEY}/encrypt", {"plaintext": b64(b"one")}).json["ciphertext"]
    clock.advance(minutes=10)
    alice.post(f"{KEY}/rotate")
    bob.post(f"{KEY}/encrypt", {"plaintext": ""})
    clock.advance(minutes=10)
    alice.post(f"{KEY}/decrypt", {"ciphertext": sealed})
    bob.post(f"{KEY}/encrypt", {"plaintext": ""})
    assert kind_of(bob.post(f"{KEY}/decrypt", {"ciphertext": sealed})) == "permission-denied"
    assert shown(world)["entries"] == 6, "made, rotated, four uses; what policy refuses names no key"
    assert uses(world) == {
        ("alice", 1): (1, {"decrypt": 1}),
        ("bob", 1): (1, {"encrypt": 1}),
        ("bob", 2): (2, {"encrypt": 2}),
    }
    first = next(each for each in shown(world)["used_by"] if (each["client_id"], each["version"]) == ("bob", 2))
    times = [(datetime.fromisoformat(first[name]) - began).total_seconds() for name in ("first_at", "last_at")]
    assert times == [600, 1200]
    assert set(uses(world, "?version=1")) == {("alice", 1), ("bob", 1)}
    since = (clock()).isoformat().replace("+00:00", "Z")
    assert set(uses(world, f"?since={since}")) == {("alice", 1), ("bob", 2)}
    answer = shown(world)
    assert (answer["owner"], answer["latest_version"]) == ("alice", 2)
    assert answer["users"] == [{"subject": "client:bob", "permissions": ["keys:encrypt"], "members": []}]
    assert datetime.fromisoformat(answer["read_since"]) == began


def test_a_batch_names_the_versions_that_it_used(world: World, alice: Api, bob: Api) -> None:
    items = [{"plaintext": ""}, {"plaintext": 5}, {"plaintext": ""}]
    first = bob.post(f"{KEY}/encrypt", {"items": items}).json["items"][0]
    bob.post(f"{KEY}/encrypt", {"items": [{"plaintext": 5}]})
    assert uses(world) == {("bob", 1): (2, {"encrypt": 1})}
    alice.post(f"{KEY}/rotate")
    second = alice.post(f"{KEY}/encrypt", {"items": [{"plaintext": ""}]}).json["items"][0]
    assert uses(world, "?version=2") == {("alice", 2): (1, {"encrypt": 1})}
    sealed = [{"ciphertext": each["ciphertext"]} for each in (first, second, first)]
    alice.post(f"{KEY}/decrypt", {"items": sealed})
    of_both = {("alice", None): (3, {"decrypt": 1})}
    assert uses(world, "?version=1") == {("bob", 1): (2, {"encrypt": 1})} | of_both
    assert uses(world, "?version=2") == {("alice", 2): (1, {"encrypt": 1})} | of_both
    for version in (1, 2):
        found = world.admin.get(f"/api/v1/audit/entries?key_id=orders&version={version}").json["items"]
        assert [each.get("versions") for each in found if each["operation"] == "decrypt"] == [[1, 2]]


def test_who_has_the_material(world: World, alice: Api, bob: Api) -> None:
    bob.post(f"{KEY}/encrypt", {"plaintext": ""})
    alice.post(f"{KEY}/backup", {})
    alice.post("/generate_symmetric_key")
    assert uses(world, member="material_held_by") == {("alice", None): (1, {"backup_key": 1})}
    found = world.admin.get("/api/v1/keys/alice_symmetric/blast-radius").json
    assert [each["operations"] for each in found["material_held_by"]] == [{"generate_symmetric_key": 1}]
    assert found["used_by"] == []


def test_an_older_key_of_the_same_name_is_another(world: World, alice: Api, clock: SteeredClock) -> None:
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    with world.service.vault.change() as change:
        key = change.key_by_id("orders")
        assert key is not None
        remove(change, key)
    clock.advance(seconds=1)
    alice.post("/api/v1/keys", {"key_id": "orders"})
    assert shown(world)["used_by"] == []
    alice.post("/api/v1/keys", {"key_id": "orders-2"})
    alice.post("/api/v1/keys/orders-2/encrypt", {"plaintext": ""})
    assert shown(world)["used_by"] == []
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    assert list(uses(world)) == [("alice", 1)]


def test_it_is_for_those_who_read_the_audit_log(world: World, alice: Api) -> None:
    assert kind_of(alice.get(RADIUS)) == "permission-denied"
    assert world.user("carl", Role.AUDITOR).get(RADIUS).status_code == 200
    assert kind_of(world.admin.get("/api/v1/keys/nothing/blast-radius")) == "not-found"
    assert kind_of(world.admin.get(f"{RADIUS}?version=0")) == "validation-failed"
