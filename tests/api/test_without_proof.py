"""Strangers at every route that there is: without a proof of who asks nothing is changed or told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import select

from helpers.console import SAME_ORIGIN
from helpers.support import Api, World
from helpers.vault_client import Vault
from helpers.wsgi import answer_of, environ_of, signed
from kms.access.model import Role
from kms.api import examples
from kms.api.aws.request import ACTIONS
from kms.api.aws.sts import STS_ACTIONS
from kms.api.aws.sts_door import FORM
from kms.api.console.routes import ROUTES as PAGES
from kms.api.transit.routes import ROUTES
from kms.operations import OPERATIONS, FromAnswerOf
from kms.vault import tables

OPEN = {
    "livez", "readyz", "jwks", "client_jwks", "audit_key", "openapi", "home", "docs", "problem",
    "passkey_request_options",  # a challenge: nothing is kept of it
    "console:login_form", "console:static", "console:logout",  # which logs nobody out without the session's form
}  # fmt: skip
"""What answers a stranger, and tells or changes nothing of anybody's."""

PROVEN_IN_THE_BODY = {"issue_token", "console:login"}
"""The ways in themselves: they refuse a body that proves nobody."""

OPEN_IN_TRANSIT = {"health", "initialized", "leader", "seal_status"}
LOGINS_IN_TRANSIT = {"login", "jwt_login", "kubernetes_login", "approle_login", "cert_login"}
UNSIGNED = {"AssumeRoleWithWebIdentity"}  # the platform's token is the proof


@pytest.fixture(scope="module")
def world(unlimited_world: World) -> World:
    """A vault in which a user and an administrator have something to lose."""
    user = unlimited_world.user("user1")
    assert user.post("/generate_symmetric_key").status_code == 200
    for key_id, body in {"orders": {}, **examples.KEYS}.items():
        assert user.post("/api/v1/keys", {"key_id": key_id, "exportable": True, **body}).status_code == 201
    assert user.put("/api/v1/aliases/current", {"key_id": "orders"}).status_code == 200
    return unlimited_world


@pytest.fixture(scope="module")
def ended(world: World) -> Api:
    """A session that was good, until its client logged out."""
    made = world.login("admin", Role.ADMIN)
    assert made.get("/api/v1/clients").status_code == 200
    assert made.post("/auth/logout").status_code == 200
    return made


@pytest.fixture
def unchanged(world: World, ended: Api) -> Iterator[None]:
    """Holds every row there is, but those in which nodes say that they live, against what it was before."""
    before = rows(world)
    yield
    assert rows(world) == before


def rows(world: World) -> dict[str, list[str]]:
    with world.service.vault.engine.connect() as connection:
        return {
            table.name: sorted(repr(tuple(row)) for row in connection.execute(select(table)))
            for table in tables.metadata.sorted_tables
            if table is not tables.nodes
        }


def strangers(ended: Api) -> list[dict[str, str]]:
    """The headers of those who prove nobody."""
    token = ended.headers["Authorization"].removeprefix("Bearer ")
    return [
        {},
        {"Authorization": "Bearer kms-token-that-nobody-was-given"},
        {"Authorization": f"Bearer {token}"},
        {"X-Vault-Token": token},
        {"X-Vault-Token": "root"},
        {"X-Forwarded-User": "admin", "X-Remote-User": "admin", "Client-Cert": ":AAAA:"},
        {"Cookie": f"__Host-kms-console={token}"},
    ]


def path_of(rule: str) -> str:
    """A path as it is where what it names is there."""
    names = {"key_id": "orders", "name": "validation-failed", "digest": "x", "elsewhere": "x", "client_id": "user1"}

    def value(found: re.Match[str]) -> str:
        variable = found[1].rpartition(":")[2]
        return str(names.get(variable) or examples.sample(examples._VARIABLES.get(variable, "x")))

    return re.sub("<([^>]+)>", value, rule)


def body_of(endpoint: str) -> dict[str, Any]:
    """What would be carried out, were it asked for by somebody."""
    operation = OPERATIONS.get(endpoint)
    request = (examples.request_of(operation) or {}) if operation is not None else {}
    return {name: each for name, each in request.items() if not isinstance(each, FromAnswerOf)}


