"""What may happen while a call waits, or at the moment of its last approval."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from helpers import aws_in_process
from helpers.approvals import APPROVALS, RULES, approve, entries, pending, people_of, rule, shown, story
from helpers.people import Person
from helpers.support import Api, SteeredClock, World, b64, kind_of
from helpers.tokens import ASSERTION_TYPE, assertion, new_key, public_jwk
from kms.approvals import deciding, execution
from kms.approvals.model import Approval, ApprovalRule
from kms.errors import Unavailable
from kms.operations import Call, Service
from kms.operations.core import carrying_out


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr`, all logged in just now."""
    return people_of(world)


@pytest.fixture
def orders(people: dict[str, Person]) -> str:
    """A key of `usr`."""
    assert people["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    return "/api/v1/keys/orders"


def test_of_two_last_approvals_at_once_one_carries_it_out(
    world: World, people: dict[str, Person], orders: str
) -> None:
    rule(world, permissions=["keys:rotate"], approvals=1)
    for _ in range(5):
        approval_id = pending(people["usr"].api.post(f"{orders}/rotate", {}))
        before = people["usr"].api.get(orders).json["latest_version"]
        with ThreadPoolExecutor(3) as threads:
            approvers = [people[each] for each in ("ann", "bob", "cat")]
            answers = list(threads.map(approve, approvers, [approval_id] * 3))
        assert sorted(each.status_code for each in answers) == [200, 409, 409]
        assert people["usr"].api.get(orders).json["latest_version"] == before + 1
        assert shown(people["usr"], approval_id)["state"] == "done"
        acts = [
            each for each in story(world, approval_id) if each[0] == "rotate_key_version" and each[1] == "success"
        ]
        assert len(acts) == 1


def test_two_approvals_that_are_both_needed_at_once(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:rotate"], approvals=2)
    for version in (2, 3, 4):
        approval_id = pending(people["usr"].api.post(f"{orders}/rotate", {}))
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(approve, (people["ann"], people["bob"]), [approval_id] * 2))
        assert [each.status_code for each in answers] == [200, 200]
        assert sorted(each.json["state"] for each in answers) == ["done", "pending"]
        assert people["usr"].api.get(orders).json["latest_version"] == version


def test_approval_against_expiry(world: World, people: dict[str, Person], orders: str, clock: SteeredClock) -> None:
    rule(world, permissions=["keys:delete"], approvals=1, expires_in="PT5M")
    just_in_time, late = (
        pending(people["usr"].api.delete(orders, {"waiting_period": f"P{days}D"})) for days in (7, 8)
    )
    clock.advance(minutes=4, seconds=59)
    assert approve(people["ann"], just_in_time).json["state"] == "done"
    clock.advance(seconds=1)
    bob = people["bob"].api
    assert bob.post("/auth/second-factor", {"code": people["bob"].code}).status_code == 200
    refused = approve(people["bob"], late)
    assert (kind_of(refused), "expired" in refused.json["detail"]) == ("conflict", True)
    assert shown(people["usr"], late)["state"] == "expired"
    assert [each["approval_id"] for each in bob.get(f"{APPROVALS}?state=expired").json["items"]] == [late]
    assert bob.get(f"{APPROVALS}?state=pending").json["items"] == []


@pytest.mark.parametrize("what", ["change", "removal"])
def test_the_rule_is_changed_or_removed_meanwhile(
    world: World, people: dict[str, Person], orders: str, what: str
) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    approval_id = pending(people["usr"].api.delete(orders))
    path, admin = f"{RULES}/rule1", people["ann"].api
    weaker = pending(admin.patch(path, {"expires_in": "PT5M"}) if what == "change" else admin.delete(path))
    assert approve(people["bob"], weaker).json["state"] == "done"
    assert kind_of(approve(people["cat"], approval_id)) == "conflict"
    ended = shown(people["usr"], approval_id)
    assert (ended["state"], "rule1" in ended["failure"]["detail"]) == ("failed", True)
    assert people["usr"].api.get(orders).json["state"] == "active"


def between(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Have `act` happen after the last approval is committed, and before the call is carried out."""
    original = execution.requester_of

    def acting(*given: Any) -> Any:
        found = original(*given)
        act()
        return found

    monkeypatch.setattr(carrying_out.execution, "requester_of", acting)


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "between"])
@pytest.mark.parametrize("how", ["disable", pytest.param("rotate-secret", marks=pytest.mark.slow)])
def test_the_requester_is_disabled_or_gets_another_secret_meanwhile(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, moment: str, how: str
) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    approval_id = pending(people["usr"].api.delete(orders))

    def act() -> None:
        assert people["cat"].api.post(f"/api/v1/clients/usr/{how}", {}).status_code == 200

    if moment == "before":
        act()
    else:
        between(monkeypatch, act)
    answer = approve(people["ann"], approval_id)
    assert answer.status_code == (409 if moment == "before" else 200)
    assert people["ann"].api.get(orders).json["deletion_at"] is None
    ended = people["ann"].api.get(f"{APPROVALS}/{approval_id}").json
    assert (ended["state"], ended["failure"]["type"]) == ("failed", "conflict")


def test_the_rule_is_gone_between_the_last_approval_and_the_act(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    approval_id = pending(people["usr"].api.delete(orders))

    def act() -> None:
        with world.service.vault.change() as change:
            found = change.find(ApprovalRule, "rule1")
            assert found is not None
            change.delete(found)

    between(monkeypatch, act)
    answer = approve(people["ann"], approval_id)
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "conflict")
    assert people["usr"].api.get(orders).json["deletion_at"] is None


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "between"])
@pytest.mark.parametrize("what", ["encrypt", "rotate"])
def test_an_alias_that_is_moved_meanwhile_does_not_lead_to_another_key(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, moment: str, what: str
) -> None:
    usr = people["usr"].api
    assert usr.post("/api/v1/keys", {"key_id": "other", "type": "xaes-256-gcm"}).status_code == 201
    assert usr.put("/api/v1/aliases/current", {"key_id": "other"}).status_code == 200
    rule(world, permissions=["keys:encrypt", "keys:rotate"], approvals=1)
    body = {"plaintext": b64(b"text")} if what == "encrypt" else {}
    approval_id = pending(usr.post(f"/api/v1/keys/current/{what}", body))
    assert shown(people["ann"], approval_id)["key_id"] == "other"

    def act() -> None:
        assert usr.put("/api/v1/aliases/current", {"key_id": "orders"}).status_code == 200

    if moment == "before":
        act()
    else:
        between(monkeypatch, act)
    answer = approve(people["ann"], approval_id)
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "conflict")
    assert "result" not in shown(people["usr"], approval_id)
    assert [usr.get(f"/api/v1/keys/{key}").json["latest_version"] for key in ("orders", "other")] == [1, 1]


def test_an_alias_that_is_made_meanwhile_is_not_moved(world: World, people: dict[str, Person], orders: str) -> None:
    usr = people["usr"].api
    assert usr.post("/api/v1/keys", {"key_id": "other"}).status_code == 201
    rule(world, operations=["set_alias"], approvals=1)
    waiting = [pending(usr.put("/api/v1/aliases/prod", {"key_id": each})) for each in ("orders", "other")]
    assert approve(people["ann"], waiting[0]).json["state"] == "done"
    answer = approve(people["ann"], waiting[1])
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "conflict")
    assert usr.get("/api/v1/keys/prod").json["key_id"] == "orders"


@pytest.mark.parametrize("path", ["sessions", pytest.param("credentials", marks=pytest.mark.slow)])
def test_every_session_of_the_requester_is_ended_meanwhile(
    world: World, people: dict[str, Person], orders: str, path: str
) -> None:
    rule(world, permissions=["keys:delete"], approvals=1)
    approval_id = pending(people["usr"].api.delete(orders))
    assert people["cat"].api.delete(f"/api/v1/clients/usr/{path}").status_code == 200
    assert kind_of(approve(people["ann"], approval_id)) == "conflict"
    assert shown(people["ann"], approval_id)["failure"]["detail"].startswith("Every session of who asked")


def test_the_access_key_of_the_requester_is_deleted_meanwhile(world: World, people: dict[str, Person]) -> None:
    rule(world, operations=["delete_key"], approvals=1)
    access = people["usr"].api.post("/api/v1/access-keys", {}).json
    kms = aws_in_process.client(world, "kms", access)
    key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(ClientError, match="approval"):
        kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    (waiting,) = people["usr"].api.get(APPROVALS).json["items"]
    assert people["usr"].api.delete(f"/api/v1/access-keys/{access['access_key_id']}").status_code == 200
    assert kind_of(approve(people["ann"], waiting["approval_id"])) == "conflict"
    assert shown(people["ann"], waiting["approval_id"])["state"] == "failed"


def test_the_public_key_of_the_requester_expires_meanwhile(
    world: World, people: dict[str, Person], orders: str, clock: SteeredClock
) -> None:
    usr, key = people["usr"].api, new_key()
    body = {"jwk": public_jwk(key), "expires_at": (clock() + timedelta(minutes=3)).isoformat()}
    assert usr.post("/api/v1/clients/usr/public-keys", body).status_code == 201
    rule(world, permissions=["keys:rotate"], approvals=1)
    form = {
        "client_id": "usr",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion(key, "usr", clock().timestamp()),
    }
    token = world.http.post("/auth/token", data=form).json["access_token"]
    program = Api(world.http, {"Authorization": f"Bearer {token}"}, "usr")
    approval_id = pending(program.post(f"{orders}/rotate", {}))
    clock.advance(minutes=4)
    answer = approve(people["ann"], approval_id)
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "authentication-failed")


def test_an_approver_is_disabled_meanwhile(world: World, people: dict[str, Person], orders: str) -> None:
    rule(world, permissions=["keys:delete"], approvals=2)
    approval_id = pending(people["usr"].api.delete(orders))
    assert approve(people["ann"], approval_id).json["given"] == 1
    assert people["cat"].api.post("/api/v1/clients/ann/disable", {}).status_code == 200
    assert approve(people["bob"], approval_id).json["state"] == "pending"
    assert shown(people["bob"], approval_id)["given"] == 1
    assert approve(people["cat"], approval_id).json["state"] == "done"


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "between"])
def test_the_key_is_revoked_meanwhile(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    rule(world, permissions=["keys:encrypt"], approvals=1)
    approval_id = pending(people["usr"].api.post(f"{orders}/encrypt", {"plaintext": b64(b"text")}))

    def act() -> None:
        assert people["usr"].api.post(f"{orders}/revoke", {}).status_code == 200

    if moment == "before":
        act()
    else:
        between(monkeypatch, act)
    answer = approve(people["ann"], approval_id)
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "key-revoked")
    assert "result" not in shown(people["usr"], approval_id)


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.slow), "between"])
def test_the_grant_is_taken_back_meanwhile(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    rule(world, permissions=["keys:rotate"], approvals=1)
    grant = people["usr"].api.post(
        "/api/v1/grants", {"subject": "client:friend", "permission": "keys:rotate", "key_pattern": "orders"}
    )
    assert grant.status_code == 404  # there is no such client yet
    friend = world.user("friend")
    grant = (
        people["usr"]
        .api.post(
            "/api/v1/grants", {"subject": "client:friend", "permission": "keys:rotate", "key_pattern": "orders"}
        )
        .json["grant_id"]
    )
    approval_id = pending(friend.post(f"{orders}/rotate", {}))

    def act() -> None:
        assert people["usr"].api.delete(f"/api/v1/grants/{grant}").status_code == 200

    if moment == "before":
        act()
    else:
        between(monkeypatch, act)
    answer = approve(people["ann"], approval_id)
    assert (answer.json["state"], answer.json["failure"]["type"]) == ("failed", "not-found")
    assert people["usr"].api.get(orders).json["latest_version"] == 1


def test_the_second_factor_of_who_asked_is_as_old_as_it_was(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    """A condition that was met when the call was made is not lost by waiting, nor met because somebody waited."""
    rule(world, operations=["add_public_key"], approvals=1)
    usr, ann = people["usr"], people["ann"]
    fresh = pending(usr.add_key())
    clock.advance(minutes=6)
    assert ann.api.post("/auth/second-factor", {"code": ann.code}).status_code == 200
    assert approve(ann, fresh).json["state"] == "done"


def test_what_a_crash_left_approved_is_carried_out_by_another_approval(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, clock: SteeredClock
) -> None:
    rule(world, permissions=["keys:rotate"], approvals=1)
    approval_id = pending(people["usr"].api.post(f"{orders}/rotate", {}))

    def away(*_: Any) -> Any:
        raise Unavailable("The database cannot be reached.", retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(carrying_out, "execute_operation", away)
        assert kind_of(approve(people["ann"], approval_id)) == "unavailable"
    assert shown(people["usr"], approval_id)["state"] == "approved"
    refused = approve(people["bob"], approval_id)
    assert (kind_of(refused), "being carried out" in refused.json["detail"]) == ("conflict", True)
    clock.advance(seconds=deciding.CARRYING_OUT.total_seconds())
    assert approve(people["bob"], approval_id).json["state"] == "done"
    assert people["usr"].api.get(orders).json["latest_version"] == 2
    assert kind_of(approve(people["cat"], approval_id)) == "conflict"


def test_a_crash_after_the_change_loses_the_result_and_nothing_else(
    world: World, people: dict[str, Person], orders: str, monkeypatch: pytest.MonkeyPatch, clock: SteeredClock
) -> None:
    rule(world, permissions=["keys:rotate"], approvals=1)
    approval_id = pending(people["usr"].api.post(f"{orders}/rotate", {}))

    def crashed(*_: Any, **__: Any) -> Any:
        raise Unavailable("The database cannot be reached.", retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(carrying_out, "_settled", crashed)
        assert kind_of(approve(people["ann"], approval_id)) == "unavailable"
    ended = shown(people["usr"], approval_id)
    assert (ended["state"], "result" in ended) == ("done", False)
    clock.advance(seconds=deciding.CARRYING_OUT.total_seconds())
    assert kind_of(approve(people["bob"], approval_id)) == "conflict"
    assert people["usr"].api.get(orders).json["latest_version"] == 2


def test_a_slow_carrying_out_that_was_taken_over_does_nothing(
    world: World, people: dict[str, Person], orders: str
) -> None:
    """Whoever took it over has another moment at which it began; the change of the first finds that."""
    rule(world, permissions=["keys:rotate"], approvals=1)
    approval_id = pending(people["usr"].api.post(f"{orders}/rotate", {}))
    service: Service = world.service
    with service.vault.change() as change:
        found = change.find(Approval, approval_id)
        assert found is not None
        caller = service.authenticator.session(people["ann"].api.headers["Authorization"].removeprefix("Bearer "))
        first = deciding.approve(change, found, caller, service.clock())
    service.clock.advance(minutes=3)  # type: ignore[attr-defined]
    with service.vault.change() as change:
        second = deciding.approve(change, first, caller, service.clock())
    for each, outcome in ((first, None), (second, "done"), (second, "done")):
        done = carrying_out.carry_out(service, each, Call("approve_call", "10.0.0.1", "r" * 16, caller))
        if outcome:
            assert done.state == outcome
    assert people["usr"].api.get(orders).json["latest_version"] == 2
    assert [each["outcome"] for each in entries(world) if each["operation"] == "rotate_key_version"] == [
        "approval-pending",
        "success",
    ]
    assert timedelta(0) < second.began_at - first.began_at  # type: ignore[operator]
