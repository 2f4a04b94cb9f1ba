"""Programs log in through the Vault dialect, and tokens make narrower ones of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.support import Api, World
from helpers.tokens import PlatformIssuer
from helpers.vault_client import Answer, Vault
from kms.access.model import Role

SUBJECT = "system:serviceaccount:prod:pay-7"


@pytest.fixture(scope="module")
def issuer(shared_world: World) -> PlatformIssuer:
    made = PlatformIssuer()
    shared_world.enrol("pay")
    body = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    shared_world.admin.post("/api/v1/issuers", body)
    role = {"role": "pay", "issuer": made.issuer, "claims": {"sub": "system:serviceaccount:prod:pay-*"}}
    assert shared_world.admin.post("/api/v1/issuer-roles", {**role, "client_id": "pay"}).status_code == 201
    return made


def token(world: World, issuer: PlatformIssuer, **claims: Any) -> str:
    return issuer.token(SUBJECT, world.service.clock().timestamp(), **claims)


def of(world: World, answer: Answer) -> Vault:
    assert answer.status == 200, answer.content
    return Vault(world, answer.json["auth"]["client_token"])


MEMBERS = {
    "client_token", "accessor", "policies", "token_policies", "identity_policies", "metadata", "lease_duration",
    "renewable", "entity_id", "token_type", "orphan", "mfa_requirement", "num_uses",
}  # fmt: skip


@pytest.mark.parametrize("mount", ["jwt", "kubernetes"])
def test_a_platform_s_token_logs_in(shared_world: World, issuer: PlatformIssuer, mount: str) -> None:
    answer = Vault(shared_world).write(f"auth/{mount}/login", role="pay", jwt=token(shared_world, issuer))
    vault = of(shared_world, answer)
    auth = answer.json["auth"]
    assert set(auth) == MEMBERS
    assert auth["renewable"] is False
    assert auth["metadata"]["role"] == "pay"
    if mount == "kubernetes":
        assert auth["metadata"]["service_account_name"] == "pay-7"
        assert auth["metadata"]["service_account_namespace"] == "prod"
    vault.make(f"made-by-{mount}")
    shown = vault.read("auth/token/lookup-self").data
    assert (shown["path"], shown["display_name"], shown["orphan"]) == ("auth/jwt/login", "jwt-pay", True)
    assert shown["accessor"] == auth["accessor"]
    assert vault.write("auth/token/revoke-self").status == 204
    assert vault.read("auth/token/lookup-self").status == 403


@pytest.mark.parametrize(
    "body",
    [
        {"role": "pay"},
        {"role": "", "jwt": "x.y.z"},
        {"role": "pay", "jwt": "x"},
        {"role": "nobody", "jwt": "TOKEN"},
        {"role": "pay\0", "jwt": "TOKEN"},
        {"role": "PAY", "jwt": "TOKEN"},
        {"role": "x" * 5000, "jwt": "TOKEN"},
        {"role": "pay", "jwt": None},
        {"role": None, "jwt": "TOKEN"},
        {"role": "päy", "jwt": "TOKEN"},
    ],
)
def test_what_proves_nobody(shared_world: World, issuer: PlatformIssuer, body: dict[str, Any]) -> None:
    given = {name: token(shared_world, issuer) if value == "TOKEN" else value for name, value in body.items()}
    assert Vault(shared_world).write("auth/jwt/login", **given).status == 400
    foreign = Vault(shared_world).write("auth/jwt/login", role="pay", jwt=token(shared_world, issuer, aud="x"))
    assert foreign.status == 400
    assert "aud" in foreign.error


def test_an_access_key_logs_in_until_it_is_ended(shared_world: World) -> None:
    owner = shared_world.user("approle-owner")
    key = owner.post("/api/v1/access-keys", {"scope": "keys:read keys:create"}).json
    other = owner.post("/api/v1/access-keys", {}).json
    anybody = Vault(shared_world)
    answer = anybody.write("auth/approle/login", role_id=key["access_key_id"], secret_id=key["secret_access_key"])
    vault = of(shared_world, answer)
    assert answer.json["auth"]["token_policies"] == ["keys:create", "keys:read"]
    assert answer.json["auth"]["metadata"] == {"role_name": key["access_key_id"]}
    assert vault.read("auth/token/lookup-self").data["path"] == "auth/approle/login"
    assert vault.write("transit/keys/narrow").status in (200, 204)
    assert vault.write("transit/encrypt/narrow", plaintext="aGk=").status == 403
    for wrong in (
        {"role_id": key["access_key_id"], "secret_id": other["secret_access_key"]},
        {"role_id": other["access_key_id"], "secret_id": key["secret_access_key"]},
        {"role_id": key["access_key_id"]},
        {"role_id": "AKIA" + "A" * 16, "secret_id": key["secret_access_key"]},
        {"role_id": "\0", "secret_id": "\udcff"},
    ):
        body = {name: value.encode("utf-8", "replace").decode() for name, value in wrong.items()}
        assert anybody.write("auth/approle/login", **body).status == 400
    owner.delete(f"/api/v1/access-keys/{key['access_key_id']}")
    assert vault.read("auth/token/lookup-self").status == 403
    told = anybody.write("auth/approle/login", role_id=key["access_key_id"], secret_id=key["secret_access_key"])
    assert told.status == 400
    assert "access-keys" in owner_of(shared_world).read("auth/approle/role/x/role-id").error


def owner_of(world: World) -> Vault:
    return Vault.of(world, world.user(f"asker-{len(world.admin.get('/api/v1/clients').json['items'])}"))


def test_an_access_key_that_needs_a_code_logs_nobody_in(shared_world: World) -> None:
    owner = shared_world.user("approle-mfa")
    key = owner.post("/api/v1/access-keys", {"needs_second_factor": True}).json
    answer = Vault(shared_world).write(
        "auth/approle/login", role_id=key["access_key_id"], secret_id=key["secret_access_key"]
    )
    assert answer.status == 400


@pytest.fixture
def parent(world: World) -> Vault:
    return Vault.of(world, world.user("parent"))


def test_a_child_is_narrower_and_ends_with_its_parent(world: World, parent: Vault) -> None:
    parent.make("orders")
    answer = parent.write("auth/token/create", policies=["keys:encrypt@orders"], ttl="20m", display_name="terraform")
    child = of(world, answer)
    auth = answer.json["auth"]
    assert (auth["lease_duration"], auth["orphan"]) == (1200, False)
    assert auth["token_policies"] == ["keys:encrypt@orders"]
    assert child.write("transit/encrypt/orders", plaintext="aGk=").status == 200
    assert child.write("transit/keys/another").status == 403
    shown = child.read("auth/token/lookup-self").data
    assert (shown["path"], shown["orphan"]) == ("auth/token/create", False)
    for wider in (["keys:encrypt@*"], ["keys:decrypt@orders"], ["root"]):
        assert child.write("auth/token/create", policies=wider).status in (400, 403)
    inherited = child.write("auth/token/create", policies=["default"])
    assert inherited.json["auth"]["token_policies"] == ["keys:encrypt@orders"]
    assert parent.write("auth/token/revoke-self").status == 204
    assert child.write("transit/encrypt/orders", plaintext="aGk=").status == 403
    assert of(world, inherited).read("auth/token/lookup-self").status == 403


@pytest.mark.parametrize(
    "body",
    [
        {"id": "s.mine"}, {"no_parent": True}, {"num_uses": 3}, {"period": "1h"}, {"type": "batch"},
        {"entity_alias": "x"}, {"ttl": "soon"}, {"ttl": "-1s"}, {"policies": ["no such"]},
        {"policies": ["keys:fly@*"]}, {"explicit_max_ttl": "1 h"},
    ],
)  # fmt: skip
def test_what_would_not_be_enforced_is_refused(parent: Vault, body: dict[str, Any]) -> None:
    assert parent.write("auth/token/create", **body).status == 400


def test_a_child_lives_no_longer(world: World, parent: Vault) -> None:
    for body in ({}, {"ttl": "9999h"}, {"ttl": "1h30m"}, {"ttl": 7200}, {"ttl": "0"}):
        answer = parent.write("auth/token/create", **body)
        assert answer.status == 200, answer.content
        assert answer.json["auth"]["lease_duration"] <= 3600
    assert parent.write("auth/token/create", explicit_max_ttl="90s", ttl="1h").json["auth"]["lease_duration"] == 90
    assert parent.write("auth/token/create-orphan").status == 400
    assert parent.write("auth/token/create/some-role").status == 400
    assert parent.write("auth/token/renew-self").error == "lease is not renewable"


def test_tokens_are_looked_up_and_ended_by_their_client_and_administrators(world: World, parent: Vault) -> None:
    child = of(world, parent.write("auth/token/create", policies=["keys:read"]))
    accessor = child.read("auth/token/lookup-self").data["accessor"]
    admin = Vault.of(world, world.admin)
    stranger = Vault.of(world, world.user("stranger"))
    for who, expected in ((parent, 200), (admin, 200), (stranger, 403)):
        assert who.write("auth/token/lookup-accessor", accessor=accessor).status == expected
        assert who.write("auth/token/lookup", token=child.token).status == expected
    assert parent.write("auth/token/lookup-accessor", accessor=accessor).data["id"] == ""
    assert child.write("auth/token/lookup", token=parent.token).status == 403
    assert child.write("auth/token/revoke", token=parent.token).status == 403
    assert stranger.write("auth/token/revoke-accessor", accessor=accessor).status == 403
    assert stranger.write("auth/token/revoke", token=child.token).status == 403
    for wrong in ("", "x", "0" * 24, "\0" * 24):
        assert admin.write("auth/token/revoke-accessor", accessor=wrong).status == 403
        assert admin.write("auth/token/revoke", token=wrong).status == 403
    assert parent.send("LIST", "auth/token/accessors").status == 403
    assert accessor in admin.send("LIST", "auth/token/accessors").data["keys"]
    assert parent.write("auth/token/revoke-accessor", accessor=accessor).status == 204
    assert child.read("auth/token/lookup-self").status == 403
    another = of(world, parent.write("auth/token/create"))
    assert admin.write("auth/token/revoke", token=another.token).status == 204
    assert another.read("auth/token/lookup-self").status == 403
    assert parent.read("auth/token/lookup-self").status == 200


def test_logins_count_against_the_lockout(world: World) -> None:
    owner: Api = world.user("locked", Role.USER)
    key = owner.post("/api/v1/access-keys", {}).json
    anybody = Vault(world)
    for _ in range(6):
        anybody.write("auth/approle/login", role_id=key["access_key_id"], secret_id="x")
    right = {"role_id": key["access_key_id"], "secret_id": key["secret_access_key"]}
    assert anybody.write("auth/approle/login", **right).status == 429
    world.service.clock.advance(seconds=2)  # type: ignore[attr-defined]
    assert anybody.write("auth/approle/login", **right).status == 200
