"""Calls that wait end with what proved who asked, and one that a crash has left is not forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers import aws_in_process
from helpers.approvals import APPROVALS, approve, pending, people_of, rule, shown
from helpers.people import Person, session
from helpers.support import Api, SteeredClock, World, kind_of
from helpers.tokens import ASSERTION_TYPE, assertion, new_key, public_jwk

ENDED = "What proved who asked was ended. Make the call again."


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr` with the key `orders`; deleting it waits for one approval."""
    made = people_of(world)
    assert made["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    rule(world, operations=["delete_key"], approvals=1)
    return made


def by_access_key(world: World, person: Person, **given: Any) -> tuple[Any, Api]:
    """A new access key of a person, and a session that it opened."""
    made = person.api.post("/api/v1/access-keys", given).json
    secret = {"role_id": made["access_key_id"], "secret_id": made["secret_access_key"]}
    token = world.http.post("/v1/auth/approle/login", json=secret).json["auth"]["client_token"]
    return made, Api(world.http, {"Authorization": f"Bearer {token}"}, person.client_id)


def require_ended(people: dict[str, Person], approval_id: str, why: str = ENDED) -> None:
    """A call was ended, and is not carried out."""
    ended = shown(people["ann"], approval_id)
    assert (ended["state"], ended["failure"]["detail"]) == ("failed", why)
    assert kind_of(approve(people["ann"], approval_id)) == "conflict"
    assert people["ann"].api.get("/api/v1/keys/orders").json["deletion_at"] is None


def test_a_call_ends_with_the_access_key_that_signed_it_also_where_that_would_have_expired(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    usr = people["usr"].api
    access = usr.post("/api/v1/access-keys", {"expires_in": 600}).json
    with pytest.raises(ClientError, match="approval"):
        aws_in_process.client(world, "kms", access).schedule_key_deletion(KeyId="orders", PendingWindowInDays=7)
    (waiting,) = usr.get(APPROVALS).json["items"]
    assert usr.delete(f"/api/v1/access-keys/{access['access_key_id']}").status_code == 200
    clock.advance(minutes=20)
    people["ann"].api = session(world, people["ann"].login(), "ann")
    require_ended(people, waiting["approval_id"])


def test_a_call_ends_with_the_access_key_that_opened_its_session_or_stands_behind_that(
    world: World, people: dict[str, Person]
) -> None:
    first, thief = by_access_key(world, people["usr"])
    _, programs = by_access_key(world, Person(world, "usr", "", people["usr"].app, thief))
    asked = [
        pending(api.delete("/api/v1/keys/orders", {"waiting_period": f"P{days}D"}))
        for days, api in ((7, thief), (8, programs))
    ]
    own = pending(people["usr"].api.delete("/api/v1/keys/orders", {"waiting_period": "P9D"}))
    assert people["usr"].api.delete(f"/api/v1/access-keys/{first['access_key_id']}").status_code == 200
    for each in asked:
        require_ended(people, each)
    assert approve(people["ann"], own).json["state"] == "done"


def test_a_call_ends_with_the_public_key_though_the_same_is_added_again(
    world: World, people: dict[str, Person]
) -> None:
    key, path = new_key(), "/api/v1/clients/usr/public-keys"
    kid = people["usr"].api.post(path, {"jwk": public_jwk(key)}).json["kid"]
    form = {
        "client_id": "usr",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion(key, "usr", world.service.clock().timestamp()),
    }
    program = session(world, world.http.post("/auth/token", data=form), "usr")
    approval_id = pending(program.delete("/api/v1/keys/orders"))
    assert people["usr"].api.delete(f"{path}/{kid}").status_code == 200
    assert people["usr"].api.post(path, {"jwk": public_jwk(key)}).status_code == 201
    require_ended(people, approval_id)
