"""Own keys only, roles, grants, and the same 404 for what one may not see."""

from __future__ import annotations

import pytest

from helpers.support import Api, World, b64
from kms.access.model import Role
from kms.access.policy import ANY_OWNER, GRANTABLE, OWN_KEYS, Permission
from kms.operations import OPERATIONS

KEY = "/api/v1/keys/alice_symmetric"
USES = {
    "encrypt",
    "decrypt",
    "rewrap",
    "data-key",
    "data-key-pair",
    "sign",
    "verify",
    "mac",
    "verify-mac",
    "wrap",
    "unwrap",
    "derive",
}
USES |= {"certificate-request", "agree", "encapsulate", "decapsulate", "seal", "open"}
ON_A_KEY = [
    ("GET", KEY, None),
    ("GET", f"{KEY}/versions", None),
    ("GET", f"{KEY}/public-key", None),
    ("GET", f"{KEY}/last-use", None),
    ("GET", f"{KEY}/blast-radius", None),
    ("PATCH", KEY, {"labels": {}}),
    ("DELETE", KEY, {}),
    ("POST", f"{KEY}/cancel-deletion", {}),
    ("POST", f"{KEY}/trim", {"oldest_version": 1}),
    ("POST", f"{KEY}/versions/1/destroy", {}),
    ("POST", f"{KEY}/import", {"public_key": ""}),
    ("POST", f"{KEY}/material", {"wrapping_key_id": "x", "wrapped_key": ""}),
    ("DELETE", f"{KEY}/material", {}),
    ("POST", f"{KEY}/regions", {"add": "eu-central-1"}),
    ("POST", f"{KEY}/export", {}),
    ("POST", f"{KEY}/backup", {}),
    ("POST", f"{KEY}/certificate-request", {"subject": "CN=x"}),
    ("POST", f"{KEY}/rewrap", {"ciphertext": ""}),
    ("POST", f"{KEY}/data-key", {}),
    ("POST", f"{KEY}/data-key-pair", {"type": "ec-p256"}),
    ("POST", f"{KEY}/mac", {"message": ""}),
    ("POST", f"{KEY}/verify-mac", {"message": "", "mac": ""}),
    ("POST", f"{KEY}/wrap", {"key": ""}),
    ("POST", f"{KEY}/unwrap", {"wrapped_key": ""}),
    ("POST", f"{KEY}/derive", {}),
    ("POST", f"{KEY}/agree", {"peer_public_key": ""}),
    ("POST", f"{KEY}/encapsulate", {}),
    ("POST", f"{KEY}/decapsulate", {"ciphertext": ""}),
    ("POST", f"{KEY}/seal", {"plaintext": ""}),
    ("POST", f"{KEY}/open", {"ciphertext": ""}),
    ("POST", f"{KEY}/rotate", {}),
    ("POST", f"{KEY}/suspend", {}),
    ("POST", f"{KEY}/resume", {}),
    ("POST", f"{KEY}/revoke", {}),
    ("POST", f"{KEY}/encrypt", {"plaintext": ""}),
    ("POST", f"{KEY}/decrypt", {"ciphertext": b64(b"x" * 80)}),
    ("POST", f"{KEY}/sign", {"message": ""}),
    ("POST", f"{KEY}/verify", {"message": "", "signature": ""}),
    ("POST", "/rotate_key", {"key_id": "alice_symmetric"}),
    ("POST", "/revoke_key", {"key_id": "alice_symmetric"}),
]


def call(api: Api, method: str, path: str, body: object) -> tuple[int, dict[str, object]]:
    answer = api.http.open(path, method=method, json=body, headers=api.headers)
    return answer.status_code, {k: v for k, v in answer.json.items() if k != "request_id"}


def with_a_key(world: World) -> Api:
    api = world.user("alice")
    api.post("/generate_symmetric_key")
    return api


@pytest.fixture
def alice(world: World) -> Api:
    return with_a_key(world)


@pytest.fixture(scope="module")
def untouched(shared_world: World) -> Api:
    """The owner of a key that all tries of the tests with `mallory` leave as it is."""
    return with_a_key(shared_world)


@pytest.fixture(scope="module")
def mallory(shared_world: World) -> Api:
    return shared_world.user("mallory")


