"""What gave its name back when it was deleted: nobody gains by that, and no revocation or version is lost by it."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.support import Api, World, b64, kind_of, unb64
from helpers.transfer import wrapped_for
from helpers.vault_client import Vault
from kms.keys.model import Alias, Key
from kms.vault.checking import wrong_tables

KEY = "/api/v1/keys/k"
MESSAGE = {"plaintext": b64(b"x")}


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    assert api.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    return api


def release(api: Api, path: str = KEY) -> str:
    """Delete a key so that its name is free; give the id that it has now."""
    deleted = api.delete(path, {"waiting_period": "P1D", "release_name": True})
    assert deleted.status_code == 200
    return str(deleted.json["key_id"])


def backup(api: Api) -> dict[str, str]:
    return {"backup": api.post(f"{KEY}/backup").json["backup"]}


def restore(api: Api, kept: dict[str, str]) -> Any:
    return api.post("/api/v1/keys/restore", kept)


def test_nobody_can_take_the_id_that_a_deleted_key_gets(world: World, alice: Api) -> None:
    uid = unb64(alice.post(f"{KEY}/encrypt", MESSAGE).json["ciphertext"])[1:17]
    bob = world.user("bob")
    assert bob.post("/api/v1/keys", {"key_id": f"deleted-{uid.hex()}"}).status_code == 201
    assert release(alice) != f"deleted-{uid.hex()}"


def test_a_revocation_is_listed_under_the_name_that_comes_back(alice: Api) -> None:
    gone = release(alice)
    assert alice.post(f"/api/v1/keys/{gone}/revoke").status_code == 200
    assert alice.post(f"/api/v1/keys/{gone}/cancel-deletion").json["key_id"] == "k"
    listed = {each["key_id"] for each in alice.get("/revocation_list").json["revoked_keys"]}
    assert {"k", gone} <= listed
    assert kind_of(alice.post(f"{KEY}/encrypt", MESSAGE)) == "key-revoked"


def test_a_backup_takes_no_later_version_away(alice: Api) -> None:
    kept = backup(alice)
    alice.post(f"{KEY}/rotate")
    sealed = alice.post(f"{KEY}/encrypt", MESSAGE).json["ciphertext"]
    gone = release(alice)
    refused = restore(alice, kept)
    assert (kind_of(refused), gone in refused.json["detail"]) == ("already-exists", True)
    alice.post("/api/v1/keys", {"key_id": "k"})
    alice.post(f"/api/v1/keys/{gone}/cancel-deletion")
    release(alice)
    assert kind_of(restore(alice, kept)) == "already-exists"  # it is in use, under its other id
    assert alice.post(f"/api/v1/keys/{gone}/decrypt", {"ciphertext": sealed}).json["plaintext"] == b64(b"x")


def test_a_backup_from_before_a_revoked_version_is_refused(alice: Api, world: World) -> None:
    kept = backup(alice)
    alice.post(f"{KEY}/rotate")
    alice.post(f"{KEY}/revoke", {"reason": "superseded"})
    later = backup(alice)
    release(alice)
    assert restore(alice, kept).status_code == 409
    assert restore(alice, later).json["state"] == "deactivated"
    assert kind_of(alice.post(f"{KEY}/rotate")) == "key-revoked"
    assert wrong_tables(world.service.vault) == []


def test_what_waited_for_a_rotation_stays_revoked(world: World, alice: Api) -> None:
    assert alice.post("/api/v1/keys/external", {"key_id": "lent"}).status_code == 201
    for material, more in ((bytes(32), {}), (bytes(range(32)), {"next_version": True})):
        body = {**wrapped_for(alice, material), **more}
        assert alice.post("/api/v1/keys/lent/material", body).status_code == 200
    kept = {"backup": alice.post("/api/v1/keys/lent/backup").json["backup"]}
    alice.post("/api/v1/keys/lent/revoke")
    release(alice, "/api/v1/keys/lent")
    assert restore(alice, kept).status_code == 201
    assert kind_of(alice.post("/api/v1/keys/lent/rotate")) == "key-revoked"
    assert kind_of(alice.post("/api/v1/keys/lent/encrypt", MESSAGE)) == "key-revoked"


def test_a_destroyed_version_takes_no_material(alice: Api) -> None:
    alice.post("/api/v1/keys/external", {"key_id": "lent"})
    assert alice.post("/api/v1/keys/lent/material", wrapped_for(alice, bytes(32))).status_code == 200
    body = {**wrapped_for(alice, bytes(range(32))), "next_version": True}
    assert alice.post("/api/v1/keys/lent/material", body).status_code == 200
    alice.post("/api/v1/keys/lent/rotate")
    alice.post("/api/v1/keys/lent/versions/1/destroy")
    refused = alice.post("/api/v1/keys/lent/material", {**wrapped_for(alice, bytes(32)), "version": 1})
    assert kind_of(refused) == "key-state"


def test_a_mount_takes_no_names_that_were_there_before(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": "prod.db"})
    alice.put("/api/v1/aliases/test.db", {"key_id": "k"})
    for mount in ("prod", "test"):
        assert kind_of(world.admin.post("/api/v1/mounts", {"mount": mount})) == "conflict"
    assert world.admin.post("/api/v1/mounts", {"mount": "other"}).status_code == 201


@pytest.mark.parametrize("usage", ["decrypt", "verify"])
def test_what_protects_nothing_makes_no_codes(alice: Api, usage: str) -> None:
    kind = {"decrypt": "xaes-256-gcm", "verify": "ed25519"}[usage]
    assert alice.post("/api/v1/keys", {"key_id": "half", "type": kind, "usages": [usage]}).status_code == 201
    answer = alice.post("/api/v1/keys/half/mac", {"message": b64(b"x"), "derived": True})
    assert kind_of(answer) == "operation-not-supported"


def test_no_key_is_made_for_what_cannot_be_read(world: World, alice: Api) -> None:
    vault = Vault.of(world, alice)
    assert vault.write("transit/encrypt/unread", plaintext="!").status == 400
    assert vault.read("transit/keys/unread").status == 404


@pytest.mark.parametrize(
    "body",
    [b'{"a":null', b'{"a":null}x', b'{"a":null,"type":"\xff","password":"\xff"}', b"[null" * 800, b"null null"],
)
def test_what_is_no_json_is_refused(world: World, alice: Api, body: bytes) -> None:
    for vault, path in ((Vault.of(world, alice), "transit/keys/n"), (Vault(world), "auth/userpass/login/x")):
        assert vault.send("POST", path, body).status == 400


def test_no_door_makes_a_key_under_a_name_that_is_kept_for_another(world: World, alice: Api) -> None:
    bob = world.user("bob")
    vault = Vault.of(world, bob)
    assert bob.post("/api/v1/keys", {"key_id": "d", "type": "hmac-sha256", "usages": ["derive"]}).status_code == 201
    for key_id, kind in (("a", "x25519"), ("e", "ed25519")):
        assert bob.post("/api/v1/keys", {"key_id": key_id, "type": kind}).status_code == 201
    peer, signer = (bob.get(f"/api/v1/keys/{key_id}/public-key").json["public_key"] for key_id in "ae")
    public = {"type": "x25519", "public_key": peer}
    for suffix in ("symmetric", "rsa", "ecc", "dh", "session"):
        name = f"alice_{suffix}"
        kept = {"type": "aes-256-gcm", "key_id": name}
        refused = {
            "create": bob.post("/api/v1/keys", {"key_id": name}),
            "external": bob.post("/api/v1/keys/external", kept),
            "import": bob.post("/api/v1/keys/import", {**public, "key_id": name}),
            "wrapped": bob.post("/api/v1/keys/import", {**kept, **wrapped_for(bob, bytes(32))}),
            "derive": bob.post("/api/v1/keys/d/derive", {"context": "", "keep_as": kept}),
            "agree": bob.post("/api/v1/keys/a/agree", {"peer_public_key": peer, "keep_as": kept}),
            "alias": bob.put(f"/api/v1/aliases/{name}", {"key_id": "a"}),
            "for alice": bob.post("/generate_symmetric_key", {"client_id": "alice"}),
        }
        for door, answer in refused.items():
            expected = "permission-denied" if door == "for alice" else "validation-failed"
            assert kind_of(answer) == expected, (door, answer.json)
        many = bob.post("/api/v1/keys", {"items": [{"key_id": name}]}).json["items"]
        assert [each["error"]["type"] for each in many] == ["/problems/validation-failed"]
        assert vault.write(f"transit/keys/{name}").status == 400
        assert vault.write(f"transit/encrypt/{name}", plaintext=MESSAGE["plaintext"]).status == 400
        assert vault.write(f"transit/keys/{name}/import", type="ed25519", public_key=signer).status == 400
    with world.service.vault.read() as snapshot:
        assert not [each.key_id for each in snapshot.select(Key) if each.key_id.startswith("alice_")]
        assert not [each.alias for each in snapshot.select(Alias) if each.alias.startswith("alice_")]
    assert alice.post("/generate_symmetric_key").json["key_id"] == "alice_symmetric"
