"""Calls that a rule covers wait for other people, and are then carried out as they were asked, once."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from helpers.people import Person
from helpers.support import World
from kms.access.model import Role
from kms.vault.rows import OutboxEntry

RULES = "/api/v1/approval-rules"
APPROVALS = "/api/v1/approvals"


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Three administrators besides `admin`, and a user, all logged in just now."""
    made = {name: Person.of(world, name, Role.ADMIN) for name in ("ann", "bob", "cat")}
    return made | {"usr": Person.of(world, "usr")}


def rule(world: World, **given: Any) -> Any:
    """Make a rule that administrators approve."""
    body = {"name": "rule1", "approvers": ["role:admin"], **given}
    answer = world.admin.post(RULES, body)
    assert answer.status_code == 201, answer.text
    return answer.json


def pending(answer: Any) -> str:
    """The id of the approval that a call waits for."""
    assert answer.status_code == 202, answer.text
    assert answer.json["state"] == "pending"
    assert answer.headers["Location"] == f"{APPROVALS}/{answer.json['approval_id']}"
    return str(answer.json["approval_id"])


def approve(person: Person, approval_id: str) -> Any:
    """The answer to an approval."""
    return person.api.post(f"{APPROVALS}/{approval_id}/approve", {})


def story(world: World, approval_id: str) -> list[tuple[Any, ...]]:
    """What the audit log has of an approval: operation, outcome, client, target and key of each entry."""
    with world.service.vault.read() as snapshot:
        found = [json.loads(each.entry) for each in snapshot.matching(OutboxEntry, order_by="sequence")]
    members = ("operation", "outcome", "client_id", "target", "key_id")
    return [tuple(map(each.get, members)) for each in found if each.get("approval") == approval_id]


def test_a_covered_call_waits_and_the_last_approval_carries_it_out(world: World, people: dict[str, Person]) -> None:
    rule(world, permissions=["keys:delete"], key_pattern="prod-*", approvals=2, expires_in="PT8H")
    usr = people["usr"].api
    for key_id in ("prod-1", "test-1"):
        assert usr.post("/api/v1/keys", {"key_id": key_id, "type": "xaes-256-gcm"}).status_code == 201
    assert usr.delete("/api/v1/keys/test-1").status_code == 200
    waiting = usr.delete("/api/v1/keys/prod-1", {"waiting_period": "P7D"})
    approval_id = pending(waiting)
    assert (waiting.json["operation"], waiting.json["key_id"]) == ("delete_key", "prod-1")
    assert (waiting.json["needed"], waiting.json["given"]) == (2, 0)
    assert usr.get("/api/v1/keys/prod-1").json["state"] == "active"

    seen = people["ann"].api.get(f"{APPROVALS}/{approval_id}").json
    assert seen["requester"] == "usr"
    assert seen["request"]["body"] == {"waiting_period": "P7D", "release_name": False}
    assert seen["request"]["path"] == {"key_id": "prod-1"}
    canonical = json.dumps(seen["request"], sort_keys=True, separators=(",", ":"))
    assert sha256(canonical.encode()).hexdigest() == seen["request_sha256"]

    first = approve(people["ann"], approval_id)
    assert (first.status_code, first.json["state"], first.json["given"]) == (200, "pending", 1)
    assert usr.get("/api/v1/keys/prod-1").json["state"] == "active"
    last = approve(people["bob"], approval_id)
    assert (last.status_code, last.json["state"]) == (200, "done"), last.text
    assert "result" not in last.json

    shown = usr.get(f"{APPROVALS}/{approval_id}").json
    assert shown["state"] == "done"
    assert shown["result"]["key_id"] == "prod-1"
    assert shown["result"]["state"] == usr.get("/api/v1/keys/prod-1").json["state"]
    assert usr.get("/api/v1/keys/prod-1").json["deletion_at"] is not None
    assert story(world, approval_id) == [
        ("delete_key", "approval-pending", "usr", approval_id, "prod-1"),
        ("approve_call", "success", "ann", approval_id, "prod-1"),
        ("approve_call", "success", "bob", approval_id, "prod-1"),
        ("delete_key", "success", "usr", approval_id, "prod-1"),
    ]