def test_every_operation_on_a_key_is_tried_here() -> None:
    on_keys = {op.path for op in OPERATIONS.values() if "<key_id>" in op.path}
    assert on_keys == {
        path.replace("alice_symmetric", "<key_id>").replace("/1/", "/<int:version>/")
        for _, path, _ in ON_A_KEY
        if path.startswith("/api")
    }


@pytest.mark.parametrize(("method", "path", "body"), ON_A_KEY)
def test_another_user_gets_the_answer_for_a_key_that_is_not_there(
    untouched: Api, mallory: Api, method: str, path: str, body: dict[str, str] | None
) -> None:
    refused = call(mallory, method, path, body)
    missing_body = {**body, "key_id": "nobody_symmetric"} if body and "key_id" in body else body
    missing = call(mallory, method, path.replace("alice", "nobody"), missing_body)
    assert refused[0] == missing[0] == 404
    assert {k: str(v).replace("alice", "nobody") for k, v in refused[1].items()} == {
        k: str(v) for k, v in missing[1].items()
    }
    assert untouched.get(KEY).json["state"] == "active"
    assert untouched.get(KEY).json["latest_version"] == 1


@pytest.mark.parametrize("path", [op.path for op in OPERATIONS.values() if op.batch and "<key_id>" in op.path])
def test_a_batch_with_nothing_to_read_tells_nothing_of_a_key(untouched: Api, mallory: Api, path: str) -> None:
    for key_id in ("alice_symmetric", "nobody_symmetric", "%5D%C3%A9"):
        assert call(mallory, "POST", path.replace("<key_id>", key_id), {"items": [[], 5]})[0] == 404


def test_lists_show_what_is_one_s_own(world: World, alice: Api) -> None:
    mallory = world.user("mallory")
    assert mallory.get("/api/v1/keys").json["items"] == []
    assert mallory.get("/api/v1/keys?owner=alice").json["items"] == []
    for api in (alice, world.admin, world.user("eve", Role.AUDITOR)):
        assert [item["key_id"] for item in api.get("/api/v1/keys?owner=alice").json["items"]] == ["alice_symmetric"]


def test_administrators_manage_and_do_not_use(world: World, alice: Api) -> None:
    admin = world.admin
    for method, path, body in ON_A_KEY:
        status, _ = call(admin, method, path, body)
        if (
            path.endswith(("import", "export", "backup", "regions", "material"))
            or method == "PATCH"
            or path.rpartition("/")[2] in USES
        ):
            assert status == 403, path
        else:
            assert status in (200, 400, 403, 409), path
    assert alice.get(KEY).json["versions"][0]["state"] == "destroyed"


def test_auditors_look_and_do_not_touch(world: World, alice: Api) -> None:
    eve = world.user("eve", Role.AUDITOR)
    for path in ("/api/v1/audit/entries", "/metrics", "/api/v1/clients", "/revocation_list", KEY):
        assert eve.get(path).status_code == 200
    for method, path, body in ON_A_KEY:
        if method == "GET":
            continue
        assert call(eve, method, path, body)[0] == 403
    for path in ("/generate_symmetric_key", "/api/v1/clients", "/api/v1/grants"):
        assert eve.post(path, {"client_id": "x"} if "clients" in path else None).status_code in (403, 422)
    assert eve.post("/generate_symmetric_key").status_code == 403


def test_users_manage_nobody(world: World, alice: Api) -> None:
    for operation in OPERATIONS.values():
        if operation.permission in {Permission.CLIENTS_MANAGE, Permission.CLIENTS_READ, Permission.AUDIT_READ}:
            path = operation.path.replace("<client_id>", "admin").replace("<key_id>", "alice_symmetric")
            path = path.replace("<path:tile>", "0/000.p/1")
            answer = alice.http.open(path, method=operation.method, json={"client_id": "x"}, headers=alice.headers)
            assert answer.status_code == 403, path
    assert alice.get("/metrics").status_code == 403
    assert alice.post("/api/v1/clients/admin/rotate-secret").status_code == 403