def test_every_route_of_the_application_refuses_a_stranger(world: World, ended: Api, unchanged: None) -> None:
    answered: dict[str, set[int]] = {}
    for rule in world.http.application.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            sends_form = rule.rule.startswith("/console")
            body = (
                {"data": {"csrf": "x" * 32, "reason": "superseded"}}
                if sends_form
                else {"json": body_of(rule.endpoint)}
            )
            for headers in strangers(ended):
                sent = headers | (SAME_ORIGIN if sends_form else {})
                answer = world.http.open(path_of(rule.rule), method=method, headers=sent, **body)
                answered.setdefault(rule.endpoint, set()).add(answer.status_code)
    pages = {each.endpoint for each in PAGES if each.method == "GET"} | {"console:nothing"}
    assert pages <= set(answered) and set(OPERATIONS) <= set(answered) and set(answered) >= OPEN
    found = {name for name, statuses in answered.items() if min(statuses) < 400} - pages
    assert found <= OPEN
    for name in pages:
        assert answered[name] == {303}, name  # to the log-in
    for name, statuses in answered.items():
        if name not in OPEN | PROVEN_IN_THE_BODY | pages:
            assert statuses == {401}, name
    for name in PROVEN_IN_THE_BODY:
        assert statuses_are(answered[name], {400, 401, 422}), (name, answered[name])


def statuses_are(found: set[int], among: set[int]) -> bool:
    return bool(found) and found <= among


def test_every_route_of_the_vault_dialect_refuses_a_stranger(world: World, ended: Api, unchanged: None) -> None:
    public = {each.function.__name__ for each in ROUTES if each.is_public}
    assert public == OPEN_IN_TRANSIT | LOGINS_IN_TRANSIT
    body = json.dumps({"plaintext": "AAAA", "input": "AAAA", "backup": "AAAA", "type": "aes256-gcm96", "token": "x"})
    tokens = ["", "root", "kms-token-that-nobody-was-given", Vault.of(world, ended).token]
    for route in ROUTES:
        path = re.sub(
            r"\(\?P<(\w+)>\[\^/\]\+\)", lambda found: "orders" if found[1] == "name" else "x", route.pattern.pattern
        )
        path = path.replace("~", "transit").replace("/?", "")
        for token in tokens:
            answer = Vault(world, token).send(route.methods[0], path, body.encode())
            name = route.function.__name__
            if name in OPEN_IN_TRANSIT:
                assert answer.status in (200, 503), name
            elif name in LOGINS_IN_TRANSIT:
                assert answer.status in (400, 403), (name, answer.content)
            else:
                assert answer.status == 403, (name, answer.content)
            assert b"client_token" not in answer.content


def unproven(world: World, ended: Api, action: str, body: bytes) -> list[dict[str, Any]]:
    """Requests that are not signed, or that nobody has signed who may."""
    clock = world.service.clock
    access = world.login("user1", Role.USER).post("/api/v1/access-keys", {}).json
    good = signed(access, clock, action, body)
    unsigned = {name: each for name, each in good.items() if name != "HTTP_AUTHORIZATION"}
    return [
        unsigned,
        {**unsigned, "HTTP_AUTHORIZATION": ended.headers["Authorization"]},
        signed({**access, "secret_access_key": "x" * 40}, clock, action, body),
        signed({**access, "access_key_id": "AKIA" + "A" * 16}, clock, action, body),
        signed({**access, "session_token": "x"}, clock, action, body),
        {**good, "HTTP_X_AMZ_DATE": "20200101T000000Z"},
        signed(access, clock, action, body + b" "),
        signed(access, clock, "ListKeys" if action != "ListKeys" else "ListAliases", body)
        | {"HTTP_X_AMZ_TARGET": good["HTTP_X_AMZ_TARGET"]},
    ]


REFUSED = {
    "MissingAuthenticationTokenException", "IncompleteSignatureException", "InvalidSignatureException",
    "UnrecognizedClientException", "ExpiredTokenException",
}  # fmt: skip


def test_every_action_of_the_aws_dialect_wants_a_valid_signature(world: World, ended: Api) -> None:
    body = b'{"KeyId": "orders", "Plaintext": "AAAA", "PendingWindowInDays": 7}'
    requests = {name: unproven(world, ended, name, body) for name in ACTIONS}
    before = rows(world)
    for name, environs in requests.items():
        for environ in environs:
            status, content = answer_of(world, environ, body)
            assert (status, json.loads(content)["__type"] in REFUSED) == (400, True), (name, content)
    assert rows(world) == before


def test_every_action_of_sts_wants_a_proof(world: World, ended: Api, unchanged: None) -> None:
    assert {name for name, each in STS_ACTIONS.items() if not each.is_signed} == UNSIGNED
    for name in STS_ACTIONS:
        members = {"Action": name, "Version": "2011-06-15", "RoleArn": "arn:aws:iam::000000000000:role/ci"}
        members |= {"RoleSessionName": "me", "WebIdentityToken": "a.b.c", "AccessKeyId": "AKIA" + "A" * 16}
        body = urlencode(members).encode()
        for authorization in (None, ended.headers["Authorization"], "AWS4-HMAC-SHA256 Credential=x"):
            environ = environ_of(
                body, REQUEST_METHOD="POST", PATH_INFO="/", CONTENT_TYPE=FORM, HTTP_AUTHORIZATION=authorization
            )
            status, content = answer_of(world, environ, body)
            assert status in (400, 403), (name, content)
            assert b"<SecretAccessKey>" not in content
