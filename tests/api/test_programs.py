"""Programs log in without a person: by their own key, a platform's token, and narrower sessions of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from helpers.support import Api, World, kind_of
from helpers.tokens import (
    ACCESS_TOKEN,
    ASSERTION_TYPE,
    JWT_BEARER,
    TOKEN_EXCHANGE,
    PlatformIssuer,
    assertion,
    new_key,
    public_jwk,
    public_pem,
)
from kms.access import policy
from kms.access.model import Role
from kms.access.policy import Permission
from kms.api import examples
from kms.errors import AuthenticationFailed, PermissionDenied
from kms.operations import OPERATIONS, FromAnswerOf

PAY = {"sub": "system:serviceaccount:prod:pay-*"}
GRANT = {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "*"}
SUBJECT = "system:serviceaccount:prod:pay-7"


def token_of(world: World, **form: str) -> Any:
    return world.http.post("/auth/token", data=form)


def by_key(world: World, signed: str, **form: str) -> Any:
    return token_of(
        world,
        grant_type="client_credentials",
        client_assertion_type=ASSERTION_TYPE,
        client_assertion=signed,
        **form,
    )


def by_token(world: World, token: str, role: str = "pay", **form: str) -> Any:
    return token_of(world, grant_type=JWT_BEARER, assertion=token, role=role, **form)


def session(world: World, answer: Any, client_id: str) -> Api:
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, client_id)


def with_person(world: World, client_id: str, *roles: Role) -> Api:
    """A new client whose person has just given the second factor."""
    made = world.enrol(client_id, *roles)
    code = pyotp.TOTP(made.totp_secret).at(world.service.clock())
    answer = world.http.post("/auth/token", auth=(client_id, made.client_secret), headers={"X-TOTP": code})
    return session(world, answer, client_id)


def now(world: World) -> float:
    return world.service.clock().timestamp()


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "Ed25519", "PS256", "RS256"])
def test_a_program_logs_in_with_its_own_key(shared_world: World, alg: str) -> None:
    world = shared_world
    owner = with_person(world, f"app-{alg.lower()}")
    key = new_key(alg)
    body = {"jwk": public_jwk(key)} if alg != "PS256" else {"public_key": public_pem(key)}
    made = owner.post(f"/api/v1/clients/{owner.client_id}/public-keys", body)
    assert made.status_code == 201, made.text
    answer = by_key(world, assertion(key, owner.client_id, now(world), alg))
    program = session(world, answer, owner.client_id)
    assert program.post("/api/v1/keys", {"type": "aes-256-gcm"}).status_code == 201
    listed = owner.get(f"/api/v1/clients/{owner.client_id}/sessions").json["items"]
    assert f"key:{made.json['kid']}" in {each["credential"] for each in listed}
    assert owner.delete(f"/api/v1/clients/{owner.client_id}/public-keys/{made.json['kid']}").status_code == 200
    assert program.get("/api/v1/keys").status_code == 401
    assert by_key(world, assertion(key, owner.client_id, now(world), alg)).status_code == 401


def test_an_assertion_works_once(shared_world: World) -> None:
    owner = with_person(shared_world, "once")
    key = new_key()
    owner.post("/api/v1/clients/once/public-keys", {"jwk": public_jwk(key)})
    signed = assertion(key, "once", now(shared_world))
    assert by_key(shared_world, signed).status_code == 200
    again = by_key(shared_world, signed)
    assert again.status_code == 401
    assert "jti" in again.json["detail"]


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"aud": "https://other.example"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": ["https://localhost:8443", 1]}, "aud"),
        ({"exp": None}, "exp"),
        ({"exp": 1}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": "99999999999"}, "exp"),
        ({"exp": 99_999_999_999}, "exp"),
        ({"nbf": 99_999_999_999}, "nbf"),
        ({"iss": "another"}, "iss"),
        ({"jti": None}, "jti"),
        ({"jti": 7}, "jti"),
    ],
)
def test_an_assertion_that_does_not_fit_is_told_why(
    shared_world: World, strict_client: tuple[Api, Any], claims: dict[str, Any], told: str
) -> None:
    owner, key = strict_client
    answer = by_key(shared_world, assertion(key, owner.client_id, now(shared_world), **claims))
    assert answer.status_code == 401
    assert told in answer.json["detail"]


@pytest.fixture(scope="module")
def strict_client(shared_world: World) -> tuple[Api, Any]:
    owner = with_person(shared_world, "strict")
    key = new_key()
    owner.post("/api/v1/clients/strict/public-keys", {"jwk": public_jwk(key)})
    return owner, key


def test_another_key_and_an_unknown_client_are_told_the_same(
    shared_world: World, strict_client: tuple[Api, Any]
) -> None:
    at = now(shared_world)
    wrong = [by_key(shared_world, assertion(new_key(), each, at)) for each in ("strict", "nobody-at-all", "admin")]
    assert {answer.status_code for answer in wrong} == {401}
    assert len({answer.json["detail"] for answer in wrong}) == 1


def test_a_key_needs_a_fresh_second_factor_of_the_client(world: World) -> None:
    owner = with_person(world, "stale")
    world.service.clock.advance(minutes=6)  # type: ignore[attr-defined]
    answer = owner.post("/api/v1/clients/stale/public-keys", {"jwk": public_jwk(new_key())})
    assert answer.status_code == 401
    assert kind_of(answer) == "insufficient-user-authentication"
    challenge = answer.headers["WWW-Authenticate"]
    assert 'error="insufficient_user_authentication"' in challenge
    assert 'max_age="300"' in challenge
    assert world.admin.post("/api/v1/clients/stale/public-keys", {"jwk": public_jwk(new_key())}).status_code == 201
    assert world.user("other").post("/api/v1/clients/stale/public-keys", {"jwk": {}}).status_code == 403


def test_a_program_cannot_let_another_in(shared_world: World) -> None:
    owner = with_person(shared_world, "chain")
    key = new_key()
    owner.post("/api/v1/clients/chain/public-keys", {"jwk": public_jwk(key)})
    program = session(shared_world, by_key(shared_world, assertion(key, "chain", now(shared_world))), "chain")
    answer = program.post("/api/v1/clients/chain/public-keys", {"jwk": public_jwk(new_key())})
    assert kind_of(answer) == "insufficient-user-authentication"


def test_what_a_key_made_ends_with_it(shared_world: World) -> None:
    owner = with_person(shared_world, "cascade")
    key = new_key()
    made = owner.post("/api/v1/clients/cascade/public-keys", {"jwk": public_jwk(key)}).json
    program = session(shared_world, by_key(shared_world, assertion(key, "cascade", now(shared_world))), "cascade")
    child = session(shared_world, exchanged(shared_world, program, scope="keys:read"), "cascade")
    program.post("/api/v1/access-keys", {})
    assert len(owner.get("/api/v1/access-keys").json["items"]) == 1
    owner.delete(f"/api/v1/clients/cascade/public-keys/{made['kid']}")
    assert child.get("/api/v1/keys").status_code == 401
    assert owner.get("/api/v1/access-keys").json["items"] == []
    assert owner.get("/api/v1/keys").status_code == 200


def exchanged(world: World, parent: Api, **form: str) -> Any:
    token = parent.headers["Authorization"].removeprefix("Bearer ")
    return token_of(world, grant_type=TOKEN_EXCHANGE, subject_token=token, subject_token_type=ACCESS_TOKEN, **form)


@pytest.fixture(scope="module")
def issuer(shared_world: World) -> PlatformIssuer:
    made = PlatformIssuer()
    shared_world.enrol("pay")
    admin = shared_world.admin
    body = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    assert admin.post("/api/v1/issuers", body).status_code == 201
    role = {"role": "pay", "issuer": made.issuer, "claims": PAY, "client_id": "pay", "token_lifetime": "PT10M"}
    assert admin.post("/api/v1/issuer-roles", role).status_code == 201
    return made


def test_a_platform_s_token_lets_a_program_in(shared_world: World, issuer: PlatformIssuer) -> None:
    answer = by_token(shared_world, issuer.token(SUBJECT, now(shared_world)))
    program = session(shared_world, answer, "pay")
    assert answer.json["expires_in"] == 600
    assert program.post("/api/v1/keys", {"type": "aes-256-gcm"}).status_code == 201
    shown = program.get("/api/v1/clients/pay/sessions").json["items"][0]
    assert shown["credential"] == "issuer-role:pay"
    assert shown["subject"] == f"{issuer.issuer} {SUBJECT}"
    entry = shared_world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    logins = [each for each in entry if each["operation"] == "issue_token"]
    assert ("issuer-role:pay", shown["subject"]) in {(each.get("credential"), each.get("subject")) for each in logins}


@pytest.mark.parametrize(("lifetime", "seconds"), [({"token_lifetime": "PT10M"}, 600), ({}, 3600)])
def test_a_platform_s_token_never_makes_a_session_that_lives_long(
    shared_world: World, issuer: PlatformIssuer, lifetime: dict[str, str], seconds: int
) -> None:
    name = f"scrape-{seconds}"
    role = {"role": name, "issuer": issuer.issuer, "claims": PAY, "client_id": "pay", "scope": "metrics:read"}
    assert shared_world.admin.post("/api/v1/issuer-roles", role | lifetime).status_code == 201
    token = issuer.token(SUBJECT, now(shared_world))
    assert by_token(shared_world, token, name).json["expires_in"] == seconds
    assert by_token(shared_world, token, name, expires_in="86400").status_code == 422
    shared_world.admin.delete(f"/api/v1/issuer-roles/{name}")


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "system:serviceaccount:prod:pay-x:admin"},
        {"sub": "system:serviceaccount:prod:pay"},
        {"sub": ["system:serviceaccount:prod:pay-1"]},
        {"iss": "https://issuer.example/"},
        {"iss": "https://ISSUER.example"},
        {"aud": "kms2"},
        {"aud": {"kms": True}},
        {"exp": 5},
        {"nbf": 99_999_999_999},
    ],
)
def test_a_token_that_says_something_else_does_not(
    shared_world: World, issuer: PlatformIssuer, claims: dict[str, Any]
) -> None:
    assert by_token(shared_world, issuer.token(SUBJECT, now(shared_world), **claims)).status_code == 401


def test_the_key_of_one_issuer_is_not_good_for_another(shared_world: World, issuer: PlatformIssuer) -> None:
    other = PlatformIssuer("https://other.example")
    body = {"issuer": other.issuer, "audience": "kms", "jwks": other.jwks}
    assert shared_world.admin.post("/api/v1/issuers", body).status_code == 201
    forged = other.token(SUBJECT, now(shared_world), iss=issuer.issuer)
    assert by_token(shared_world, forged).status_code == 401
    assert by_token(shared_world, other.token(SUBJECT, now(shared_world))).status_code == 401


@pytest.mark.parametrize("what", ["role", "issuer"])
def test_the_end_of_a_role_or_issuer_ends_its_sessions(world: World, what: str) -> None:
    made = PlatformIssuer()
    world.enrol("pay")
    admin = world.admin
    body = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    issuer_id = admin.post("/api/v1/issuers", body).json["issuer_id"]
    admin.post("/api/v1/issuer-roles", {"role": "pay", "issuer": issuer_id, "claims": PAY, "client_id": "pay"})
    program = session(world, by_token(world, made.token(SUBJECT, now(world))), "pay")
    assert program.get("/api/v1/keys").status_code == 200
    path = "/api/v1/issuer-roles/pay" if what == "role" else f"/api/v1/issuers/{issuer_id}"
    assert admin.delete(path).status_code == 200
    assert program.get("/api/v1/keys").status_code == 401
    assert by_token(world, made.token(SUBJECT, now(world))).status_code == 401


def test_a_narrow_session_does_what_its_scope_says(shared_world: World) -> None:
    owner = with_person(shared_world, "narrow")
    for key_id in ("orders-1", "other-1"):
        assert owner.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": key_id}).status_code == 201
    child = session(shared_world, exchanged(shared_world, owner, scope="keys:encrypt@orders-*"), "narrow")
    plain = {"plaintext": "aGVsbG8="}
    sealed = child.post("/api/v1/keys/orders-1/encrypt", plain)
    assert sealed.status_code == 200
    refused: list[Callable[[], Any]] = [
        lambda: child.post("/api/v1/keys/other-1/encrypt", plain),
        lambda: child.post("/api/v1/keys/orders-1/decrypt", {"ciphertext": sealed.json["ciphertext"]}),
        lambda: child.post("/api/v1/keys", {"type": "aes-256-gcm", "key_id": "orders-2"}),
        lambda: child.post("/api/v1/access-keys", {}),
        lambda: child.get("/api/v1/keys/orders-1"),
        lambda: child.delete("/api/v1/clients/narrow/sessions"),
        lambda: child.post(
            "/api/v1/grants", {"subject": "role:user", "permission": "keys:encrypt", "key_pattern": "*"}
        ),
        lambda: exchanged(shared_world, child, scope="keys:encrypt@*"),
        lambda: exchanged(shared_world, child, scope="keys:encrypt@o*"),
        lambda: exchanged(shared_world, child, scope="keys:decrypt@orders-*"),
        lambda: child.post("/generate_symmetric_key", {}),
    ]
    assert {each().status_code for each in refused} <= {403, 404}
    assert child.get("/api/v1/keys").json["items"] == []
    grandchild = session(shared_world, exchanged(shared_world, child, scope="keys:encrypt@orders-1"), "narrow")
    assert grandchild.post("/api/v1/keys/orders-1/encrypt", plain).status_code == 200
    inherited = exchanged(shared_world, child)
    assert inherited.json["scope"] == "keys:encrypt@orders-*"
    assert child.post("/auth/logout").status_code == 200
    assert grandchild.post("/api/v1/keys/orders-1/encrypt", plain).status_code == 401
    assert owner.post("/api/v1/keys/orders-1/encrypt", plain).status_code == 200


def test_a_narrow_session_does_nothing_else(shared_world: World) -> None:
    """Every operation there is, in a session of an administrator that may only scrape."""
    owner = with_person(shared_world, "boss", Role.ADMIN, Role.AUDITOR)
    owner.post("/generate_symmetric_key")
    narrow = session(shared_world, exchanged(shared_world, owner, scope="metrics:read"), "boss")
    values = {"key_id": "boss_symmetric", "client_id": "boss", "version": "1", "alias": "x", "group": "g"}
    for operation in OPERATIONS.values():
        if operation.is_public or operation.name in {"metrics", "get_status", "issue_token", "end_session"}:
            continue
        path = re.sub(r"<(?:int:)?(\w+)>", lambda found: values.get(found[1], "0" * 24), operation.path)
        request = examples.request_of(operation)
        body = {name: each for name, each in (request or {}).items() if not isinstance(each, FromAnswerOf)}
        answer = narrow.http.open(path, method=operation.method, json=body, headers=narrow.headers)
        is_empty = answer.status_code == 200 and (
            answer.json == {"items": [], "next_cursor": None}
            or (operation.name == "get_inventory" and "boss_symmetric" not in answer.text)
        )
        assert is_empty or answer.status_code in (403, 404, 422), (operation.name, answer.text)
    assert narrow.get("/metrics").status_code == 200
    assert owner.get("/api/v1/keys/boss_symmetric").json["state"] == "active"


def test_a_narrow_session_lets_nobody_in(shared_world: World) -> None:
    owner = with_person(shared_world, "no-doors")
    narrow = session(shared_world, exchanged(shared_world, owner, scope="sessions:manage"), "no-doors")
    answer = narrow.post("/api/v1/clients/no-doors/public-keys", {"jwk": public_jwk(new_key())})
    assert answer.status_code == 403


def test_an_access_key_does_not_make_itself_live_on(world: World) -> None:
    owner = with_person(world, "rolling")
    first = owner.post("/api/v1/access-keys", {"expires_in": 600}).json
    caller = world.service.programs.by_access_key(first["access_key_id"], first["secret_access_key"], "192.0.2.1")
    with world.service.vault.change() as change:
        token, record = world.service.authenticator.issue(change, caller)
    program = Api(world.http, {"Authorization": f"Bearer {token}"}, "rolling")
    assert record.expires_at == caller.expires_at
    second = program.post("/api/v1/access-keys", {})
    assert second.json["expires_at"] <= first["expires_at"]
    assert world.service.clock() + timedelta(hours=1) > record.expires_at
    assert owner.delete(f"/api/v1/access-keys/{first['access_key_id']}").status_code == 200
    assert owner.get("/api/v1/access-keys").json["items"] == []
    assert program.get("/api/v1/keys").status_code == 401


def test_a_long_line_of_children_ends_with_the_first(world: World) -> None:
    owner = with_person(world, "ancestor")
    caller = world.service.authenticator.session(owner.headers["Authorization"].removeprefix("Bearer "))
    for _ in range(1200):
        with world.service.vault.change() as change:
            token, record = world.service.authenticator.issue(change, caller)
        caller = replace(caller, token=record)
    last = Api(world.http, {"Authorization": f"Bearer {token}"}, "ancestor")
    assert last.get("/api/v1/keys").status_code == 200
    assert owner.post("/auth/logout").status_code == 200
    assert last.get("/api/v1/keys").status_code == 401


def test_a_child_ends_no_later_than_its_parent(world: World) -> None:
    owner = with_person(world, "parent")
    world.service.clock.advance(minutes=50)  # type: ignore[attr-defined]
    answer = exchanged(world, owner, expires_in="3600")
    assert answer.json["expires_in"] <= 600
    assert exchanged(world, owner, expires_in="3601").status_code == 422


def test_a_scraper_keeps_its_token_for_long(world: World) -> None:
    made = world.enrol("prometheus", Role.AUDITOR)
    code = pyotp.TOTP(made.totp_secret).at(world.service.clock())
    form = {"scope": "metrics:read", "expires_in": str(300 * 86400)}
    answer = world.http.post(
        "/auth/token", data=form, auth=("prometheus", made.client_secret), headers={"X-TOTP": code}
    )
    scraper = session(world, answer, "prometheus")
    assert answer.json["expires_in"] == 300 * 86400
    world.service.clock.advance(days=299)  # type: ignore[attr-defined]
    assert scraper.get("/metrics").status_code == 200
    assert scraper.get("/api/v1/audit/entries").status_code == 403
    assert scraper.get("/api/v1/clients").status_code == 403
    world.service.clock.advance(days=2)  # type: ignore[attr-defined]
    assert scraper.get("/metrics").status_code == 401


def test_a_token_cannot_make_itself_live_on(shared_world: World) -> None:
    owner = with_person(shared_world, "again")
    bearer = shared_world.http.post("/auth/token", headers=owner.headers, data={"grant_type": "client_credentials"})
    assert bearer.status_code == 401
    wide = exchanged(shared_world, owner, scope="metrics:read", expires_in=str(86400 * 30))
    assert wide.json["expires_in"] <= 3600


def test_sessions_and_credentials_are_listed_and_ended(world: World) -> None:
    owner = with_person(world, "many")
    other = world.login("many", Role.USER)
    key = new_key()
    owner.post("/api/v1/clients/many/public-keys", {"jwk": public_jwk(key)})
    owner.post("/api/v1/access-keys", {})
    sessions = owner.get("/api/v1/clients/many/sessions").json["items"]
    assert len(sessions) == 2
    kinds = [
        each["credential"].partition(":")[0] for each in owner.get("/api/v1/clients/many/credentials").json["items"]
    ]
    assert kinds == ["secret", "recovery-codes", "key", "access-key"]
    stranger = world.user("stranger")
    for path in ("sessions", "credentials"):
        assert stranger.get(f"/api/v1/clients/many/{path}").status_code == 403
        assert stranger.delete(f"/api/v1/clients/many/{path}").status_code == 403
    first = next(each for each in sessions if each.get("second_factor_at") is None)
    assert owner.delete(f"/api/v1/clients/many/sessions/{first['session_id']}").status_code == 200
    assert other.get("/api/v1/keys").status_code == 401
    ended = world.admin.delete("/api/v1/clients/many/credentials").json
    assert ended == {"sessions": 1, "access_keys": 1, "credentials": 1}
    assert owner.get("/api/v1/keys").status_code == 401
    assert by_key(world, assertion(key, "many", now(world))).status_code == 401


def test_an_access_key_is_as_narrow_as_what_made_it(shared_world: World) -> None:
    owner = with_person(shared_world, "keys-narrow")
    child = session(shared_world, exchanged(shared_world, owner, scope="sessions:manage keys:read"), "keys-narrow")
    made = child.post("/api/v1/access-keys", {"scope": "keys:read"})
    assert made.status_code == 201
    assert child.post("/api/v1/access-keys", {"scope": "keys:encrypt"}).status_code == 403
    assert child.post("/api/v1/access-keys", {"scope": "keys:fly"}).status_code == 422
    child.post("/api/v1/access-keys", {})
    shown = owner.get("/api/v1/access-keys").json["items"]
    assert {each["scope"] for each in shown} == {"keys:read", "keys:read sessions:manage"}
    program = shared_world.service.programs.by_access_key(
        made.json["access_key_id"], made.json["secret_access_key"], "192.0.2.1"
    )
    assert program.scope is not None
    assert program.scope.words == {"keys:read"}
    assert program.credential == f"access-key:{made.json['access_key_id']}"
    stranger = shared_world.user("keys-stranger")
    path = f"/api/v1/access-keys/{made.json['access_key_id']}"
    assert stranger.delete(path).status_code == 404
    assert shared_world.admin.delete(path).status_code == 200


def test_an_access_key_that_needs_a_second_factor_does_nothing(shared_world: World) -> None:
    owner = with_person(shared_world, "needs-code")
    made = owner.post("/api/v1/access-keys", {"needs_second_factor": True, "expires_in": 86400 * 300})
    assert made.status_code == 201
    assert owner.post("/api/v1/access-keys", {"expires_in": 86400 * 300}).status_code == 422
    with pytest.raises(AuthenticationFailed):
        shared_world.service.programs.by_access_key(
            made.json["access_key_id"], made.json["secret_access_key"], "192.0.2.1"
        )
    caller = shared_world.service.authenticator.access_key(made.json["access_key_id"]).caller
    for permission in Permission:
        assert not policy.has_permission(caller, permission)
    with pytest.raises(PermissionDenied), shared_world.service.vault.change() as change:
        shared_world.service.authenticator.issue(change, caller)


def test_guessing_is_locked_out_and_telling_why_is_not(world: World) -> None:
    owner = with_person(world, "guessed")
    key = new_key()
    owner.post("/api/v1/clients/guessed/public-keys", {"jwk": public_jwk(key)})
    for _ in range(8):  # whoever has the key is told, and not locked out
        assert by_key(world, assertion(key, "guessed", now(world), aud="x")).status_code == 401
    assert by_key(world, assertion(key, "guessed", now(world))).status_code == 200
    for _ in range(6):
        by_key(world, assertion(new_key(), "guessed", now(world)))
    assert by_key(world, assertion(key, "guessed", now(world))).status_code == 429
    world.service.clock.advance(seconds=2)  # type: ignore[attr-defined]
    assert by_key(world, assertion(key, "guessed", now(world))).status_code == 200


def test_several_proofs_at_once_are_refused(shared_world: World) -> None:
    made = shared_world.enrol("two-proofs")
    code = pyotp.TOTP(made.totp_secret).at(shared_world.service.clock())
    answer = shared_world.http.post(
        "/auth/token",
        data={"client_assertion": "x", "client_assertion_type": ASSERTION_TYPE},
        auth=("two-proofs", made.client_secret),
        headers={"X-TOTP": code},
    )
    assert answer.status_code == 422
    assert shared_world.http.post("/auth/token", data=b"a=1&a=2", content_type="application/x-www-form-urlencoded")


def test_a_disabled_client_is_not_let_in(world: World) -> None:
    owner = with_person(world, "gone")
    key = new_key()
    owner.post("/api/v1/clients/gone/public-keys", {"jwk": public_jwk(key)})
    world.admin.post("/api/v1/clients/gone/disable")
    assert by_key(world, assertion(key, "gone", now(world))).status_code == 401
    assert timedelta(hours=1) == world.service.settings.token_lifetime
