"""The published list: checked offline with nothing but the published key."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import KeySet

from helpers.support import SteeredClock, World
from kms.client.revocations import RevocationList, Undecided
from kms.keys.model import RevocationReason
from kms.operations import Service
from kms.revocation.model import Revocation
from kms.revocation.published import Publisher, in_force
from kms.revocation.times import issued_at


def test_the_list_can_be_checked_offline(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    user.post("/generate_ecc_key")
    user.post("/revoke_key", {"key_id": "user1_ecc", "reason": "superseded"})
    answer = user.get("/revocation_list").json
    keys = KeySet.import_key_set(world.http.get("/.well-known/jwks.json").json)
    verified = jws.deserialize_compact(answer["jws"], keys, algorithms=["Ed25519"])
    signed = ("issued_at", "next_update", "revoked_keys", "no_longer_in_force")
    assert json.loads(verified.payload) == {name: answer[name] for name in signed}
    assert verified.headers()["typ"] == "kms-revocation-list+jws"
    assert datetime.fromisoformat(answer["issued_at"]) <= clock() < datetime.fromisoformat(answer["next_update"])
    assert "d" not in world.http.get("/.well-known/jwks.json").json["keys"][0]


def test_the_entity_tag(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    user.post("/generate_ecc_key")
    first = user.get("/revocation_list")
    assert user.get("/revocation_list").data == first.data
    assert user.get("/revocation_list", **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    user.post("/revoke_key", {"key_id": "user1_ecc"})
    changed = user.get("/revocation_list", **{"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != first.headers["ETag"]


def test_every_worker_gives_the_same_bytes(service: Service, clock: SteeredClock) -> None:
    other = Publisher(service.vault, service.memory, service.revocations, service.revocation_leaves)
    assert other.current(clock()) == service.publisher.current(clock())


def test_a_list_with_thousands_of_entries_can_be_checked(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    user.post("/generate_ecc_key")
    with world.service.vault.change() as change:
        for number in range(1, 3001):
            reason = RevocationReason.KEY_COMPROMISE
            change.insert(Revocation(number, number.to_bytes(16), f"k{number}", 1, reason, clock(), None))
    user.post("/revoke_key", {"key_id": "user1_ecc"})  # and with it every worker has read the list
    document = user.get("/revocation_list").data
    checked = RevocationList.checked(document, world.http.get("/.well-known/jwks.json").data)
    assert len(checked.revoked_keys) == 3001
    assert checked.revocation_of("k2999") is not None and checked.revocation_of("k3001") is None


def listed(world: World) -> RevocationList:
    """The list as it is now, to somebody who has logged in anew."""
    document = world.login("user1").get("/revocation_list").data
    return RevocationList.checked(document, world.http.get("/.well-known/jwks.json").data)


def make_keys(world: World, *key_ids: str) -> None:
    api = world.user("user1")
    for key_id in key_ids:
        assert api.post("/api/v1/keys", {"key_id": key_id}).status_code == 201


def test_a_clock_that_was_ahead_proves_nothing_of_the_future(world: World, clock: SteeredClock) -> None:
    make_keys(world, "a", "b")
    now = clock()
    clock.advance(days=10)
    assert world.login("user1").post("/api/v1/keys/a/revoke", {"reason": "superseded"}).status_code == 200
    clock.now = now
    found = listed(world)
    assert found.issued_at <= now
    with pytest.raises(Undecided, match="made before"):
        found.revocation_at("b", now + timedelta(days=5))
    assert found.revocation_of("a") is not None
    with pytest.raises(Undecided, match="clock of the service was wrong"):
        found.revocation_at("a", found.issued_at)
    clock.advance(days=1)
    assert world.login("user1").post("/api/v1/keys/b/revoke").status_code == 200
    found = listed(world)
    assert found.revocation_of("b") == found.revocation_at("b", clock())
    assert now < found.issued_at <= clock()
    clock.advance(days=10)
    assert listed(world).issued_at > now + timedelta(days=10)


def test_clocks_of_nodes_may_differ_by_seconds(world: World, clock: SteeredClock) -> None:
    make_keys(world, "a", "b")
    now = clock()
    clock.advance(seconds=20)  # a node whose clock is ahead
    world.login("user1").post("/api/v1/keys/a/revoke")
    ahead = world.service.publisher.current(clock())
    clock.now = now
    assert world.service.publisher.current(clock()) == ahead
    one = listed(world)
    clock.advance(seconds=5)
    world.login("user1").post("/api/v1/keys/b/revoke")
    two = listed(world)
    for moment in (now + timedelta(seconds=each) for each in range(21)):
        if moment <= one.issued_at:
            assert one.revocation_at("b", moment) == two.revocation_at("b", moment) or moment == one.issued_at


def test_an_hour_is_signed_once_it_is_over_for_all() -> None:
    hour = datetime(2026, 1, 1, 12, tzinfo=UTC)
    told = {seconds: issued_at([], hour + timedelta(seconds=seconds)) for seconds in (-1, 30, 60, 3659)}
    assert told == {-1: hour - timedelta(hours=1), 30: hour - timedelta(hours=1), 60: hour, 3659: hour}


REASONS = st.sampled_from(RevocationReason)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), REASONS), max_size=12))
def test_lifted_and_overtaken_holds_are_left_out(events: list[tuple[bytes, RevocationReason]]) -> None:
    now = datetime.now().astimezone()
    entries = [Revocation(n, uid, uid.decode(), 1, reason, now, None) for n, (uid, reason) in enumerate(events)]
    shown = in_force(entries)
    assert [entry.serial for entry in shown] == sorted(entry.serial for entry in shown)
    assert all(entry.reason is not RevocationReason.REMOVE_FROM_CRL for entry in shown)
    for entry in entries:
        if entry.reason is RevocationReason.CERTIFICATE_HOLD:
            is_last = not any(later.key_uid == entry.key_uid for later in entries[entry.serial + 1 :])
            assert (entry in shown) is is_last
        elif entry.reason is not RevocationReason.REMOVE_FROM_CRL:
            assert entry in shown
