"""An issuer changes its keys, and the service follows: with a real issuer behind TLS, and a clock to steer by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.oidc_issuer import OidcIssuer, serving
from helpers.support import SteeredClock, Template, World, settings_for
from helpers.tokens import JWT_BEARER, new_key
from kms.operations.system.schedule import refresh_issuers


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcIssuer]:
    with serving(tmp_path_factory.mktemp("issuer") / "tls") as issuer:
        yield issuer


@pytest.fixture
def issuer(served: OidcIssuer) -> OidcIssuer:
    """With a first key, and available."""
    served.key, served.kid, served.is_down = new_key("RS256"), "first", False
    return served


@pytest.fixture
def world(template: Template, tmp_path: Path, clock: SteeredClock, issuer: OidcIssuer) -> Iterator[World]:
    """A service that trusts the issuer, with a role that takes its tokens."""
    settings = settings_for(tmp_path / "data", jwks_hosts=issuer.host, jwks_ca=issuer.ca)
    service = template.open(settings, clock)
    world = World.of(service)
    world.enrol("pay")
    trusted = {"issuer": issuer.issuer, "audience": "kms", "jwks_uri": f"{issuer.url}/.well-known/jwks"}
    assert world.admin.post("/api/v1/issuers", trusted).status_code == 201
    role = {"role": "pay", "issuer": issuer.issuer, "claims": {"sub": "job"}, "client_id": "pay"}
    assert world.admin.post("/api/v1/issuer-roles", role).status_code == 201
    yield world
    service.close()


def log_in(world: World, token: str) -> int:
    form = {"grant_type": JWT_BEARER, "assertion": token, "role": "pay"}
    return int(world.http.post("/auth/token", data=form).status_code)


def token(world: World, issuer: OidcIssuer) -> str:
    return issuer.token("job", world.service.clock().timestamp())


def kids(world: World) -> Any:
    (shown,) = world.admin.get("/api/v1/issuers").json["items"]
    return shown["kids"]


def test_a_new_key_is_fetched_when_a_token_names_it_once_a_minute(
    world: World, clock: SteeredClock, issuer: OidcIssuer
) -> None:
    old = token(world, issuer)
    assert log_in(world, old) == 200
    issuer.key, issuer.kid = new_key("RS256"), "second"
    assert log_in(world, token(world, issuer)) == 401
    assert kids(world) == ["first"]  # they were fetched a moment ago
    clock.advance(seconds=61)
    assert log_in(world, token(world, issuer)) == 200
    assert kids(world) == ["second"]
    assert log_in(world, old) == 401  # its key was given up


def test_whoever_names_keys_that_are_not_there_has_them_fetched_once_a_minute(
    world: World, clock: SteeredClock, issuer: OidcIssuer
) -> None:
    clock.advance(seconds=61)
    asked = issuer.answers
    forged = OidcIssuer(issuer.issuer, kid="nowhere")
    assert {log_in(world, token(world, forged)) for _ in range(3)} == {401}
    assert issuer.answers == asked + 1


def test_a_key_that_was_given_up_is_dropped_without_anybody_asking(
    world: World, clock: SteeredClock, issuer: OidcIssuer
) -> None:
    old = token(world, issuer)
    issuer.key, issuer.kid = new_key("RS256"), "second"
    clock.advance(seconds=61)
    refresh_issuers(world.service, clock())
    assert kids(world) == ["second"]
    assert log_in(world, old) == 401


def test_an_issuer_that_does_not_answer_keeps_its_keys(world: World, clock: SteeredClock, issuer: OidcIssuer) -> None:
    issuer.is_down = True
    clock.advance(seconds=61)
    refresh_issuers(world.service, clock())
    assert kids(world) == ["first"]
    assert log_in(world, token(world, issuer)) == 200


def test_an_operator_gives_other_keys_and_roles_and_sessions_go_on(
    world: World, clock: SteeredClock, issuer: OidcIssuer
) -> None:
    old = token(world, issuer)
    form = {"grant_type": JWT_BEARER, "assertion": old, "role": "pay"}
    session = {"Authorization": f"Bearer {world.http.post('/auth/token', data=form).json['access_token']}"}
    issuer.key, issuer.kid = new_key("RS256"), "second"
    (shown,) = world.admin.get("/api/v1/issuers").json["items"]
    path = f"/api/v1/issuers/{shown['issuer_id']}"
    assert world.admin.patch(path, {}).status_code == 422
    assert world.admin.patch(path, {"jwks": {"keys": []}}).status_code == 422
    assert world.user("somebody").patch(path, {"jwks": issuer.jwks}).status_code == 403
    assert world.admin.patch("/api/v1/issuers/none", {"jwks": issuer.jwks}).status_code == 404
    assert world.admin.patch(path, {"jwks": issuer.jwks}).json["kids"] == ["second"]
    assert log_in(world, old) == 401
    assert log_in(world, token(world, issuer)) == 200
    assert world.http.get("/api/v1/keys", headers=session).status_code == 200
    clock.advance(seconds=61)
    issuer.kid = "third"
    refresh_issuers(world.service, clock())
    assert kids(world) == ["second"]  # nothing is fetched any more
    assert world.admin.patch(path, {"jwks_uri": f"{issuer.url}/.well-known/jwks"}).json["kids"] == ["third"]
