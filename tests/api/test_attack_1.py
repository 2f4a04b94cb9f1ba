"""What sessions and access keys are worth: no more than what made them, and no longer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyotp
import pytest

from helpers.aws_in_process import client
from helpers.support import Api, SteeredClock, World
from helpers.tokens import ASSERTION_TYPE, TOKEN_EXCHANGE, assertion, new_key, public_jwk
from kms.access.model import Role


def person(world: World, client_id: str, *roles: Role) -> Api:
    """A new client whose person has just given the second factor."""
    made = world.enrol(client_id, *roles)
    code = pyotp.TOTP(made.totp_secret).at(world.service.clock())
    answer = world.http.post("/auth/token", auth=(client_id, made.client_secret), headers={"X-TOTP": code})
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, client_id)


def narrower(world: World, api: Api, scope: str, **more: Any) -> Api:
    """A session within that scope."""
    form = {"grant_type": TOKEN_EXCHANGE, "scope": scope, **more}
    answer = world.http.post("/auth/token", data=form, headers=api.headers)
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, api.client_id)


def test_a_session_does_not_grant_the_use_of_keys_outside_of_its_scope(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    for key in ("app-1", "other"):
        assert amy.post("/api/v1/keys", {"key_id": key}).status_code == 201
    narrow = narrower(world, amy, "grants:manage@app-* keys:read@app-* keys:decrypt@app-*")
    grant = {"subject": "client:bob", "permission": "keys:decrypt"}
    assert narrow.post("/api/v1/grants", {**grant, "key_pattern": "app-1"}).status_code == 201
    for pattern in ("other", "*"):
        answer = narrow.post("/api/v1/grants", {**grant, "key_pattern": pattern})
        assert answer.status_code in (403, 404), answer.text


def test_a_session_does_not_grant_what_its_scope_does_not_have(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    assert amy.post("/api/v1/keys", {"key_id": "app-1"}).status_code == 201
    narrow = narrower(world, amy, "grants:manage keys:read")
    grant = {"subject": "client:bob", "permission": "keys:decrypt", "key_pattern": "app-1"}
    assert narrow.post("/api/v1/grants", grant).status_code == 403


def test_a_session_does_not_take_back_grants_outside_of_its_scope(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    assert amy.post("/api/v1/keys", {"key_id": "other"}).status_code == 201
    grant = {"subject": "client:bob", "permission": "keys:decrypt", "key_pattern": "other"}
    made = amy.post("/api/v1/grants", grant).json
    narrow = narrower(world, amy, "grants:manage@app-*")
    assert narrow.delete(f"/api/v1/grants/{made['grant_id']}").status_code in (403, 404)
    assert not narrow.get("/api/v1/grants").json["items"]


def by_key(world: World, signed: str, **form: Any) -> Any:
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed, **form}
    return world.http.post("/auth/token", data=form)


@pytest.mark.parametrize("scope", ["", "metrics:read"])
def test_no_session_outlives_the_public_key_that_proved_it(world: World, clock: SteeredClock, scope: str) -> None:
    amy = person(world, "amy", Role.AUDITOR)
    key = new_key()
    ends = (clock() + timedelta(minutes=10)).isoformat()
    made = amy.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(key), "expires_at": ends})
    assert made.status_code == 201, made.text
    answer = by_key(world, assertion(key, "amy", clock().timestamp()), **({"scope": scope} if scope else {}))
    assert answer.status_code == 200, answer.text
    assert answer.json["expires_in"] <= 600


def test_no_access_key_outlives_the_narrower_session_that_made_it(world: World, clock: SteeredClock) -> None:
    amy = person(world, "amy")
    assert amy.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    narrow = narrower(world, amy, "sessions:manage keys:encrypt@k", expires_in="60")
    made = narrow.post("/api/v1/access-keys", {})
    assert made.status_code == 201, made.text
    clock.advance(seconds=120)
    kms = client(world, "kms", made.json)
    with pytest.raises(Exception, match="."):
        kms.encrypt(KeyId="k", Plaintext=b"x")
