"""Calls that wait end with what proved who asked, and one that a crash has left is not forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers import aws_in_process
from helpers.approvals import APPROVALS, approve, left_by_an_end, pending, people_of, rule, shown, story
from helpers.people import Person, session
from helpers.support import Api, SteeredClock, World, kind_of
from helpers.tokens import ASSERTION_TYPE, JWT_BEARER, PlatformIssuer, assertion, new_key, public_jwk
from kms.operations.core.carrying_out import carry_out_left_over
from kms.operations.system.schedule import Schedule

ENDED = "What proved who asked was ended. Make the call again."


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr` with the key `orders`; deleting it waits for one approval."""
    made = people_of(world)
    assert made["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    rule(world, operations=["delete_key"], approvals=1)
    return made


SOON = {"waiting_period": "P7D"}
DYING = """
import os, signal, sys
from pathlib import Path
from helpers.support import settings_for
from kms.operations import OPERATIONS, Call, Service, execute_operation
from kms.operations.core import carrying_out
from kms.operations.core.declare import EmptyRequest

def dies(*_):
    os.kill(os.getpid(), signal.SIGKILL)

data_dir, token, approval_id = sys.argv[1:]
service = Service.open(settings_for(Path(data_dir)))
carrying_out.execute_operation = dies
call = Call("approve_call", "10.0.0.1", "r" * 16, service.authenticator.session(token))
execute_operation(service, OPERATIONS["approve_call"], call, EmptyRequest, {"approval_id": approval_id})
"""


def left_by_a_crash(world: World, people: dict[str, Person], approval_id: str) -> str:
    """As `left_by_an_end`, by the end of a process."""
    token = people["ann"].api.headers["Authorization"].removeprefix("Bearer ")
    given = [str(world.service.settings.data_dir), token, approval_id]
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    killed = subprocess.run(
        [sys.executable, "-c", DYING, *given],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert shown(people["ann"], approval_id)["state"] == "approved"
    return approval_id


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


@pytest.mark.parametrize("how", ["reset-totp", "disable", "rotate-secret"])
def test_a_call_ends_when_the_sessions_of_who_asked_end(
    world: World, people: dict[str, Person], clock: SteeredClock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    waiting = pending(people["usr"].api.delete("/api/v1/keys/orders"))
    left = left_by_an_end(people["ann"], pending(people["usr"].api.delete("/api/v1/keys/orders", SOON)), monkeypatch)
    cat = people["cat"].api
    assert cat.post(f"/api/v1/clients/usr/{how}", {}).status_code == 200
    assert cat.post("/api/v1/clients/usr/enable", {}).status_code == 200
    for each in (waiting, left):
        require_ended(people, each, "Every session of who asked was ended. Make the call again.")
    clock.advance(minutes=3)
    carry_out_left_over(world.service, clock())
    require_ended(people, left, "Every session of who asked was ended. Make the call again.")


def test_the_schedule_carries_out_what_a_killed_process_has_left_approved(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    approval_id = left_by_a_crash(world, people, pending(people["usr"].api.delete("/api/v1/keys/orders")))
    for _ in range(2):
        carry_out_left_over(world.service, clock())
        assert shown(people["usr"], approval_id)["state"] == "approved"
        clock.advance(minutes=1)
    clock.advance(minutes=1)
    Schedule(world.service).tick()
    assert shown(people["usr"], approval_id)["state"] == "done"
    assert shown(people["usr"], approval_id)["decided_by"] == "ann"
    assert people["usr"].api.get("/api/v1/keys/orders").json["deletion_at"] is not None
    assert [each[:3] for each in story(world, approval_id)] == [
        ("delete_key", "approval-pending", "usr"),
        ("approve_call", "success", "ann"),
        ("delete_key", "success", "usr"),
    ]
    carry_out_left_over(world.service, clock())
    assert kind_of(approve(people["bob"], approval_id)) == "conflict"


def test_what_a_killed_process_has_left_approved_can_be_rejected(
    world: World, people: dict[str, Person], clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval_id = left_by_an_end(people["ann"], pending(people["usr"].api.delete("/api/v1/keys/orders")), monkeypatch)
    path = f"{APPROVALS}/{approval_id}/reject"
    refused = people["bob"].api.post(path, {})
    assert (kind_of(refused), "being carried out" in refused.json["detail"]) == ("conflict", True)
    clock.advance(minutes=3)
    assert people["bob"].api.post(path, {}).json["state"] == "rejected"
    carry_out_left_over(world.service, clock())
    assert people["usr"].api.get("/api/v1/keys/orders").json["deletion_at"] is None


def test_a_call_ends_with_the_issuer_role_behind_its_access_key(world: World, people: dict[str, Person]) -> None:
    platform, admin = PlatformIssuer(), world.admin
    issuer = {"issuer": platform.issuer, "audience": platform.audience, "jwks": platform.jwks}
    assert admin.post("/api/v1/issuers", issuer).status_code == 201
    role = {"role": "ci", "issuer": platform.issuer, "claims": {"sub": "me"}, "client_id": "usr"}
    assert admin.post("/api/v1/issuer-roles", role).status_code == 201
    token = platform.token("me", world.service.clock().timestamp())
    form = {"grant_type": JWT_BEARER, "assertion": token, "role": "ci"}
    program = session(world, world.http.post("/auth/token", data=form), "usr")
    _, deeper = by_access_key(world, Person(world, "usr", "", people["usr"].app, program))
    asked = [pending(program.delete("/api/v1/keys/orders")), pending(deeper.delete("/api/v1/keys/orders", SOON))]
    assert admin.delete("/api/v1/issuer-roles/ci").status_code == 200
    assert admin.post("/api/v1/issuer-roles", role).status_code == 201  # which is another one
    for each in asked:
        require_ended(people, each)
