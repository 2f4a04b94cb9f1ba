"""Each revocation names the audit entry that made it; what was revoked at a time follows from the list alone."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete

from helpers.support import Api, SteeredClock, World
from kms.audit.tree import leaf_hash
from kms.client.errors import NotAuthentic
from kms.client.revocations import Revocation, RevocationList, Undecided
from kms.errors import IntegrityFailure
from kms.keys.model import RevocationReason
from kms.operations import Service
from kms.revocation.leaves import KnownLeaves, RevocationLeaf
from kms.revocation.revoke import publish_under_its_id, revoke
from kms.vault import tables
from kms.vault.checking import wrong_tables
from kms.vault.memory import Memory
from kms.vault.rows import OutboxEntry


def entries(service: Service) -> dict[bytes, dict[str, Any]]:
    """The audit entries of changes, by their leaf hashes."""
    with service.vault.read() as snapshot:
        return {leaf_hash(each.entry.encode()): json.loads(each.entry) for each in snapshot.select(OutboxEntry)}


def made_by(service: Service, listed: dict[str, Any]) -> dict[str, Any]:
    """The audit entry that an entry of the list names."""
    return entries(service)[b64decode(listed["audit_leaf"], validate=True)]


def list_of(api: Api) -> list[dict[str, Any]]:
    """Every entry of the published list, in order."""
    answer = api.get("/revocation_list").json
    return sorted(answer["revoked_keys"] + answer["no_longer_in_force"], key=lambda each: int(each["serial"]))


def checked_list(world: World, api: Api) -> RevocationList:
    """The published list as a client checks it."""
    return RevocationList.checked(api.get("/revocation_list").data, world.http.get("/.well-known/jwks.json").data)


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    for key_id in ("a", "b", "c"):
        assert api.post("/api/v1/keys", {"key_id": key_id}).status_code == 201
    return api


def test_every_way_to_revoke_names_its_own_entry(world: World, alice: Api) -> None:
    answer = alice.post("/api/v1/keys/a/revoke", {"reason": "superseded"})
    alice.post("/api/v1/keys/revoke", {"items": [{"key_id": "b"}, {"key_id": "none"}, {"key_id": "c"}]})
    alice.post("/api/v1/keys", {"key_id": "d"})
    alice.post("/api/v1/keys/d/suspend")
    alice.post("/api/v1/keys/d/resume")
    listed = list_of(alice)
    assert listed[0]["audit_leaf"] == answer.headers["Audit-Leaf"]
    made = [made_by(world.service, each) for each in listed]
    assert [(each["operation"], each["key_id"]) for each in made] == [
        ("revoke_key_versions", "a"), ("revoke_named_key", "b"), ("revoke_named_key", "c"),
        ("suspend_key", "d"), ("resume_key", "d"),
    ]  # fmt: skip
    assert [each["key_id"] for each in listed] == [each["key_id"] for each in made]
    assert len({each["audit_leaf"] for each in listed}) == 5
    assert [each["serial"] for each in listed] == [1, 2, 3, 4, 5]
    assert wrong_tables(world.service.vault) == []


def test_a_copy_under_another_id_names_the_entry_that_revoked(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys/a/revoke", {"reason": "superseded"})
    with world.service.vault.change() as change:
        found = change.key_by_id("a")
        assert found is not None
        publish_under_its_id(change, replace(found, key_id="other"))
        change.record('{"operation": "another"}')
    world.service.memory.refresh()  # no name was outdated, so nothing else waits for it
    one, two = list_of(alice)
    assert (one["key_id"], two["key_id"]) == ("a", "other")
    assert one["audit_leaf"] == two["audit_leaf"]


def test_a_key_that_gave_its_name_free_is_listed_under_both_ids(
    world: World, alice: Api, clock: SteeredClock
) -> None:
    for key_id, then in (("a", "revoke"), ("b", "suspend")):
        released = alice.delete(f"/api/v1/keys/{key_id}", {"release_name": True}).json["key_id"]
        clock.advance(seconds=1)
        assert alice.post(f"/api/v1/keys/{released}/{then}").status_code == 200
        found = checked_list(world, alice)
        assert [found.revocation_of(name) is not None for name in (key_id, released)] == [True, True]
        assert found.revocation_at(key_id, found.issued_at) is not None
        one, two = list_of(alice)[-2:]
        assert one["audit_leaf"] == two["audit_leaf"] and one["key_reference"] != two["key_reference"]
    assert alice.post(f"/api/v1/keys/{released}/resume").status_code == 200
    clock.advance(hours=1)
    found = checked_list(world, world.login("alice"))
    assert found.revocation_of("b") is found.revocation_of(released) is None
    assert wrong_tables(world.service.vault) == []


def test_a_revoked_key_that_gives_its_name_free_is_listed_under_its_new_id(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys/a/revoke")
    released = alice.delete("/api/v1/keys/a", {"release_name": True}).json["key_id"]
    found = checked_list(world, alice)
    assert [found.revocation_of(name) is not None for name in ("a", released)] == [True, True]
    alice.post(f"/api/v1/keys/{released}/cancel-deletion")
    assert len(list_of(alice)) == 2


def test_only_a_key_id_can_be_asked_for() -> None:
    found = the_list(one(1, "signing", "superseded", 5))
    for name in ("alias/prod", "arn:aws:kms:us-east-1:000000000000:key/signing", " signing", "signing\n", "", "Å"):
        with pytest.raises(Undecided, match="not a key id"):
            found.revocation_of(name)
        with pytest.raises(Undecided, match="not a key id"):
            found.revocation_at(name, at(6))


def test_what_is_undone_leaves_no_leaf(world: World, alice: Api, clock: SteeredClock) -> None:
    service = world.service

    class Undone(Exception):
        pass

    with service.vault.change() as change:
        first, second = change.key_by_id("a"), change.key_by_id("b")
        assert first is not None and second is not None
        revoke(change, first, RevocationReason.SUPERSEDED, clock())
        with pytest.raises(Undone), change.part():
            revoke(change, second, RevocationReason.SUPERSEDED, clock())
            change.record('{"operation": "undone"}')
            raise Undone
        change.record('{"operation": "kept"}')
        change.record('{"operation": "later"}')
    (listed,) = list_of(alice)
    assert (listed["key_id"], made_by(service, listed)) == ("a", {"operation": "kept"})
    with service.vault.read() as snapshot:
        assert len(snapshot.select(RevocationLeaf)) == 1
    assert wrong_tables(service.vault) == []


def test_a_revocation_of_an_older_release_has_no_leaf(world: World, alice: Api, clock: SteeredClock) -> None:
    with world.service.vault.change() as change:
        found = change.key_by_id("a")
        assert found is not None
        revoke(change, found, RevocationReason.SUPERSEDED, clock())  # and nothing is recorded
    alice.post("/api/v1/keys/b/revoke")
    before, after = list_of(alice)
    assert "audit_leaf" not in before and made_by(world.service, after)["key_id"] == "b"
    checked = checked_list(world, alice)
    assert [each.leaf is None for each in checked.revoked_keys] == [True, False]


BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return BEGINNING + timedelta(hours=hours)


def one(serial: int, key_id: str, reason: str, hours: float, up_to: int = 3) -> Revocation:
    return Revocation(
        serial=serial, key_id=key_id, up_to_version=up_to, reason=reason, revoked_at=at(hours), audit_leaf="AAAA"
    )


def the_list(*in_force: Revocation, ended: tuple[Revocation, ...] | None = (), made: float = 100) -> RevocationList:
    return RevocationList(at(made), at(made + 2), in_force, ended)


def test_a_key_is_revoked_from_its_entry_on() -> None:
    found = the_list(one(1, "k", "superseded", 5))
    assert found.revocation_at("k", at(4.99)) is None
    assert found.revocation_at("k", at(5)) == found.revocation_at("k", at(1000)) == found.revoked_keys[0]
    assert found.revocation_at("k", at(6), version=4) is None
    assert found.revocation_at("other", at(100)) is None
    with pytest.raises(Undecided, match="before that time"):
        found.revocation_at("other", at(100.1))


def test_a_hold_counts_while_it_lasted() -> None:
    hold, lift, again = (
        one(1, "k", "certificateHold", 5), one(2, "k", "removeFromCRL", 10), one(3, "k", "certificateHold", 20),
    )  # fmt: skip
    found = the_list(again, ended=(hold, lift))
    told = [found.revocation_at("k", at(hours)) for hours in (4, 5, 9, 10, 19, 20, 100)]
    assert told == [None, hold, hold, None, None, again, again]
    with pytest.raises(Undecided):  # it may have been lifted since
        found.revocation_at("k", at(101))
    replaced = the_list(one(2, "k", "superseded", 10), ended=(hold,))
    assert [replaced.revocation_at("k", at(hours)) for hours in (4, 7, 11)] == [
        None, hold, replaced.revoked_keys[0],
    ]  # fmt: skip
    elsewhere = the_list(ended=(hold, one(2, "renamed", "removeFromCRL", 10)))
    assert elsewhere.revocation_at("k", at(50)) == hold  # nothing tells that it ended


def test_a_list_that_leaves_something_out_proves_no_absence() -> None:
    gap = the_list(one(1, "k", "superseded", 5), one(3, "l", "superseded", 6))
    assert gap.revocation_at("k", at(7)) is not None
    with pytest.raises(Undecided, match="Entry 2"):
        gap.revocation_at("m", at(7))
    old = the_list(one(1, "k", "superseded", 5), ended=None)
    assert old.revocation_at("k", at(7)) is not None
    with pytest.raises(Undecided, match="older release"):
        old.revocation_at("m", at(7))


def test_a_leaf_must_be_one() -> None:
    with pytest.raises(NotAuthentic, match="Entry 1"):
        _ = one(1, "k", "superseded", 5).leaf
    with pytest.raises(NotAuthentic):
        _ = msgspec.structs.replace(one(1, "k", "superseded", 5), audit_leaf="?").leaf


STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["hold", "lift", "end"])), max_size=14)


@given(STEPS, st.integers(0, 16))
def test_the_list_says_what_the_keys_were_at_each_time(steps: list[tuple[str, str]], asked: int) -> None:
    """Against keys that are simply followed: hour n is the one of step n, and steps that do nothing are left out."""
    state: dict[str, str] = {"a": "active", "b": "active"}
    then = dict(state)
    made: list[Revocation] = []
    for hour, (key, step) in enumerate(steps):
        allowed = {"hold": state[key] == "active", "lift": state[key] == "held", "end": state[key] != "ended"}[step]
        if allowed:
            state[key] = {"hold": "held", "lift": "active", "end": "ended"}[step]
            reason = {"hold": "certificateHold", "lift": "removeFromCRL", "end": "superseded"}[step]
            made.append(one(len(made) + 1, key, reason, hour))
        if hour <= asked:
            then = dict(state)
    last = {each.key_id: each.serial for each in made}
    in_force = [
        each
        for each in made
        if each.reason == "superseded" or (each.reason == "certificateHold" and last[each.key_id] == each.serial)
    ]
    ended = tuple(each for each in made if each not in in_force)
    found = the_list(*in_force, ended=ended)
    for key in "ab":
        assert (found.revocation_at(key, at(asked)) is not None) is (then[key] != "active")


def test_leaves_that_an_operator_accepted_take_the_place_of_others(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys/a/revoke")
    alice.post("/api/v1/keys/b/revoke")
    known = world.service.revocation_leaves
    list_of(alice)
    with world.service.vault.change() as change:
        before = change.find(RevocationLeaf, 2)
        assert before is not None and known.of(2) == before.leaf
        change.replace(before, RevocationLeaf(2, b"x" * 32))
    world.service.memory.refresh()
    assert (known.of(2), known.of(3)) == (b"x" * 32, None)
    with world.service.vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.execute(delete(tables.revocation_leaves).where(tables.revocation_leaves.c.serial == 1))
    again = KnownLeaves(Memory(world.service.vault))
    with (
        world.service.vault.read() as snapshot,
        pytest.raises(IntegrityFailure, match="audit entries of revocations"),
    ):
        again.follow(snapshot, snapshot.head())
