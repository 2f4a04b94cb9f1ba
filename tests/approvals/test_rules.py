"""Rules hold: nobody takes one away unseen, goes round one, or makes one that leaves the others helpless."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from helpers.approvals import pending, people_of, rule
from helpers.people import Person
from helpers.support import World, kind_of
from helpers.tokens import new_key, public_jwk
from kms.approvals.rules import RulesInForce
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
