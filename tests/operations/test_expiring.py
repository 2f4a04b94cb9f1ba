"""Owners are told ahead that a key expires: 30, 7 and 1 days before, once each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.event import listens_for

from helpers.notices import announce, make, send, subscribe
from helpers.support import SteeredClock, Template, World, settings_for
from helpers.webhook_receiver import Receiver
from kms.access.model import Role
from kms.operations import Service
from kms.operations.system.expiring import announce_expiring_keys
from kms.vault.checking import wrong_tables


@pytest.fixture
def world(template: Template, receiver: Receiver, tmp_path: Path, clock: SteeredClock) -> Iterator[World]:
    settings = settings_for(tmp_path / "data", notice_hosts=receiver.host, notice_ca=receiver.ca)
    opened = template.open(settings, clock)
    yield World.of(opened)
    opened.close()


def test_a_key_that_expires_is_told_of_30_7_and_1_days_ahead(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver, "key.expiring")
    make(alice, "orders", "P40D")
    expires_at = clock() + timedelta(days=40)
    told = []
    for day in range(42):
        for _ in range(2):
            announce(world)
            told += [(day, each) for each in send(world, receiver)]
        clock.advance(days=1)
    assert [(day, each.data["days"]) for day, each in told] == [(10, 30), (33, 7), (39, 1)]
    assert len({each.id for _, each in told}) == 3
    _, first = told[0]
    assert first.type == "key.expiring"
    assert first.data == {
        "key_id": "orders", "owner": "alice", "version": 1, "days": 30,
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    assert all(each.is_signed_with(notice["secret"]) for _, each in told)
    assert wrong_tables(world.service.vault) == []


def test_a_key_made_with_fewer_days_is_told_of_where_that_is_still_ahead(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    announce(world)
    clock.advance(minutes=5)  # the marks are behind
    subscribe(alice, receiver, "key.expiring")
    for key_id, period in (("a", "P30D"), ("b", "P29D"), ("c", "P6D"), ("d", "PT12H"), ("e", "P1D")):
        make(alice, key_id, period)
    told = []
    for _ in range(32):
        announce(world)
        told += [(each.data["key_id"], each.data["days"]) for each in send(world, receiver)]
        clock.advance(days=1)
    assert sorted(told) == [("a", 1), ("a", 7), ("b", 1), ("b", 7), ("c", 1)]


def test_a_rotation_begins_anew_and_what_is_not_in_use_is_not_told_of(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.expiring")
    for key_id in ("rotated", "revoked", "deleted", "planned"):
        make(alice, key_id, "P40D")
    assert alice.patch("/api/v1/keys/planned", {"rotation_period": "P39D"}).status_code == 200
    clock.advance(days=11)
    announce(world)
    assert {each.data["key_id"] for each in send(world, receiver)} == {"rotated", "revoked", "deleted"}
    alice = world.login("alice", Role.USER)
    alice.post("/api/v1/keys/rotated/rotate")
    alice.post("/api/v1/keys/revoked/revoke")
    alice.delete("/api/v1/keys/deleted", {"waiting_period": "P300D"})
    told = []
    for _ in range(45):
        announce(world)
        told += [(each.data["version"], each.data["days"]) for each in send(world, receiver)]
        clock.advance(days=1)
    assert told == [(2, 30), (1, 1), (2, 7), (2, 1)]  # what was planned for the 39th day was not done


def test_a_clock_back_and_forth_tells_nothing_twice(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.expiring")
    make(alice, "orders", "P40D")
    announce(world)
    clock.advance(days=10, seconds=1)
    announce(world)
    assert len(send(world, receiver)) == 1
    for step in (-0.5, 0.5, -20.0, 20.0, -0.9, 0.9):
        clock.advance(days=step)
        announce(world)
    assert send(world, receiver) == []
    clock.advance(days=24)
    announce(world)
    assert [each.data["days"] for each in send(world, receiver)] == [7]


def test_after_it_was_away_it_tells_the_nearest_only(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.expiring")
    make(alice, "orders", "P60D")
    make(alice, "bills", "P80D")
    announce(world)
    clock.advance(days=55)
    announce(world)
    told = {(each.data["key_id"], each.data["days"]) for each in send(world, receiver)}
    assert told == {("orders", 7), ("bills", 30)}


def test_many_keys_that_expire_at_one_moment(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.expiring")
    for number in range(9):
        make(alice, f"k{number}", "P40D")
    clock.advance(days=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kms.operations.system.expiring._KEYS_AT_ONCE", 4)
        announce(world)
    assert sorted(each.data["key_id"] for each in send(world, receiver)) == [f"k{number}" for number in range(9)]


def test_keys_that_expire_are_found_by_their_index(world: World, clock: SteeredClock) -> None:
    statements: list[tuple[str, Any]] = []

    @listens_for(world.service.vault.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "expires_at BETWEEN" in statement:
            statements.append((statement, parameters))

    announce(world)
    with world.service.vault.engine.connect() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            assert "USING INDEX ix_key_versions_expires_at" in plan[0][3]
    assert len(statements) == 6


def test_two_nodes_tell_it_once(database_url: str, receiver: Receiver, tmp_path: Path, clock: SteeredClock) -> None:
    common: dict[str, Any] = {"notice_hosts": receiver.host, "notice_ca": receiver.ca}
    common |= {"database_url": database_url, "seal_file": tmp_path / "root.key"}
    nodes = [Service.open(settings_for(tmp_path / name, **common), clock) for name in ("one", "two")]
    try:
        world = World.of(nodes[0])
        alice = world.user("alice")
        subscribe(alice, receiver, "key.expiring")
        for number in range(10):
            make(alice, f"k{number}", "P40D")
        clock.advance(days=10, seconds=1)

        def work(node: Service) -> None:
            announce_expiring_keys(node, clock())
            node.deliveries.deliver_due(and_wait=True)

        threads = [threading.Thread(target=work, args=(node,)) for node in nodes for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for node in nodes:
            node.deliveries.deliver_due(and_wait=True)
        assert sorted(each.data["key_id"] for each in receiver.received) == [f"k{number}" for number in range(10)]
    finally:
        for node in nodes:
            node.close()
