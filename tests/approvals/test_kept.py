"""How long calls that waited are kept, and how many may wait."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from helpers.approvals import APPROVALS, approve, pending, people_of, rule, shown
from helpers.people import Person
from helpers.support import SteeredClock, World, b64, kind_of
from kms.approvals import filing
from kms.approvals.model import Approval
from kms.operations.accounts import approvals
from kms.operations.system.schedule import remove_old_rows
from kms.vault import sealed_columns, tables, transaction


@pytest.fixture
def people(world: World) -> dict[str, Person]:
    """Administrators `ann`, `bob` and `cat`, and `usr`, all logged in just now; encrypting with `orders` waits."""
    made = people_of(world)
    assert made["usr"].api.post("/api/v1/keys", {"key_id": "orders", "type": "xaes-256-gcm"}).status_code == 201
    rule(world, permissions=["keys:encrypt"], approvals=1, expires_in="PT1H")
    return made


def encrypt(person: Person, text: bytes) -> Any:
    """The answer to a call that waits."""
    return person.api.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(text)})


def rows(world: World) -> list[Approval]:
    """Every row of a call."""
    with world.service.vault.read() as snapshot:
        return snapshot.matching(Approval, order_by="created_at")


def test_results_go_after_a_day_and_calls_after_a_month(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    done, left = pending(encrypt(people["usr"], b"one")), pending(encrypt(people["usr"], b"two"))
    assert approve(people["ann"], done).json["state"] == "done"
    assert all(each.result for each in rows(world) if each.approval_id == done)
    clock.advance(hours=23)
    remove_old_rows(world.service, clock())
    assert {each.approval_id: (str(each.state), each.result is None) for each in rows(world)} == {
        done: ("done", False),
        left: ("expired", True),
    }
    clock.advance(hours=2)
    remove_old_rows(world.service, clock())
    assert all(each.result is None for each in rows(world))
    clock.advance(days=31)
    remove_old_rows(world.service, clock())
    with world.service.vault.read() as snapshot:
        assert snapshot.connection.execute(select(func.count()).select_from(tables.approvals)).scalar_one() == 0


def test_what_was_asked_goes_when_the_call_is_settled(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    usr = people["usr"]
    done, withdrawn, left = (pending(encrypt(usr, b"canary " + bytes([number]))) for number in range(3))
    hashes = {each.approval_id: each.request_hash for each in rows(world)}
    assert "salt" in shown(usr, done)
    assert approve(people["ann"], done).json["state"] == "done"
    assert usr.api.post(f"{APPROVALS}/{withdrawn}/reject", {}).json["state"] == "rejected"
    clock.advance(hours=2)
    remove_old_rows(world.service, clock())
    for each in rows(world):
        bound_to = sealed_columns.approval(each.approval_id, each.requester, "request")
        assert world.service.vault.derived_keys.open(each.request, bound_to) == b""
        assert (each.same_as, each.request_hash) == (b"", hashes[each.approval_id])
    usr.api = world.login("usr")
    for approval_id in (done, withdrawn, left):
        seen = shown(usr, approval_id)
        assert (seen["request"]["body"]["plaintext"], "salt" in seen) == ({"redacted": True}, False)


def test_a_client_has_only_so_many_calls_that_wait(
    world: World, people: dict[str, Person], clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "MOST_OPEN", 3)
    usr = people["usr"]
    waiting = [pending(encrypt(usr, bytes([number]))) for number in range(3)]
    assert kind_of(encrypt(usr, b"more")) == "conflict"
    assert usr.api.post(f"{APPROVALS}/{waiting[0]}/reject", {}).json["state"] == "rejected"
    pending(encrypt(usr, b"more"))
    assert kind_of(encrypt(usr, b"yet more")) == "conflict"
    people["usr"].api = world.login("usr")
    clock.advance(minutes=59)
    assert kind_of(encrypt(usr, b"yet more")) == "conflict"
    people["usr"].api = world.login("usr")
    clock.advance(minutes=1)
    pending(encrypt(usr, b"yet more"))


def test_a_client_has_only_so_many_calls_in_a_day(
    world: World, people: dict[str, Person], clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filing, "MOST_IN_A_DAY", 3)
    usr = people["usr"]
    for number in range(3):
        waiting = pending(encrypt(usr, bytes([number])))
        assert usr.api.post(f"{APPROVALS}/{waiting}/reject", {}).json["state"] == "rejected"
    assert kind_of(encrypt(usr, b"more")) == "conflict"
    clock.advance(days=1)
    usr.api = world.login("usr")
    pending(encrypt(usr, b"more"))


def test_a_client_has_only_so_many_bytes(people: dict[str, Person], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filing, "MOST_BYTES", 300_000)
    usr = people["usr"]
    waiting = pending(encrypt(usr, bytes(150_000)))
    assert kind_of(encrypt(usr, bytes(150_001))) == "conflict"
    pending(encrypt(usr, b"a small one"))
    assert usr.api.post(f"{APPROVALS}/{waiting}/reject", {}).json["state"] == "rejected"
    pending(encrypt(usr, bytes(150_001)))


def test_filing_reads_no_call_that_waits(
    world: World, people: dict[str, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    made = [pending(encrypt(people["usr"], bytes([number]))) for number in range(5)]
    checked = transaction._checked

    def counting(keys: Any, oldest: int, cls: Any, row: Any) -> Any:
        read.extend([row] if cls is Approval else [])
        return checked(keys, oldest, cls, row)

    monkeypatch.setattr(transaction, "_checked", counting)
    pending(encrypt(people["usr"], b"new"))
    assert read == []
    assert pending(encrypt(people["usr"], bytes([3]))) == made[3]
    assert len(read) == 1


def test_calls_of_one_client_hide_those_of_no_other(
    world: World, people: dict[str, Person], clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Person.of(world, "other")
    assert other.api.post("/api/v1/keys", {"key_id": "theirs"}).status_code == 201
    hidden = pending(other.api.post("/api/v1/keys/theirs/encrypt", {"plaintext": ""}))
    for number in range(8):
        clock.advance(milliseconds=10)
        waiting = pending(encrypt(people["usr"], bytes([number])))
        if number < 5:
            assert people["usr"].api.post(f"{APPROVALS}/{waiting}/reject", {}).status_code == 200
    monkeypatch.setattr(approvals, "MOST_READ", 2)
    monkeypatch.setattr(approvals, "_AT_ONCE", 2)
    for api, most in ((people["ann"].api, 4), (other.api, 1)):
        seen, pages, cursor = [], 0, ""
        while cursor is not None:
            page = api.get(f"{APPROVALS}?state=pending&limit=3{cursor and '&cursor='}{cursor}").json
            seen += [each["approval_id"] for each in page["items"]]
            pages, cursor = pages + 1, page["next_cursor"]
        assert (len(seen), seen[-1]) == (most, hidden)
        assert pages == (1 if most == 1 else 2)
    rejected = people["ann"].api.get(f"{APPROVALS}?state=rejected&limit=2").json
    assert len(rejected["items"]) == 2
    assert rejected["next_cursor"] is not None
    assert hidden.encode() not in urlsafe_b64decode(rejected["next_cursor"] + "===")


def test_a_call_that_is_too_large_does_not_wait(people: dict[str, Person]) -> None:
    refused = encrypt(people["usr"], bytes(filing.LARGEST))
    assert kind_of(refused) == "too-large"


def test_lists_show_the_newest_first_and_as_many_as_asked_for(
    world: World, people: dict[str, Person], clock: SteeredClock
) -> None:
    waiting = []
    for number in range(60):
        waiting.append(pending(encrypt(people["usr"], bytes([number]))))
        clock.advance(milliseconds=10)
    listed = people["ann"].api.get(f"{APPROVALS}?limit=1000").json["items"]
    assert [each["approval_id"] for each in listed] == waiting[::-1]
    assert len(people["ann"].api.get(f"{APPROVALS}?limit=7").json["items"]) == 7
    assert world.user("stranger").get(APPROVALS).json["items"] == []
    assert shown(people["usr"], waiting[0])["expires_at"] > shown(people["usr"], waiting[0])["created_at"]
    assert timedelta(0) < clock() - rows(world)[0].created_at
