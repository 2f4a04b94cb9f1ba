"""Approvals in tests: people who give them, rules, and what the audit log has of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.people import Person
from helpers.support import World
from kms.access.model import Role
from kms.operations.core import carrying_out
from kms.vault.rows import OutboxEntry

RULES = "/api/v1/approval-rules"
APPROVALS = "/api/v1/approvals"


def people_of(world: World) -> dict[str, Person]:
    """Three administrators besides `admin`, and a user, all logged in just now."""
    made = {name: Person.of(world, name, Role.ADMIN) for name in ("ann", "bob", "cat")}
    return made | {"usr": Person.of(world, "usr")}


def rule(world: World, **given: Any) -> Any:
    """Make a rule that two administrators approve, unless others are given."""
    answer = asked_rule(world, **given)
    assert answer.status_code == 201, answer.text
    return answer.json


def asked_rule(world: World, **given: Any) -> Any:
    """The answer to making a rule, with a second factor that was given just now."""
    admin = world.login("admin", Role.ADMIN, by_person=True)
    return admin.post(RULES, {"name": "rule1", "approvers": ["role:admin"], **given})


def pending(answer: Any) -> str:
    """The id of the approval that a call waits for."""
    assert answer.status_code == 202, answer.text
    assert answer.json["state"] == "pending"
    assert answer.headers["Location"] == f"{APPROVALS}/{answer.json['approval_id']}"
    return str(answer.json["approval_id"])


def approve(person: Person, approval_id: str) -> Any:
    """The answer to an approval."""
    return person.api.post(f"{APPROVALS}/{approval_id}/approve", {})


class Killed(BaseException):
    """Ends what runs, and nothing catches it, as little as a SIGKILL."""


def left_by_an_end(last: Person, approval_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A call whose `last` approval was given by what ended before it carried the call out."""

    def dies(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(carrying_out, "execute_operation", dies)
        approve(last, approval_id)
    assert shown(last, approval_id)["state"] == "approved"
    return approval_id


def shown(person: Person, approval_id: str) -> Any:
    """How a person sees an approval."""
    answer = person.api.get(f"{APPROVALS}/{approval_id}")
    assert answer.status_code == 200, answer.text
    return answer.json


def entries(world: World) -> list[dict[str, Any]]:
    """The audit entries of changes, in their order."""
    with world.service.vault.read() as snapshot:
        return [json.loads(each.entry) for each in snapshot.matching(OutboxEntry, order_by="sequence")]


def story(world: World, approval_id: str) -> list[tuple[Any, ...]]:
    """What the audit log has of an approval: operation, outcome, client, target and key of each entry."""
    members = ("operation", "outcome", "client_id", "target", "key_id")
    return [tuple(map(each.get, members)) for each in entries(world) if each.get("approval") == approval_id]