def test_a_grant_lets_another_use_a_key_and_no_more(world: World, alice: Api) -> None:
    bob, carol = world.user("bob"), world.user("carol")
    body = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "alice_*"}
    grant = alice.post("/api/v1/grants", body).json
    assert bob.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200
    assert bob.post(f"{KEY}/decrypt", {"ciphertext": ""}).status_code == 403  # it may know that the key is there
    assert carol.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 404
    assert bob.get("/api/v1/keys").json["items"] == []  # to be listed takes keys:read
    assert bob.get("/api/v1/grants").json["items"] == [grant]
    assert bob.delete(f"/api/v1/grants/{grant['grant_id']}").status_code == 404
    assert alice.delete(f"/api/v1/grants/{grant['grant_id']}").status_code == 200
    assert bob.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 404


def test_nobody_grants_what_is_not_theirs(world: World, alice: Api) -> None:
    bob = world.user("bob")
    for granter in (world.admin, bob):
        for pattern in ("alice_symmetric", "alice_*", "*"):
            body = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": pattern}
            assert granter.post("/api/v1/grants", body).status_code == 201
    assert bob.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 404


def test_a_role_can_be_granted(world: World, alice: Api) -> None:
    bob = world.user("bob")
    alice.post("/api/v1/grants", {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "*"})
    assert bob.post(f"{KEY}/encrypt", {"plaintext": ""}).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "client:nobody"}, {"subject": "bob"}, {"subject": "role:king"}, {"permission": "clients:manage"},
        {"permission": "keys:revoke"}, {"key_pattern": "a*b"}, {"key_pattern": ""}, {"key_pattern": "../x"},
    ],
)  # fmt: skip
def test_grants_that_make_no_sense(untouched: Api, change: dict[str, str]) -> None:
    body = {"subject": "client:alice", "permission": "keys:encrypt", "key_pattern": "alice_symmetric", **change}
    assert untouched.post("/api/v1/grants", body).status_code in (404, 422)


def test_deny_is_the_default() -> None:
    for role in Role:
        assert ANY_OWNER[role] <= set(Permission)
        assert OWN_KEYS[role] <= set(Permission)
    assert not ANY_OWNER[Role.USER]
    uses = {Permission.KEYS_ENCRYPT, Permission.KEYS_DECRYPT, Permission.KEYS_SIGN, Permission.KEYS_VERIFY}
    assert not any(uses & ANY_OWNER[role] for role in Role)
    assert uses <= GRANTABLE
    assert {op.name for op in OPERATIONS.values() if op.permission is None} == {
        "passkey_request_options",
        "audit_proof",  # who has a leaf hash was given it with an answer
    }
    assert {op.name for op in OPERATIONS.values() if op.is_public} == {"passkey_request_options"}


def test_disabling_and_deleting_end_everything_at_once(world: World, alice: Api) -> None:
    admin = world.admin
    assert admin.post("/api/v1/clients/alice/disable").json["status"] == "disabled"
    assert alice.get("/api/v1/keys").status_code == 401
    assert admin.post("/api/v1/clients/alice/enable").json["status"] == "enabled"
    again = world.login("alice", Role.USER)
    assert again.get("/api/v1/keys").status_code == 200
    assert admin.delete("/api/v1/clients/alice").json["status"] == "deleted"
    assert again.get("/api/v1/keys").status_code == 401
    assert admin.get("/api/v1/clients/alice").status_code == 404
    assert admin.post("/api/v1/clients", {"client_id": "alice"}).status_code == 409
    assert [item["client_id"] for item in admin.get("/api/v1/clients").json["items"]] == ["admin"]


def test_the_last_administrator_stays(world: World) -> None:
    admin = world.admin
    assert admin.post("/api/v1/clients/admin/disable").status_code == 409
    assert admin.delete("/api/v1/clients/admin").status_code == 409
    world.enrol("second", Role.ADMIN)
    assert admin.post("/api/v1/clients/admin/disable").status_code == 200


def test_new_credentials_end_the_sessions(world: World, alice: Api) -> None:
    admin = world.admin
    assert set(admin.post("/api/v1/clients/alice/reset-totp").json) == {
        "client_id", "totp_secret", "totp_uri", "recovery_codes",
    }  # fmt: skip
    assert alice.get("/api/v1/keys").status_code == 401
    again = world.login("alice", Role.USER)
    assert set(admin.post("/api/v1/clients/alice/rotate-secret").json) == {"client_id", "client_secret"}
    assert again.get("/api/v1/keys").status_code == 401
