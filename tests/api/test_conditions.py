"""Grants with conditions, denials and groups; what explains them, and what simulates a change of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from helpers.support import Api, SteeredClock, Template, World, kind_of
from helpers.tokens import ASSERTION_TYPE, PlatformIssuer, assertion, new_key, public_jwk
from kms.access import addresses
from kms.access.model import Role
from kms.config import Settings
from kms.operations import OPERATIONS, Service
from kms.operations.system.whereabouts import addresses_in, named_networks

PLAIN = {"plaintext": "aGVsbG8="}


def encrypt(api: Api, key_id: str = "orders", source: str = "127.0.0.1") -> Any:
    return api.http.post(
        f"/api/v1/keys/{key_id}/encrypt", json=PLAIN, headers=api.headers, environ_overrides={"REMOTE_ADDR": source}
    )


@pytest.fixture
def alice(world: World) -> Api:
    """The owner of the key `orders`."""
    made = world.user("alice")
    made.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": "orders"})
    return made


def grant(api: Api, subject: str, **more: Any) -> Any:
    body = {"subject": subject, "permission": "keys:encrypt", "key_pattern": "orders", **more}
    return api.post("/api/v1/grants", body)


def test_a_grant_is_for_the_networks_that_it_names(world: World, alice: Api) -> None:
    bob = world.user("bob")
    assert grant(alice, "client:bob", conditions={"source": ["10.0.0.0/8", "2001:db8::/32"]}).status_code == 201
    for source, expected in (
        ("10.9.8.7", 200),
        ("::ffff:10.9.8.7", 200),
        ("2001:db8::5", 200),
        ("192.0.2.1", 403),
        ("10.9.8.7", 200),
        ("11.0.0.1", 403),
    ):
        assert encrypt(bob, source=source).status_code == expected, source


def test_a_grant_is_for_its_time(world: World, alice: Api, clock: SteeredClock) -> None:
    bob = world.user("bob")
    begins, ends = clock.now + timedelta(minutes=5), clock.now + timedelta(minutes=10)
    conditions = {"not_before": begins.isoformat(), "not_after": ends.isoformat()}
    made = grant(alice, "client:bob", conditions=conditions)
    assert made.status_code == 201
    assert set(made.json["conditions"]) == {"not_before", "not_after"}
    assert encrypt(bob).status_code == 403
    clock.advance(minutes=5)
    assert encrypt(bob).status_code == 200
    clock.advance(minutes=4, seconds=59)
    assert encrypt(bob).status_code == 200
    clock.advance(seconds=1)
    assert encrypt(bob).status_code == 403


def test_a_grant_may_ask_for_a_fresh_second_factor(world: World, alice: Api, clock: SteeredClock) -> None:
    made = world.enrol("carol")
    grant(alice, "client:carol", conditions={"second_factor_within": "PT15M"})
    code = pyotp.TOTP(made.totp_secret).at(clock.now)
    token = world.http.post("/auth/token", auth=("carol", made.client_secret), headers={"X-TOTP": code}).json
    carol = Api(world.http, {"Authorization": f"Bearer {token['access_token']}"}, "carol")
    assert encrypt(carol).status_code == 200
    clock.advance(minutes=15)
    late = encrypt(carol)
    assert late.status_code == 401
    assert kind_of(late) == "insufficient-user-authentication"
    assert 'max_age="900"' in late.headers["WWW-Authenticate"]
    clock.advance(seconds=30)
    code = pyotp.TOTP(made.totp_secret).at(clock.now)
    one_shot = world.http.post(
        "/api/v1/keys/orders/encrypt", json=PLAIN, auth=("carol", made.client_secret), headers={"X-TOTP": code}
    )
    assert one_shot.status_code == 200
    assert encrypt(world.login("carol")).status_code == 401  # a session that no person stands behind


def test_a_denial_outweighs_ownership_grants_and_roles(world: World, alice: Api) -> None:
    admin, bob = world.admin, world.user("bob")
    grant(alice, "client:bob")
    assert encrypt(bob).status_code == 200
    body = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "ord*", "effect": "deny"}
    assert alice.post("/api/v1/grants", body).status_code == 403
    denied = admin.post("/api/v1/grants", body)
    assert denied.status_code == 201, denied.text
    assert denied.json["owner"] == "*"
    assert encrypt(bob).status_code == 403
    assert encrypt(alice).status_code == 403
    assert alice.get("/api/v1/keys/orders").status_code == 200
    assert alice.delete(f"/api/v1/grants/{denied.json['grant_id']}").status_code == 404
    assert denied.json["grant_id"] in {each["grant_id"] for each in admin.get("/api/v1/grants").json["items"]}
    assert admin.delete(f"/api/v1/grants/{denied.json['grant_id']}").status_code == 200
    assert encrypt(alice).status_code == 200


def test_a_denial_holds_for_every_operation_on_a_key(world: World, alice: Api) -> None:
    every = sorted({str(each.permission) for each in OPERATIONS.values() if str(each.permission).startswith("keys:")})
    body = {"subject": "client:alice", "permissions": every, "key_pattern": "orders", "effect": "deny"}
    assert world.admin.post("/api/v1/grants", body).status_code == 201
    for operation in OPERATIONS.values():
        if "<key_id>" in operation.path:
            path = operation.path.replace("<key_id>", "orders").replace("<int:version>", "1")
            answer = alice.http.open(path, method=operation.method, json={}, headers=alice.headers)
            assert answer.status_code in (403, 404, 422), (operation.name, answer.text)
            assert answer.status_code != 422 or operation.request.__struct_fields__, operation.name
    assert alice.get("/api/v1/keys").json["items"] == []
    assert alice.get("/api/v1/keys/orders").status_code == 404
    alias = alice.put("/api/v1/aliases/other-name", {"key_id": "orders"})
    assert alias.status_code in (403, 404)
    assert alice.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": "orders"}).status_code == 403


def test_lists_go_round_no_denial(world: World, alice: Api) -> None:
    for number in range(5):
        alice.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": f"k{number}"})
    for name in ("k0", "k1", "k3"):
        body = {"subject": "client:alice", "permission": "keys:read", "key_pattern": name, "effect": "deny"}
        world.admin.post("/api/v1/grants", body)
    seen, cursor = [], ""
    while cursor is not None:
        page = alice.get(f"/api/v1/keys?limit=1{f'&cursor={cursor}' if cursor else ''}").json
        seen += [each["key_id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["k2", "k4", "orders"]
    alice.put("/api/v1/aliases/an-alias", {"key_id": "k2"})
    assert [each["alias"] for each in alice.get("/api/v1/aliases").json["items"]] == ["an-alias"]


@pytest.mark.parametrize(
    "more",
    [
        {"conditions": {"source": ["10.0.0.0/33"]}},
        {"conditions": {"source": ["10.0.0.1/8"]}},
        {"conditions": {"source": ["example.com"]}},
        {"conditions": {"source": []}},
        {"conditions": {"second_factor_within": "PT1S"}},
        {"conditions": {"not_before": "2030-01-01T00:00:00Z", "not_after": "2029-01-01T00:00:00Z"}},
        {"conditions": {"weekday": "monday"}},
        {"effect": "refuse"},
        {"subject": "group:nobody-made-it"},
    ],
)
def test_conditions_that_make_no_sense(shared_world: World, more: dict[str, Any]) -> None:
    body = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "*", **more}
    assert shared_world.admin.post("/api/v1/grants", body).status_code in (404, 422)


@pytest.mark.parametrize(
    "more",
    [
        {"permission": "clients:manage"},
        {"conditions": {"second_factor_within": "PT5M"}},
        {"context_equals": {"a": "b"}},
        {"retired_by": "client:admin"},
    ],
)
def test_denials_that_make_no_sense(shared_world: World, more: dict[str, Any]) -> None:
    body = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "*", "effect": "deny", **more}
    assert shared_world.admin.post("/api/v1/grants", body).status_code == 422


def test_a_team_is_named_once(world: World, alice: Api) -> None:
    admin, bob, carol = world.admin, world.user("bob"), world.user("carol")
    assert alice.put("/api/v1/groups/team", {"members": ["alice"]}).status_code == 403
    assert admin.put("/api/v1/groups/team", {"members": ["nobody"]}).status_code == 404
    assert admin.put("/api/v1/groups/team", {"members": ["bob"], "description": "shop"}).status_code == 200
    assert grant(alice, "group:team").status_code == 201
    assert (encrypt(bob).status_code, encrypt(carol).status_code) == (200, 404)
    assert bob.get("/api/v1/grants").json["items"][0]["subject"] == "group:team"
    assert admin.put("/api/v1/groups/team/members/carol", {}).status_code == 200
    assert encrypt(carol).status_code == 200
    assert admin.delete("/api/v1/groups/team/members/bob").status_code == 200
    assert encrypt(bob).status_code == 404
    assert admin.put("/api/v1/groups/team", {"members": ["bob"]}).json["members"] == ["bob"]
    assert (encrypt(bob).status_code, encrypt(carol).status_code) == (200, 404)
    admin.delete("/api/v1/clients/bob")
    assert admin.get("/api/v1/groups/team").json["members"] == []
    admin.put("/api/v1/groups/team/members/carol", {})
    assert admin.delete("/api/v1/groups/team").status_code == 200
    assert encrypt(carol).status_code == 404
    admin.put("/api/v1/groups/team", {"members": ["carol"]})  # of the same name, and with no grant to it
    assert encrypt(carol).status_code == 404


def explained(api: Api, **body: Any) -> Any:
    return api.post("/api/v1/policy/explain", {"permission": "keys:encrypt", "key_id": "orders", **body}).json


def test_a_decision_explains_itself(world: World, alice: Api) -> None:
    bob, admin = world.user("bob"), world.admin
    told = explained(alice, client_id="bob")
    assert told["allowed"] is False
    assert [(each["rule"], each["matches"]) for each in told["because"]] == [("role user", False), ("default", True)]
    made = grant(alice, "client:bob", conditions={"source": ["10.0.0.0/8"]}).json["grant_id"]
    told = explained(alice, client_id="bob", source="192.0.2.1")
    assert (told["allowed"], told["because"][1]["rule"]) == (False, f"grant {made}")
    assert told["because"][1]["why"] == "It is for callers from 10.0.0.0/8, and not from 192.0.2.1."
    assert explained(alice, client_id="bob", source="10.0.0.1")["allowed"] is True
    body = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "*", "effect": "deny"}
    admin.post("/api/v1/grants", body)
    told = explained(admin, client_id="bob", source="10.0.0.1")
    assert told["allowed"] is False
    assert {each["effect"]: each["matches"] for each in told["because"] if each["effect"] == "deny"} == {"deny": True}
    assert encrypt(bob, source="10.0.0.1").status_code == 403
    stranger = world.user("stranger")
    refused = stranger.post("/api/v1/policy/explain", {"permission": "keys:encrypt", "key_id": "orders"})
    assert refused.status_code == 404
    about_alice = bob.post(
        "/api/v1/policy/explain", {"permission": "keys:encrypt", "key_id": "orders", "client_id": "alice"}
    )
    assert about_alice.status_code == 403


def test_a_narrow_session_is_told_of_its_scope(world: World, alice: Api) -> None:
    with world.service.vault.change() as change:
        caller = world.service.authenticator.session(alice.headers["Authorization"].removeprefix("Bearer "))
        token, _ = world.service.authenticator.issue(change, caller, frozenset({"keys:read"}))
    child = Api(world.http, {"Authorization": f"Bearer {token}"}, "alice")
    told = explained(child)
    assert told["allowed"] is False
    assert told["because"][0] == {
        "rule": "scope",
        "effect": "deny",
        "matches": True,
        "why": "The session is narrowed to keys:read.",
    }


def test_a_change_is_tried_on_what_was_done(world: World, alice: Api) -> None:
    admin, bob = world.admin, world.user("bob")
    made = grant(alice, "client:bob").json["grant_id"]
    for _ in range(3):
        assert encrypt(bob).status_code == 200
    alice.post("/api/v1/keys/orders/encrypt", {"items": [PLAIN] * 7})
    world.service.clock.advance(seconds=1)  # type: ignore[attr-defined]
    told = admin.post("/api/v1/policy/simulate", {"remove": [made], "since": "P1D"}).json
    assert told["changed"] == [
        {
            "client_id": "bob", "permission": "keys:encrypt", "key_id": "orders",
            "before": True, "after": False, "uses": 3,
        }
    ]  # fmt: skip
    deny = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "orders", "effect": "deny"}
    told = admin.post("/api/v1/policy/simulate", {"add": [deny]}).json
    assert {(each["client_id"], each["uses"]) for each in told["changed"]} == {("alice", 7), ("bob", 3)}
    assert told["entries"] >= 5
    assert told["unseen"] == []
    assert encrypt(bob).status_code == 200  # nothing was changed
    assert alice.post("/api/v1/policy/simulate", {"remove": [made]}).status_code == 403
    assert admin.post("/api/v1/policy/simulate", {"remove": ["0" * 32]}).status_code == 404
    nothing = {"subject": "role:user", "key_pattern": "*"}
    assert admin.post("/api/v1/policy/simulate", {"add": [nothing]}).status_code == 422


def test_a_simulation_says_what_the_log_does_not_show_enough_for(world: World, alice: Api) -> None:
    bob = world.user("bob")
    grant(alice, "client:bob")
    for source in ("10.1.1.1", "10.1.1.200", "10.1.2.1", "192.0.2.1"):
        assert encrypt(bob, source=source).status_code == 200
    world.service.clock.advance(seconds=1)  # type: ignore[attr-defined]
    deny = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "orders", "effect": "deny"}

    def told(network: str) -> tuple[int, int]:
        added = {**deny, "conditions": {"source": [network]}}
        answer = world.admin.post("/api/v1/policy/simulate", {"add": [added]}).json
        return sum(each["uses"] for each in answer["changed"]), answer["undecided"]

    assert told("10.1.0.0/16") == (3, 0)  # wholly in it
    assert told("10.1.2.0/24") == (1, 0)
    assert told("10.1.1.128/25") == (0, 2)  # of 10.1.1.0/24 the log does not tell which half
    assert told("10.1.1.1/32") == (0, 2)
    assert told("172.16.0.0/12") == (0, 0)


def test_a_simulation_without_addresses_decides_what_does_not_depend_on_them() -> None:
    named = frozenset({addresses.network("10.0.0.0/8"), addresses.network("2001:db8::/32")})
    for shown in ("none", "hashed:AAAAAAAAAAAAAAAAAAAAAA"):
        found = addresses_in(shown, named)
        inside = {each for each in found if any(addresses.address(each) in network for network in named)}
        assert inside
        assert set(found) - inside
    assert addresses_in("192.0.2.7", named) == ["192.0.2.7"]
    assert addresses_in("local", named) == ["local"]
    assert addresses_in("10.1.1.0/24", named) == ["10.1.1.0"]
    policy = '{"Statement":[{"Condition":{"NotIpAddress":{"aws:SourceIp":["10.1.1.64/26"]}}}]}'
    assert addresses_in("10.1.1.0/24", named_networks((), policy)) == ["10.1.1.0", "10.1.1.64", "10.1.1.128"]


@pytest.fixture
def other_node(world: World, template: Template, settings: Settings) -> Any:
    """A second worker on the same vault."""
    opened = Service.open(settings, world.service.clock)
    yield World.of(opened)
    opened.close()


def test_an_assertion_is_taken_on_one_node_only(world: World, other_node: World) -> None:
    world.enrol("app")
    key = new_key()
    world.admin.post("/api/v1/clients/app/public-keys", {"jwk": public_jwk(key)})
    form = {
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion(key, "app", world.service.clock().timestamp()),
    }
    assert world.http.post("/auth/token", data=form).status_code == 200
    assert other_node.http.post("/auth/token", data=form).status_code == 401


@pytest.mark.parametrize("end", ["key", "role", "issuer", "access key", "client", "session"])
def test_an_end_holds_on_the_other_node_at_once(world: World, other_node: World, end: str) -> None:
    """Whatever proved a session: once its end has answered, no worker acts on it."""
    made, key, admin = PlatformIssuer(), new_key(), world.admin
    world.enrol("app")
    kid = admin.post("/api/v1/clients/app/public-keys", {"jwk": public_jwk(key)}).json["kid"]
    body = {"issuer": made.issuer, "audience": "kms", "jwks": made.jwks}
    issuer_id = admin.post("/api/v1/issuers", body).json["issuer_id"]
    role = {"role": "pay", "issuer": made.issuer, "claims": {"sub": "a:*"}, "client_id": "app"}
    admin.post("/api/v1/issuer-roles", role)
    at = world.service.clock().timestamp()
    programs, source = world.service.programs, "192.0.2.1"
    access = world.login("app", Role.USER).post("/api/v1/access-keys", {}).json
    proofs: dict[str, Callable[[], Any]] = {
        "key": lambda: programs.by_client_assertion(assertion(key, "app", at), source),
        "role": lambda: programs.by_platform_token(made.token("a:b", at), "pay", source),
        "access key": lambda: programs.by_access_key(access["access_key_id"], access["secret_access_key"], source),
    }
    paths = {
        "key": f"/api/v1/clients/app/public-keys/{kid}",
        "role": "/api/v1/issuer-roles/pay",
        "issuer": f"/api/v1/issuers/{issuer_id}",
        "access key": f"/api/v1/access-keys/{access['access_key_id']}",
        "client": "/api/v1/clients/app",
        "session": "/api/v1/clients/app/sessions",
    }
    caller = proofs.get(end, proofs["role"])()
    with world.service.vault.change() as change:
        token, _ = world.service.authenticator.issue(change, caller)
    elsewhere = Api(other_node.http, {"Authorization": f"Bearer {token}"}, "app")
    assert elsewhere.get("/api/v1/keys").status_code == 200
    assert admin.delete(paths[end]).status_code == 200
    assert elsewhere.get("/api/v1/keys").status_code == 401


def test_a_session_is_made_by_nobody_who_was_ended_meanwhile(world: World) -> None:
    """Between the proof and the session: the transaction that makes it looks again."""
    world.enrol("app")
    key, admin = new_key(), world.admin
    kid = admin.post("/api/v1/clients/app/public-keys", {"jwk": public_jwk(key)}).json["kid"]
    at = world.service.clock().timestamp()
    caller = world.service.programs.by_client_assertion(assertion(key, "app", at), "192.0.2.1")
    admin.delete(f"/api/v1/clients/app/public-keys/{kid}")
    with world.service.vault.change() as change, pytest.raises(Exception, match="not valid"):
        world.service.authenticator.still(change, caller, world.service.clock())
