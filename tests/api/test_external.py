"""Keys whose material is lent: it comes wrapped, ends when it was said to, and can be taken back and come again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, b64, kind_of
from helpers.transfer import wrapped_for
from kms.keys.model import KeyVersion
from kms.operations.keys.state_changes import remove
from kms.operations.system.schedule import remove_old_rows
from kms.vault.checking import wrong_tables

MATERIAL = bytes(range(32))
KEY = "/api/v1/keys/lent"


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    made = api.post("/api/v1/keys/external", {"key_id": "lent"})
    assert (made.status_code, made.headers["Location"]) == (201, KEY)
    assert (made.json["origin"], made.json["state"], made.json["pending_import"]) == (
        "imported",
        "pre-activation",
        True,
    )
    return api


def lend(api: Api, material: bytes = MATERIAL, **more: Any) -> Any:
    return api.post(f"{KEY}/material", {**wrapped_for(api, material), **more})


def test_it_works_from_when_its_material_has_come(alice: Api) -> None:
    plain = {"plaintext": b64(b"x")}
    assert kind_of(alice.post(f"{KEY}/encrypt", plain)) == "key-state"
    shown = lend(alice)
    assert (shown.status_code, shown.json["state"], shown.json["pending_import"]) == (200, "active", False)
    sealed = alice.post(f"{KEY}/encrypt", plain).json["ciphertext"]
    back = alice.delete(f"{KEY}/material")
    assert (back.json["state"], back.json["pending_import"]) == ("pre-activation", True)
    for operation, body in (("encrypt", plain), ("decrypt", {"ciphertext": sealed})):
        assert kind_of(alice.post(f"{KEY}/{operation}", body)) == "key-state"
    assert kind_of(alice.delete(f"{KEY}/material")) == "key-state"
    assert lend(alice).status_code == 200
    assert alice.post(f"{KEY}/decrypt", {"ciphertext": sealed}).json["plaintext"] == plain["plaintext"]


def test_the_lists_show_it_in_the_state_that_it_has(alice: Api) -> None:
    def found(state: str) -> list[str]:
        return [key["state"] for key in alice.get(f"/api/v1/keys?state={state}").json["items"]]

    assert (found("pre-activation"), found("active")) == (["pre-activation"], [])
    assert lend(alice).status_code == 200
    assert (found("pre-activation"), found("active")) == ([], ["active"])
    alice.delete(f"{KEY}/material")
    assert (found("pre-activation"), found("active")) == (["pre-activation"], [])


def test_only_the_same_material_comes_again(alice: Api, world: World) -> None:
    assert lend(alice).status_code == 200
    other = bytes(32)
    assert kind_of(lend(alice, other)) == "conflict"
    alice.delete(f"{KEY}/material")
    assert kind_of(lend(alice, other)) == "conflict"
    with world.service.vault.read() as snapshot:
        assert all(version.material is None for version in snapshot.select(KeyVersion))
    assert lend(alice).status_code == 200


def test_material_is_lent_for_a_time(alice: Api, world: World, clock: SteeredClock) -> None:
    until = (clock() + timedelta(minutes=20)).isoformat()
    assert lend(alice, valid_until=until).json["versions"][0]["material_expires_at"]
    body = {"plaintext": ""}
    clock.advance(minutes=19)
    assert alice.post(f"{KEY}/encrypt", body).status_code == 200
    clock.advance(minutes=1)
    assert kind_of(alice.post(f"{KEY}/encrypt", body)) == "key-state"
    assert alice.get(KEY).json["pending_import"]
    clock.advance(minutes=1)
    remove_old_rows(world.service, clock())
    with world.service.vault.read() as snapshot:
        (version,) = snapshot.select(KeyVersion)
    assert version.material is version.material_until is None
    assert lend(alice).status_code == 200
    assert kind_of(lend(alice, valid_until=until)) == "validation-failed"


def test_a_suspended_key_stays_so_without_material_and_with_it(alice: Api) -> None:
    lend(alice)
    alice.post(f"{KEY}/suspend")
    assert alice.delete(f"{KEY}/material").json["state"] == "suspended"
    assert lend(alice).json["state"] == "suspended"
    alice.post(f"{KEY}/resume")
    assert alice.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200


def test_what_is_compromised_or_about_to_go_takes_no_material(alice: Api) -> None:
    lend(alice)
    alice.delete(KEY)
    assert kind_of(lend(alice)) == "key-state"
    alice.post(f"{KEY}/cancel-deletion")
    alice.post(f"{KEY}/revoke")
    assert kind_of(lend(alice)) == "key-state"
    assert kind_of(alice.delete(f"{KEY}/material")) == "key-state"


def test_other_keys_lend_nothing_and_this_one_makes_no_versions(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "own"})
    alice.post("/api/v1/keys/import", {"key_id": "imported", **wrapped_for(alice, MATERIAL)})
    for key_id in ("own", "imported"):
        body = wrapped_for(alice, MATERIAL)
        assert kind_of(alice.post(f"/api/v1/keys/{key_id}/material", body)) == "conflict"
        assert kind_of(alice.delete(f"/api/v1/keys/{key_id}/material")) == "conflict"
    assert kind_of(alice.post(f"{KEY}/rotate")) == "conflict"
    assert kind_of(alice.patch(KEY, {"rotation_period": "P90D"})) == "conflict"
    lend(alice)
    assert kind_of(alice.post(f"{KEY}/rotate")) == "conflict"


def seal(api: Api) -> str:
    return str(api.post(f"{KEY}/encrypt", {"plaintext": b64(b"x")}).json["ciphertext"])


def opens(api: Api, sealed: str) -> str:
    answer = api.post(f"{KEY}/decrypt", {"ciphertext": sealed})
    return "ok" if answer.status_code == 200 else kind_of(answer)


def test_the_next_version_waits_for_the_next_rotation(alice: Api, world: World) -> None:
    lend(alice)
    old, other = seal(alice), bytes(32)
    shown = lend(alice, other, next_version=True).json
    assert (shown["latest_version"], [each["version"] for each in shown["versions"]]) == (1, [1])
    assert (shown["pending_rotation"]["version"], shown["pending_rotation"]["state"]) == (2, "pre-activation")
    assert shown["imported_version"] == 2
    assert [each["version"] for each in alice.get(f"{KEY}/versions").json["items"]] == [1]
    assert kind_of(alice.post(f"{KEY}/decrypt", {"ciphertext": old, "version": 2})) == "validation-failed"
    assert kind_of(alice.post(f"{KEY}/versions/2/destroy")) == "not-found"
    assert kind_of(lend(alice, bytes(range(1, 33)), next_version=True)) == "key-state"
    assert kind_of(lend(alice, next_version=True)) == "conflict"
    alice.post(f"{KEY}/suspend")
    assert kind_of(alice.post(f"{KEY}/rotate")) == "key-state"
    alice.post(f"{KEY}/resume")
    rotated = alice.post(f"{KEY}/rotate").json
    assert ([each["state"] for each in rotated["versions"]], "pending_rotation" in rotated) == (
        ["deactivated", "active"],
        False,
    )
    assert opens(alice, old) == opens(alice, seal(alice)) == "ok"
    assert alice.delete(f"{KEY}/material", {"version": 1}).json["versions"][0]["external_material"] == "gone"
    assert (opens(alice, old), opens(alice, seal(alice))) == ("key-state", "ok")
    assert kind_of(lend(alice, version=2)) == "conflict"
    assert lend(alice, version=1).json["imported_version"] == 1
    assert opens(alice, old) == "ok"
    assert wrong_tables(world.service.vault) == []


def test_what_waits_too_long_is_forgotten_and_other_material_takes_its_place(
    alice: Api, world: World, clock: SteeredClock
) -> None:
    lend(alice)
    until = (clock() + timedelta(minutes=20)).isoformat()
    lend(alice, bytes(32), next_version=True, valid_until=until)
    clock.advance(minutes=21)
    assert "pending_rotation" not in alice.get(KEY).json
    assert kind_of(alice.post(f"{KEY}/rotate")) == "conflict"
    remove_old_rows(world.service, clock())
    assert lend(alice, bytes(range(1, 33)), next_version=True).json["pending_rotation"]["version"] == 2
    assert alice.delete(f"{KEY}/material", {"version": 2}).json["latest_version"] == 1
    with world.service.vault.read() as snapshot:
        assert [version.version for version in snapshot.select(KeyVersion)] == [1]
    lend(alice, bytes(32), next_version=True)
    imported = alice.post(f"{KEY}/import", wrapped_for(alice, MATERIAL))
    assert (imported.status_code, imported.json["latest_version"]) == (200, 2)
    assert wrong_tables(world.service.vault) == []


def test_what_waits_is_revoked_with_the_key(alice: Api) -> None:
    lend(alice)
    lend(alice, bytes(32), next_version=True)
    alice.post(f"{KEY}/revoke")
    assert kind_of(alice.post(f"{KEY}/rotate")) == "key-revoked"
    assert "pending_rotation" not in alice.get(KEY).json


def test_what_waits_comes_back_from_a_backup(alice: Api, world: World) -> None:
    lend(alice)
    lend(alice, bytes(32), next_version=True)
    backup = alice.post(f"{KEY}/backup").json["backup"]
    with world.service.vault.change() as change:
        key = change.key_by_id("lent")
        assert key is not None
        remove(change, key)
    with world.service.vault.read() as snapshot:
        assert snapshot.select(KeyVersion) == []
    assert alice.post("/api/v1/keys/restore", {"backup": backup}).json["pending_rotation"]["version"] == 2
    assert alice.post(f"{KEY}/rotate").json["latest_version"] == 2
    assert opens(alice, seal(alice)) == "ok"


@pytest.mark.parametrize("has_material", [True, False])
def test_a_backup_keeps_it_as_it_is(world: World, alice: Api, has_material: bool) -> None:
    lend(alice)
    if not has_material:
        alice.delete(f"{KEY}/material")
    backup = alice.post(f"{KEY}/backup").json["backup"]
    with world.service.vault.change() as change:
        key = change.key_by_id("lent")
        assert key is not None
        remove(change, key)
    restored = alice.post("/api/v1/keys/restore", {"backup": backup})
    assert restored.json["pending_import"] is not has_material
    if has_material:
        assert kind_of(lend(alice, bytes(32))) == "conflict"
    assert lend(alice).status_code == 200


@pytest.mark.parametrize("wrong", [MATERIAL[:-1], b""])
def test_material_of_the_wrong_size_is_refused_and_spends_nothing(alice: Api, wrong: bytes) -> None:
    assert kind_of(lend(alice, wrong)) == "validation-failed"
    assert alice.get(KEY).json["pending_import"]
