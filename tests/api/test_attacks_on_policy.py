"""Attacks on policy: what was denied must stay denied, however it is asked for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from api.test_key_policies import Someone, allow, deny, document, key_of, someone, user

from helpers.support import Api, SteeredClock, World
from helpers.tokens import ACCESS_TOKEN, TOKEN_EXCHANGE

PLAIN = {"plaintext": "aGVsbG8="}


def encrypt(api: Api, key_id: str = "orders", source: str = "127.0.0.1") -> int:
    answer = api.http.post(
        f"/api/v1/keys/{key_id}/encrypt", json=PLAIN, headers=api.headers, environ_overrides={"REMOTE_ADDR": source}
    )
    return int(answer.status_code)


@pytest.fixture
def alice(world: World) -> Someone:
    return someone(world, "alice")


@pytest.fixture
def bob(world: World) -> Someone:
    return someone(world, "bob")


@pytest.fixture
def owner(world: World) -> Api:
    made = world.user("olga")
    made.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": "orders"})
    return made


def denial(world: World, **more: Any) -> Any:
    body = {"subject": "client:olga", "permission": "keys:encrypt", "key_pattern": "orders", "effect": "deny", **more}
    return world.admin.post("/api/v1/grants", body)


def test_a_key_that_gave_its_name_up_stays_denied(world: World, owner: Api) -> None:
    assert denial(world).status_code == 201
    assert encrypt(owner) == 403
    released = owner.delete("/api/v1/keys/orders", {"release_name": True, "waiting_period": "P7D"})
    assert released.status_code == 200, released.text
    now_named = released.json["key_id"]
    owner.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": "other"})
    assert owner.put("/api/v1/aliases/orders", {"key_id": "other"}).status_code == 200
    assert owner.post(f"/api/v1/keys/{now_named}/cancel-deletion", {}).status_code == 200
    assert encrypt(owner, now_named) == 403


@pytest.mark.parametrize("network", ["::ffff:10.0.0.0/104", "::ffff:10.0.0.5"])
def test_a_denial_of_a_mapped_network_is_about_it(world: World, owner: Api, network: str) -> None:
    made = denial(world, conditions={"source": [network]})
    assert made.status_code == 422 or encrypt(owner, source="10.0.0.5") == 403


def test_a_clock_set_back_ends_what_had_begun(world: World, owner: Api, clock: SteeredClock) -> None:
    carl = world.user("carl")
    begins = clock.now + timedelta(minutes=5)
    body = {"subject": "client:carl", "permission": "keys:encrypt", "key_pattern": "orders"}
    owner.post("/api/v1/grants", {**body, "conditions": {"not_before": begins.isoformat()}})
    clock.advance(minutes=6)
    assert encrypt(carl) == 200
    clock.advance(minutes=-3)
    assert encrypt(carl) == 403


def test_a_clock_set_back_brings_a_denial_back(world: World, owner: Api, clock: SteeredClock) -> None:
    ends = clock.now + timedelta(minutes=5)
    denial(world, conditions={"not_after": ends.isoformat()})
    assert encrypt(owner) == 403
    clock.advance(minutes=6)
    assert encrypt(owner) == 200
    clock.advance(minutes=-3)
    assert encrypt(owner) == 403


@pytest.mark.parametrize("permission", ["clients:manage", "audit:read", "keys:recover", "grants:manage"])
def test_explaining_what_is_about_no_key_is_no_fault(alice: Someone, permission: str) -> None:
    key = key_of(alice, deny("*", "kms:Encrypt"))
    answer = alice.api.post("/api/v1/policy/explain", {"permission": permission, "key_id": key})
    assert answer.status_code < 500, answer.text


LISTS = ["ListResourceTags", "ListKeyPolicies", "ListKeyRotations", "ListGrants", "RevokeGrant"]


@pytest.mark.parametrize("name", LISTS)
def test_a_deny_of_each_action_holds(alice: Someone, bob: Someone, name: str) -> None:
    key = key_of(alice)
    given = alice.kms.create_grant(
        KeyId=key, GranteePrincipal=user("bob"), RetiringPrincipal=user("alice"), Operations=["Decrypt"]
    )
    alice.kms.put_key_policy(KeyId=key, Policy=document(deny("*", f"kms:{name}")))
    calls = {
        "ListResourceTags": ("list_resource_tags", {}),
        "ListKeyPolicies": ("list_key_policies", {}),
        "ListKeyRotations": ("list_key_rotations", {}),
        "ListGrants": ("list_grants", {}),
        "RevokeGrant": ("revoke_grant", {"GrantId": given["GrantId"]}),
    }
    called, more = calls[name]
    assert alice.does(called, KeyId=key, **more) == "AccessDeniedException"


def narrowed(world: World, api: Api, scope: str) -> Api:
    token = api.headers["Authorization"].split()[1]
    answer = world.http.post(
        "/auth/token",
        data={
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "scope": scope,
        },
    )
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, api.client_id)


def test_a_scope_for_one_key_gives_no_grants_on_others(world: World, owner: Api) -> None:
    world.user("carl")
    narrow = narrowed(world, owner, "grants:manage@public-*")
    body = {"subject": "client:carl", "permission": "keys:encrypt", "key_pattern": "orders"}
    assert narrow.post("/api/v1/grants", body).status_code == 403
    assert narrow.post("/api/v1/grants", {**body, "key_pattern": "*"}).status_code == 403
    mine = owner.post("/api/v1/grants", body).json["grant_id"]
    assert narrow.delete(f"/api/v1/grants/{mine}").status_code in (403, 404)


def test_an_unknown_address_is_let_in_by_nothing_and_refused_by_everything(alice: Someone, bob: Someone) -> None:
    not_here = {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    key = key_of(alice, allow(user("bob"), "kms:Encrypt", Condition=not_here))
    assert encrypt(bob.api, key) == 200
    assert encrypt(bob.api, key, source="") in (403, 404)
    here = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    key = key_of(alice, deny("*", "kms:Encrypt", Condition=here))
    assert encrypt(alice.api, key) == 200
    assert encrypt(alice.api, key, source="") == 403


def test_a_deny_of_a_mapped_network_in_a_key_policy(alice: Someone) -> None:
    mapped = {"IpAddress": {"aws:SourceIp": "::ffff:10.0.0.0/104"}}
    key = str(alice.kms.create_key()["KeyMetadata"]["KeyId"])
    answer = alice.does("put_key_policy", KeyId=key, Policy=document(deny("*", "kms:Encrypt", Condition=mapped)))
    assert answer == "MalformedPolicyDocumentException" or encrypt(alice.api, key, source="10.0.0.5") == 403


def test_a_simulation_knows_what_the_operation_was(world: World, alice: Someone, bob: Someone) -> None:
    key = key_of(alice, allow(user("bob"), "kms:GenerateDataKey*"))
    assert bob.api.post(f"/api/v1/keys/{key}/data-key", {}).status_code == 200
    add = [{"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": key, "effect": "deny"}]
    answer = world.admin.post("/api/v1/policy/simulate", {"add": add})
    assert answer.status_code == 200, answer.text
    assert [(each["client_id"], each["after"]) for each in answer.json["changed"]] == [("bob", False)], answer.json


def test_a_restore_does_not_cancel_a_deletion_that_may_not_be_cancelled(alice: Someone) -> None:
    key = key_of(alice, deny("*", "kms:CancelKeyDeletion"))
    backup = alice.api.post(f"/api/v1/keys/{key}/backup", {}).json["backup"]
    alice.api.delete(f"/api/v1/keys/{key}", {"release_name": True, "waiting_period": "P7D"})
    assert alice.api.post("/api/v1/keys/restore", {"backup": backup}).status_code == 403


@pytest.mark.parametrize(
    "more",
    [
        {"at": "0001-01-02T00:00:00Z", "second_factor_age": 10**9},
        {"at": "9999-12-31T23:59:59Z", "second_factor_age": 0},
        {"second_factor_age": 10**18},
    ],
)
def test_explaining_strange_moments_is_no_fault(owner: Api, more: dict[str, Any]) -> None:
    body = {"subject": "client:olga", "permission": "keys:encrypt", "key_pattern": "orders"}
    owner.post("/api/v1/grants", {**body, "conditions": {"second_factor_within": "PT1H"}})
    answer = owner.post("/api/v1/policy/explain", {"permission": "keys:encrypt", "key_id": "orders", **more})
    assert answer.status_code < 500, answer.text


def test_simulating_from_the_end_of_time_on_is_no_fault(world: World) -> None:
    assert world.admin.post("/api/v1/policy/simulate", {"since": "-P9999999D"}).status_code < 500
