"""Rules hold: nobody takes one away unseen, goes round one, or makes one that leaves the others helpless."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from helpers.approvals import APPROVALS, RULES, approve, pending, people_of, rule
from helpers.people import Person
from helpers.support import SteeredClock, World, kind_of
from helpers.tokens import new_key, public_jwk
from kms.access.model import Role
from kms.approvals.rules import RulesInForce
from kms.errors import Unavailable
from kms.operations.core.asking import asking


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr` with the key `orders`, all logged in just now."""
    made = people_of(world)
    assert made["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    return made


def read_anew(world: World) -> None:
    """The rules as a worker has them that has just begun."""
    service = world.service
    service.approval_rules = RulesInForce(service.vault, service.memory, asking)


def in_database(path: Path, statement: str, values: Any = ()) -> list[Any]:
    """What somebody does who can write to the database."""
    with sqlite3.connect(path) as connection:
        return connection.execute(statement, values).fetchall()


def test_a_rule_that_is_taken_out_of_the_database_for_a_moment_is_missed(
    world: World, people: dict[str, Person]
) -> None:
    rule(world, operations=["delete_key"])
    database, usr = world.service.settings.data_dir / "kms.db", people["usr"].api
    (row,) = in_database(database, "SELECT * FROM approval_rules")
    in_database(database, "DELETE FROM approval_rules")
    read_anew(world)
    assert kind_of(usr.delete("/api/v1/keys/orders")) == "integrity-failure"
    in_database(database, f"INSERT INTO approval_rules VALUES ({','.join('?' * len(row))})", row)
    read_anew(world)
    assert usr.delete("/api/v1/keys/orders").status_code == 503  # until an operator accepts the database
    assert "approval_rules" in str(world.service.vault.host.distrust)


def test_a_rule_about_clients_covers_whatever_is_done_for_another_client(
    world: World, people: dict[str, Person]
) -> None:
    rule(world, permissions=["clients:manage"])
    ann, usr = people["ann"].api, people["usr"].api
    added = {"jwk": public_jwk(new_key())}
    for path, body in (("public-keys", added), ("rotate-secret", {})):
        pending(ann.post(f"/api/v1/clients/usr/{path}", body))
    assert usr.post("/api/v1/clients/usr/public-keys", added).status_code == 201
    assert usr.post("/api/v1/clients/usr/rotate-secret", {}).status_code == 200


def test_nobody_takes_the_others_hostage_with_a_rule_of_their_own(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    mallory = Person.of(world, "mallory", Role.ADMIN)
    mine = {"name": "mine", "approvers": ["mallory"], "approvals": 1, "permissions": ["clients:manage"]}
    assert kind_of(mallory.api.post(RULES, mine)) == "conflict"
    puppet = mine | {"approvers": ["usr"], "permissions": ["clients:manage", "keys:revoke", "sessions:manage"]}
    clock.advance(minutes=6)
    assert kind_of(mallory.api.post(RULES, puppet)) == "insufficient-user-authentication"
    assert mallory.api.post("/auth/second-factor", {"code": mallory.code}).status_code == 200
    assert mallory.api.post(RULES, puppet).status_code == 201
    cat, usr = people["cat"].api, people["usr"].api
    pending(cat.post("/api/v1/clients/mallory/rotate-secret", {}))
    for path in ("/api/v1/keys/orders/suspend", "/api/v1/keys/orders/revoke", "/api/v1/clients/mallory/disable"):
        assert cat.post(path, {}).status_code == 200
    for client_id, api in (("mallory", cat), ("usr", cat), ("usr", usr)):
        for path in ("credentials", "sessions"):
            assert api.delete(f"/api/v1/clients/{client_id}/{path}").status_code in (200, 401)


def test_a_rule_keeps_enough_approvers(world: World, people: dict[str, Person]) -> None:
    ann, cat = people["ann"].api, people["cat"].api
    for client_id in ("usr2", "usr3"):
        world.enrol(client_id)
    for group in ("team", "other"):
        assert ann.put(f"/api/v1/groups/{group}", {"members": ["usr", "usr2"]}).status_code == 200
    rule(world, name="by-role", operations=["delete_key"], approvals=2)
    rule(world, name="by-group", operations=["delete_key"], approvers=["group:team"], approvals=2)
    refused = [
        ann.delete("/api/v1/clients/usr"),
        ann.delete("/api/v1/groups/team"),
        ann.delete("/api/v1/groups/team/members/usr"),
        ann.put("/api/v1/groups/team", {"members": ["usr", "usr3"][:1]}),
    ]
    assert [(kind_of(each), "by-group" in each.json["detail"]) for each in refused] == [("conflict", True)] * 4
    assert ann.put("/api/v1/groups/team", {"members": ["usr", "usr3"]}).status_code == 200
    for path in ("groups/other/members/usr2", "groups/other", "clients/usr2", "clients/bob"):
        assert ann.delete(f"/api/v1/{path}").status_code == 200, path
    assert kind_of(ann.delete("/api/v1/clients/cat")) == "conflict"
    for client_id in ("cat", "admin"):  # which stops things, and can be undone
        assert ann.post(f"/api/v1/clients/{client_id}/disable", {}).status_code == 200
    assert kind_of(ann.delete("/api/v1/clients/admin")) == "conflict"
    assert cat.get(APPROVALS).status_code == 401


def test_a_stricter_rule_holds_also_for_calls_that_wait(world: World, people: dict[str, Person]) -> None:
    rule(world, name="weak", operations=["delete_key"], approvals=1, expires_in="P30D")
    usr = people["usr"].api
    approval_id = pending(usr.delete("/api/v1/keys/orders"))
    rule(world, name="elsewhere", permissions=["keys:delete"], key_pattern="other*", approvals=3)
    rule(world, name="strict", permissions=["keys:delete"], key_pattern="ord*", approvals=3)
    failed = approve(people["cat"], approval_id).json
    assert (failed["state"], "made after this call" in failed["failure"]["detail"]) == ("failed", True)
    assert usr.get("/api/v1/keys/orders").json["deletion_at"] is None
    again = pending(usr.delete("/api/v1/keys/orders"))
    assert [approve(people[name], again).json["state"] for name in ("ann", "bob", "cat")] == ["pending"] * 2 + [
        "done"
    ]


def test_a_rule_for_another_key_does_not_hold_up_what_waits(world: World, people: dict[str, Person]) -> None:
    rule(world, permissions=["keys:delete", "keys:rotate"], approvals=1)
    waiting = [
        pending(people["usr"].api.delete("/api/v1/keys/orders")),
        pending(people["usr"].api.post("/api/v1/keys/orders/rotate", {})),
    ]
    rule(world, name="elsewhere", permissions=["keys:delete"], key_pattern="other*", approvals=3)
    for each in waiting[::-1]:
        assert approve(people["cat"], each).json["state"] == "done"


def test_rules_are_not_read_again_for_a_change_while_they_are_the_same(
    world: World, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(world, operations=["delete_key"])
    rules = world.service.approval_rules
    seen = rules.may_cover("delete_key")
    with world.service.vault.change() as change:
        change.epoch += 1  # another worker has changed something else
        monkeypatch.setattr(change, "matching", None)
        rules.require_none_new(change, "delete_key", seen)
        with pytest.raises(Unavailable, match="rules were changed"):
            rules.require_none_new(change, "delete_key", ())


def test_a_rule_holds_for_a_call_whose_key_is_being_made(
    world: World, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    generated, body = world.service.generated, {"key_id": "late", "type": "xaes-256-gcm"}

    def slowly(kind: Any) -> Any:
        rule(world, operations=["create_key"])
        return generated(kind)

    with monkeypatch.context() as patched:
        patched.setattr(world.service, "generated", slowly)
        assert kind_of(people["usr"].api.post("/api/v1/keys", body)) == "unavailable"
    assert people["usr"].api.get("/api/v1/keys/late").status_code == 404
    pending(people["usr"].api.post("/api/v1/keys", body))
