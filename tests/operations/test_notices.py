"""Clients are told what happens to their keys: once, signed, nobody else's, and again until it is taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from standardwebhooks import Webhook

from helpers.notices import KEY_EVENTS, announce, deliveries, make, send, subscribe
from helpers.running import wait_until
from helpers.shell import ROOT
from helpers.support import Api, SteeredClock, Template, World, kind_of, settings_for
from helpers.webhook_receiver import Receiver, receiving
from kms.access.model import Role
from kms.keys.model import Key
from kms.notices import deliver, outbox
from kms.notices.deliver import LEASE, PAUSES
from kms.notices.model import Delivery, DeliveryState, Event
from kms.operations import Service
from kms.operations.system.schedule import remove_old_rows, rotate_due_keys
from kms.vault import tables
from kms.vault.checking import wrong_tables


@pytest.fixture
def world(template: Template, receiver: Receiver, tmp_path: Path, clock: SteeredClock) -> Iterator[World]:
    settings = settings_for(tmp_path / "data", notice_hosts=receiver.host, notice_ca=receiver.ca)
    opened = template.open(settings, clock)
    yield World.of(opened)
    opened.close()


def test_a_receiver_verifies_it_with_the_library(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    assert alice.post("/api/v1/keys/orders/rotate").status_code == 200
    (received,) = send(world, receiver)
    body = Webhook(notice["secret"]).verify(received.body, received.headers)
    assert (body["type"], body["data"]["version"]) == ("key.rotated", 2)
    assert received.headers["content-type"] == "application/json"
    assert received.path == "/hook"


def test_a_life_on_either_database(
    database_url: str, receiver: Receiver, tmp_path: Path, clock: SteeredClock
) -> None:
    given: dict[str, Any] = {"notice_hosts": receiver.host, "notice_ca": receiver.ca, "database_url": database_url}
    service = Service.open(settings_for(tmp_path / "data", **given), clock)
    try:
        world = World.of(service)
        alice = world.user("alice")
        notice = subscribe(alice, receiver, key_pattern="o*")
        for key_id in ("orders", "bills"):
            make(alice, key_id, "P40D")
            alice.post(f"/api/v1/keys/{key_id}/rotate")
        receiver.statuses = [500, 204, 410]
        assert len(send(world, receiver)) == 1
        clock.advance(days=11)
        announce(world)
        alice = world.login("alice", Role.USER)
        assert len(send(world, receiver)) == 2
        assert [each["state"] for each in deliveries(alice, notice)] == ["dead", "delivered"]
        path = f"/api/v1/notices/{notice['notice_id']}"
        (dead,) = deliveries(alice, notice, "dead")
        assert alice.post(f"{path}/deliveries/%00/retry").status_code == 404
        assert alice.post(f"{path}/deliveries/{dead['delivery_id']}/retry").status_code == 200
        assert alice.patch(path, {"status": "enabled"}).status_code == 200
        clock.advance(minutes=2)
        assert [each.type for each in send(world, receiver)] == ["key.expiring"]
        page = alice.get(f"{path}/deliveries?limit=1").json
        assert len(alice.get(f"{path}/deliveries?limit=1&cursor={page['next_cursor']}").json["items"]) == 1
        remove_old_rows(service, clock())
        assert 'kms_notices{state="waiting"} 0.0' in world.admin.get("/metrics").get_data(as_text=True)
        assert world.admin.delete("/api/v1/clients/alice").status_code == 200
        assert wrong_tables(service.vault) == []
    finally:
        service.close()


def test_every_way_of_making_a_version_is_told(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.rotated")
    for _ in range(2):
        alice.post("/generate_ecc_key")
    make(alice, "orders")
    alice.post("/rotate_key", {"key_id": "orders"})
    alice.post("/api/v1/keys/rotate", {"items": [{"key_id": "orders"}]})
    alice.patch("/api/v1/keys/orders", {"rotation_period": "P1D"})
    clock.advance(days=1)
    rotate_due_keys(world.service, clock())
    told = {(each.data["key_id"], each.data["version"]) for each in send(world, receiver)}
    assert told == {("alice_ecc", 2), ("orders", 2), ("orders", 3), ("orders", 4)}


def test_a_receiver_that_fails_gets_it_again_under_the_same_id(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    receiver.statuses = [500, 404, 302]
    receiver.headers = {"Location": receiver.url("/elsewhere")}
    assert len(send(world, receiver)) == 1
    assert send(world, receiver) == []  # it waits
    (waiting,) = deliveries(alice, notice)
    assert (waiting["state"], waiting["attempts"], waiting["last_fault"]) == ("waiting", 1, "it answered 500")
    for pause in PAUSES[:3]:
        clock.advance(seconds=pause.total_seconds() * 1.3)
        assert len(send(world, receiver)) == 1
    assert {each.path for each in receiver.received} == {"/hook"}  # no redirect was followed
    assert len({each.id for each in receiver.received}) == 1
    assert len({each.body for each in receiver.received}) == 1
    alice = world.login("alice", Role.USER)
    (delivered,) = deliveries(alice, notice)
    assert (delivered["state"], delivered["attempts"]) == ("delivered", 4)
    clock.advance(days=3)
    assert send(world, receiver) == []


def test_what_is_never_taken_is_dead_and_can_be_tried_again(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    receiver.statuses = [503] * (len(PAUSES) + 1)
    began = clock()
    for pause in (timedelta(), *PAUSES):
        clock.advance(seconds=pause.total_seconds() * 1.3)
        assert len(send(world, receiver)) == 1
    assert timedelta(days=2) < clock() - began < timedelta(days=5)
    clock.advance(days=5)
    assert send(world, receiver) == []
    alice = world.login("alice", Role.USER)
    (dead,) = deliveries(alice, notice, "dead")
    assert dead["last_fault"] == "it answered 503"
    assert deliveries(alice, notice, "waiting") == deliveries(alice, notice, "delivered") == []
    retried = alice.post(f"/api/v1/notices/{notice['notice_id']}/deliveries/{dead['delivery_id']}/retry")
    assert retried.json["state"] == "waiting"
    (again,) = send(world, receiver)
    assert again.id == receiver.received[0].id
    (delivered,) = deliveries(alice, notice)
    assert delivered["state"] == "delivered"
    path = f"/api/v1/notices/{notice['notice_id']}/deliveries"
    assert alice.post(f"{path}/{dead['delivery_id']}/retry").status_code == 409
    assert alice.post(f"{path}/{'0' * 32}/retry").status_code == 404
    assert alice.post(f"{path}/%00/retry").status_code == 404


def test_gone_ends_a_subscription(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    for key_id in ("a", "b"):
        make(alice, key_id)
        alice.post(f"/api/v1/keys/{key_id}/rotate")
    receiver.statuses = [410]
    assert len(send(world, receiver)) == 1
    clock.advance(minutes=5)
    assert send(world, receiver) == []
    shown = alice.get(f"/api/v1/notices/{notice['notice_id']}").json
    assert (shown["status"], shown["reason"]) == ("disabled", "its receiver has answered 410 Gone")
    assert [each["state"] for each in deliveries(alice, notice)] == ["dead", "dead"]
    alice.post("/api/v1/keys/a/rotate")
    assert len(deliveries(alice, notice)) == 2
    assert alice.patch(f"/api/v1/notices/{notice['notice_id']}", {"status": "enabled"}).json["status"] == "enabled"
    alice.post("/api/v1/keys/a/rotate")
    assert [each.data["version"] for each in send(world, receiver)] == [4]


def test_a_delivery_whose_worker_died_is_sent_later(
    world: World, receiver: Receiver, clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    monkeypatch.setattr(deliver.Deliveries, "_send_some", lambda *_: False)  # died between claim and sending
    assert send(world, receiver) == []
    monkeypatch.undo()
    assert send(world, receiver) == []
    clock.advance(seconds=LEASE.total_seconds() + 1)
    assert len(send(world, receiver)) == 1


def test_a_slow_receiver_holds_up_nobody_else(
    world: World, receiver: Receiver, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    make(alice, "orders")
    with receiving(pair) as slow:
        both = f"{receiver.host},{slow.host}"
        settings = settings_for(world.service.settings.data_dir, notice_hosts=both, notice_ca=receiver.ca)
        from kms.notices.targets import targets_of

        allowed = targets_of(settings)
        world.service.notice_targets = allowed
        world.service.deliveries._targets = allowed
        slow.held.set()
        for each in (slow, receiver):
            subscribe(alice, each)
        for _ in range(12):
            alice.post("/api/v1/keys/orders/rotate")
        world.service.deliveries.deliver_due()
        wait_until(lambda: slow.received and len(receiver.received) == 12)
        assert len(slow.received) == 1
        slow.held.clear()
        slow.released.set()


def test_nobody_is_told_of_others_keys(world: World, receiver: Receiver) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    mine = subscribe(alice, receiver)
    make(bob, "secret")
    grant = {"subject": "client:alice", "permission": "keys:encrypt", "key_pattern": "secret"}
    assert bob.post("/api/v1/grants", grant).status_code == 201
    bob.post("/api/v1/keys/secret/rotate")
    bob.post("/api/v1/keys/secret/revoke")
    assert send(world, receiver) == []
    path = f"/api/v1/notices/{mine['notice_id']}"
    assert bob.get("/api/v1/notices").json["items"] == []
    for refused in (
        bob.get(path), bob.patch(path, {"status": "disabled"}), bob.delete(path), bob.post(f"{path}/test"),
        bob.get(f"{path}/deliveries"), bob.post(f"{path}/deliveries/{'0' * 32}/retry"),
    ):  # fmt: skip
        assert refused.status_code == 404
    for event in ("login.locked", "vault.integrity", "audit.stalled"):
        refused = bob.post("/api/v1/notices", {"url": receiver.url(), "events": [event]})
        assert kind_of(refused) == "permission-denied"
    auditor = world.user("eve", Role.AUDITOR)
    assert kind_of(auditor.post("/api/v1/notices", {"url": receiver.url(), "events": KEY_EVENTS})) == (
        "permission-denied"
    )


def test_administrators_are_told_of_everybodys_keys_and_see_no_paths(world: World, receiver: Receiver) -> None:
    alice, admin = world.user("alice"), world.admin
    of_alice = subscribe(alice, receiver)
    of_admin = subscribe(admin, receiver, "key.rotated", "login.locked", key_pattern="orders*")
    for key_id in ("orders-1", "bills"):
        make(alice, key_id)
        alice.post(f"/api/v1/keys/{key_id}/rotate")
    came = send(world, receiver)
    assert sum(each.is_signed_with(of_alice["secret"]) for each in came) == 2
    assert [each.data["key_id"] for each in came if each.is_signed_with(of_admin["secret"])] == ["orders-1"]
    shown = {each["client_id"]: each["url"] for each in admin.get("/api/v1/notices").json["items"]}
    assert shown == {"alice": f"https://{receiver.host}/…", "admin": receiver.url()}
    path = f"/api/v1/notices/{of_alice['notice_id']}"
    assert kind_of(admin.get(f"{path}/deliveries")) == "permission-denied"
    assert kind_of(admin.patch(path, {"key_pattern": "x"})) == "permission-denied"
    assert admin.delete(path).status_code == 200
    assert [each["client_id"] for each in admin.get("/api/v1/notices").json["items"]] == ["admin"]


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_nothing_is_sent_for_a_client_that_is_no_more(world: World, receiver: Receiver, how: str) -> None:
    alice, admin = world.user("alice"), world.admin
    subscribe(alice, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    if how == "disable":
        assert admin.post("/api/v1/clients/alice/disable").status_code == 200
    else:
        assert admin.delete("/api/v1/clients/alice").status_code == 200
    assert send(world, receiver) == []
    with world.service.vault.read() as snapshot:
        assert snapshot.select(Delivery) == []


def test_a_denial_outweighs_a_subscription(world: World, receiver: Receiver) -> None:
    alice, admin = world.user("alice"), world.admin
    world.user("boss", Role.ADMIN)
    boss = world.login("boss", Role.ADMIN)
    notice = subscribe(boss, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    assert len(deliveries(boss, notice)) == 1
    denial = {"subject": "client:boss", "permission": "keys:read", "key_pattern": "orders", "effect": "deny"}
    assert admin.post("/api/v1/grants", denial).status_code == 201
    assert deliveries(boss, notice) == []  # nor is it shown what waits to be sent
    assert send(world, receiver) == []


def test_revocations_are_told_of_with_their_reason(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.revoked")
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/suspend")
    alice.post("/api/v1/keys/orders/resume")
    alice.post("/revoke_key", {"key_id": "orders", "reason": "superseded"})
    alice.post("/revoke_key", {"key_id": "orders", "reason": "superseded"})  # changes nothing
    reasons = [each.data["reason"] for each in send(world, receiver)]
    assert sorted(reasons) == ["certificateHold", "removeFromCRL", "superseded"]


def test_a_change_that_is_refused_tells_nothing(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver)
    make(alice, "orders")
    items = {"items": [{"key_id": "orders"}, {"key_id": "nowhere"}]}
    answer = alice.post("/api/v1/keys/revoke", items)
    assert "error" in answer.json["items"][1]
    assert [each.data["key_id"] for each in send(world, receiver)] == ["orders"]
    receiver.received.clear()
    with pytest.raises(RuntimeError), world.service.vault.change() as change:
        from kms.keys.model import RevocationReason
        from kms.revocation.revoke import revoke

        made = change.select(Key, tables.keys.c.key_id == "orders")[0]
        revoke(change, made, RevocationReason.KEY_COMPROMISE, world.service.clock())
        raise RuntimeError
    assert send(world, receiver) == []


def test_the_secret_is_shown_once_and_nothing_stands_in_the_database(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    answer = alice.post("/api/v1/notices", {"url": receiver.url("/token-in-the-path"), "events": KEY_EVENTS})
    notice = answer.json
    assert answer.headers["Location"] == f"/api/v1/notices/{notice['notice_id']}"
    secret = notice["secret"]
    assert secret.startswith("whsec_")
    for shown in (alice.get("/api/v1/notices"), alice.get(answer.headers["Location"])):
        assert "secret" not in shown.text
        assert "token-in-the-path" in shown.text
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    send(world, receiver)
    world.service.vault.checkpoint()
    for file in world.service.settings.data_dir.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert secret.removeprefix("whsec_").encode() not in content, file
        assert b"token-in-the-path" not in content, file


def test_a_secret_changes_without_a_notice_that_nobody_verifies(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    path = f"/api/v1/notices/{notice['notice_id']}"
    secrets = [notice["secret"]]
    signed = []
    for hours in (0, 1, 24):
        clock.advance(hours=hours)
        alice = world.login("alice", Role.USER)
        if hours < 24:
            secrets.append(alice.post(f"{path}/rotate-secret").json["secret"])
        alice.post(f"{path}/test")
        signed.append([receiver.received[-1].is_signed_with(secret) for secret in secrets])
    assert signed == [[True, True], [False, True, True], [False, False, True]]
    assert len(set(secrets)) == 3
    assert "secret" not in alice.get(path).text
    assert world.user("bob").post(f"{path}/rotate-secret").status_code == 404
    assert kind_of(world.admin.post(f"{path}/rotate-secret")) == "permission-denied"


def test_deletion_leaves_nothing(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    assert alice.delete(f"/api/v1/notices/{notice['notice_id']}").status_code == 200
    with world.service.vault.read() as snapshot:
        for table in (tables.notices, tables.notice_outbox):
            assert snapshot.connection.execute(select(func.count()).select_from(table)).scalar() == 0
    assert send(world, receiver) == []
    assert wrong_tables(world.service.vault) == []


@pytest.mark.parametrize("how", ["notice", "client"])
def test_deletion_of_much_leaves_nothing(
    world: World, receiver: Receiver, clock: SteeredClock, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_FORGOTTEN_AT_ONCE", 2)
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    for _ in range(7):
        alice.post("/api/v1/keys/orders/rotate")
    if how == "notice":
        assert alice.delete(f"/api/v1/notices/{notice['notice_id']}").status_code == 200
    else:
        assert world.admin.delete("/api/v1/clients/alice").status_code == 200
        remove_old_rows(world.service, clock())
    with world.service.vault.read() as snapshot:
        assert snapshot.select(Delivery) == []
    assert wrong_tables(world.service.vault) == []


def test_a_clock_that_was_ahead_puts_nothing_off(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    make(alice, "orders")
    clock.advance(days=400)
    alice = world.login("alice", Role.USER)
    subscribe(alice, receiver)
    alice.post("/api/v1/keys/orders/rotate")
    receiver.statuses = [500]
    assert len(send(world, receiver)) == 1
    clock.advance(days=-400)
    assert len(send(world, receiver)) == 1


def test_a_test_says_how_it_ended(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    path = f"/api/v1/notices/{notice['notice_id']}/test"
    assert alice.post(path).json == {"notice_id": notice["notice_id"], "delivered": True}
    assert (receiver.received[0].type, receiver.received[0].data) == (
        "notice.test",
        {"notice_id": notice["notice_id"]},
    )
    assert receiver.received[0].is_signed_with(notice["secret"])
    receiver.statuses = [500]
    assert alice.post(path).json["fault"] == "it answered 500"


def test_pages_of_deliveries(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    notice = subscribe(alice, receiver)
    make(alice, "orders")
    for number in range(5):
        clock.advance(seconds=number % 2)
        alice.post("/api/v1/keys/orders/rotate")
    path, found, cursor = f"/api/v1/notices/{notice['notice_id']}/deliveries?limit=2", [], ""
    while True:
        page = alice.get(path + cursor).json
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len({each["delivery_id"] for each in found}) == len(found) == 5
    assert found[0]["data"]["version"] == 6 or found[1]["data"]["version"] == 6


def test_what_was_settled_long_ago_is_removed(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver)
    make(alice, "orders")
    for statuses in ([], [410]):
        receiver.statuses = statuses
        alice.post("/api/v1/keys/orders/rotate")
        send(world, receiver)

    def states_after(days: int) -> list[str]:
        clock.advance(days=days)
        remove_old_rows(world.service, clock())
        with world.service.vault.read() as snapshot:
            return sorted(each.state for each in snapshot.select(Delivery))

    assert [states_after(days) for days in (2, 2, 27)] == [["dead", "delivered"], ["dead"], []]


def test_what_waits_and_what_is_dead_is_in_the_metrics(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver)
    for key_id in ("a", "b"):
        make(alice, key_id)
        alice.post(f"/api/v1/keys/{key_id}/rotate")
    receiver.statuses = [500]
    send(world, receiver)
    text = world.admin.get("/metrics").get_data(as_text=True)
    assert 'kms_notices{state="waiting"} 2.0' in text
    assert 'kms_notices{state="dead"} 0.0' in text


def test_the_page_has_every_event_and_what_is_told(world: World, receiver: Receiver, clock: SteeredClock) -> None:
    page = (ROOT / "docs" / "reference" / "notices.md").read_text()
    listed = {
        name: set(re.findall(r"`(\w+)`", told))
        for name, told in re.findall(r"^\| `([\w.]+)`.*\| (.*) \|$", page, re.M)
    }
    assert set(Event) <= set(listed)
    alice = world.user("alice")
    subscribe(alice, receiver)
    make(alice, "orders", "P31D")
    alice.post("/api/v1/keys/orders/rotate")
    clock.advance(days=2)
    announce(world)
    alice = world.login("alice", Role.USER)
    alice.post("/api/v1/keys/orders/revoke", {"compromised_at": clock().isoformat()})
    alice.post("/api/v1/keys/orders/encrypt", {"plaintext": ""})
    world.service.happenings.write()
    for received in send(world, receiver):
        assert set(received.data) == listed[received.type], received.type
    assert {each.type for each in receiver.received} == set(KEY_EVENTS)
    examples = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)]
    assert all(set(each["data"]) <= listed[each["type"]] for each in examples)


def test_what_nobody_subscribed_to_is_not_written(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    subscribe(alice, receiver, "key.expiring")
    make(alice, "orders")
    alice.post("/api/v1/keys/orders/rotate")
    with world.service.vault.read() as snapshot:
        assert snapshot.matching(Delivery, state=DeliveryState.WAITING) == []


@pytest.mark.parametrize(
    "body",
    [
        {"events": ["key.rotated"]},
        {"events": ["key.rotated"], "url": "HOOK", "email": "a@example.org"},
        {"events": [], "url": "HOOK"},
        {"events": ["key.made"], "url": "HOOK"},
        {"events": ["notice.test"], "url": "HOOK"},
        {"events": ["key.rotated"], "email": "a@example.org"},
        {"events": ["key.rotated"], "url": "HOOK", "key_pattern": "a*b"},
    ],
)
def test_what_is_no_subscription(world: World, receiver: Receiver, body: dict[str, Any]) -> None:
    alice = world.user("alice")
    body = {name: receiver.url() if value == "HOOK" else value for name, value in body.items()}
    assert kind_of(alice.post("/api/v1/notices", body)) == "validation-failed"
    assert receiver.received == []


def test_a_client_has_twenty_at_the_most_and_a_narrowed_session_none(world: World, receiver: Receiver) -> None:
    alice = world.user("alice")
    for _ in range(20):
        subscribe(alice, receiver)
    assert kind_of(alice.post("/api/v1/notices", {"url": receiver.url(), "events": KEY_EVENTS})) == "conflict"
    bob = world.user("bob")
    exchange = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "scope": "notices:manage"}
    token = bob.http.post("/auth/token", data=exchange, headers=bob.headers).json["access_token"]
    narrowed = Api(bob.http, {"Authorization": f"Bearer {token}"}, "bob")
    refused = narrowed.post("/api/v1/notices", {"url": receiver.url(), "events": KEY_EVENTS})
    assert kind_of(refused) == "permission-denied"
    notice = subscribe(bob, receiver)
    path = f"/api/v1/notices/{notice['notice_id']}"
    for answer in (
        narrowed.get("/api/v1/notices"),
        narrowed.get(path),
        narrowed.get(f"{path}/deliveries"),
        narrowed.post(f"{path}/test"),
        narrowed.patch(path, {"key_pattern": "x"}),
        narrowed.delete(path),
    ):
        assert kind_of(answer) == "permission-denied"
    assert bob.get(path).status_code == 200
