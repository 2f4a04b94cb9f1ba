"""What is told beside changes: uses after a compromise, lock-outs, and that the service does not work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from socket import gethostname

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, update

from helpers.notices import subscribe
from helpers.support import SteeredClock, Template, World, basic, settings_for
from helpers.webhook_receiver import Received, Receiver
from kms.access.model import Role
from kms.audit import spool
from kms.cli import main
from kms.operations import Schedule
from kms.vault import tables


@pytest.fixture
def world(template: Template, receiver: Receiver, tmp_path: Path, clock: SteeredClock) -> Iterator[World]:
    settings = settings_for(tmp_path / "data", notice_hosts=receiver.host, notice_ca=receiver.ca)
    opened = template.open(settings, clock)
    yield World.of(opened)
    opened.close()


def begin_an_hour(clock: SteeredClock) -> None:
    """Move the clock to where the next hour is far."""
    clock.advance(hours=1)
    clock.now = clock().replace(minute=0)


def told(world: World, receiver: Receiver) -> list[Received]:
    """What comes once everything that was seen is written and sent."""
    before = len(receiver.received)
    world.service.happenings.write()
    world.service.deliveries.deliver_due(and_wait=True)
    return receiver.received[before:]


def test_uses_of_a_compromised_key_are_told_once_an_hour(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    begin_an_hour(clock)
    alice, bob = world.user("alice"), world.user("bob")
    subscribe(alice, receiver, "key.used_after_compromise")
    for key_id in ("orders", "replaced"):
        alice.post("/api/v1/keys", {"key_id": key_id})
        grant = {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": key_id}
        assert alice.post("/api/v1/grants", grant).status_code == 201
    assert bob.post("/api/v1/keys/orders/encrypt", {"plaintext": ""}).status_code == 200
    alice.post("/revoke_key", {"key_id": "orders"})
    alice.post("/revoke_key", {"key_id": "replaced", "reason": "superseded"})
    for _ in range(3):
        for key_id in ("orders", "replaced"):
            assert bob.post(f"/api/v1/keys/{key_id}/encrypt", {"plaintext": ""}).status_code == 403
    (notice,) = told(world, receiver)
    assert notice.type == "key.used_after_compromise"
    assert notice.data == {
        "key_id": "orders", "owner": "alice", "version": 1, "client_id": "bob", "operation": "encrypt"
    }  # fmt: skip
    items = {"items": [{"plaintext": ""}] * 3}
    assert bob.post("/api/v1/keys/orders/encrypt", items).status_code in (200, 403)
    assert told(world, receiver) == []
    clock.advance(hours=1)
    bob = world.login("bob", Role.USER)
    bob.post("/api/v1/keys/orders/encrypt", items)
    assert len(told(world, receiver)) == 1


def test_a_stranger_s_guess_at_a_revoked_key_is_not_told(world: World, receiver: Receiver) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    subscribe(alice, receiver, "key.used_after_compromise")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    alice.post("/revoke_key", {"key_id": "orders"})
    assert bob.post("/api/v1/keys/orders/encrypt", {"plaintext": ""}).status_code == 404
    assert told(world, receiver) == []


def test_a_lock_out_is_told_once_an_hour_and_only_of_clients_there_are(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    begin_an_hour(clock)
    world.user("alice")
    subscribe(world.admin, receiver, "login.locked")
    for client_id in ("alice", "nobody"):
        for attempt in range(8):
            world.http.post("/auth/token", headers=basic(client_id, "wrong", **{"X-TOTP": "000000"}))
            assert not receiver.received
            clock.advance(seconds=2**attempt)
    (notice,) = told(world, receiver)
    assert (notice.type, notice.data["client_id"]) == ("login.locked", "alice")
    assert set(notice.data) == {"client_id", "source", "locked_until"}
    assert told(world, receiver) == []


def test_an_altered_vault_is_told_although_nothing_can_be_written(
    world: World, receiver: Receiver, clock: SteeredClock
) -> None:
    notice = subscribe(world.admin, receiver, "vault.integrity")
    alice = world.user("alice")
    world.user("boss", Role.ADMIN)
    altered = subscribe(world.login("boss", Role.ADMIN), receiver, "vault.integrity")["notice_id"]
    with world.service.vault.engine.begin() as connection:
        connection.execute(delete(tables.clients).where(tables.clients.c.client_id == alice.client_id))
        of_boss = tables.notices.c.notice_id == altered
        connection.execute(update(tables.notices).where(of_boss).values(key_pattern="x"))
    clock.advance(hours=1)
    schedule = Schedule(world.service)
    receiver.statuses = [500]
    schedule.check()
    schedule.alarm()
    schedule.alarm()
    assert len(receiver.received) == 1  # it waits
    clock.advance(seconds=6)
    schedule.alarm()
    first, again = receiver.received
    assert first.type == "vault.integrity"
    assert "rows of clients" in first.data["reason"]
    assert first.id == again.id
    assert again.is_signed_with(notice["secret"])
    clock.advance(minutes=5)
    schedule.alarm()
    assert len(receiver.received) == 2


def test_an_audit_log_that_cannot_be_written_is_told(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(world.admin, receiver, "audit.stalled")
    alice = world.user("alice")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.Spool, "_allocate", full)
    world.service.spool._room = 0
    for _ in range(3):
        assert alice.get("/api/v1/keys/nowhere").status_code == 503
    monkeypatch.undo()
    world.service.happenings.sound_alarms()
    (notice,) = told(world, receiver)
    assert notice.type == "audit.stalled"
    assert notice.data["node"]


def test_a_client_that_is_recovered_on_the_host_is_told_of(
    world: World, receiver: Receiver, tmp_path: Path, clock: SteeredClock
) -> None:
    subscribe(world.admin, receiver, "client.recovered")
    data, to = str(world.service.settings.data_dir), str(tmp_path / "new.json")
    arguments = ["client", "recover", "admin", "--yes", "--data-dir", data, "--to", to]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    clock.advance(minutes=5)  # the command has the clock of the machine
    (notice,) = told(world, receiver)
    assert notice.type == "client.recovered"
    assert notice.data == {"client_id": "admin", "roles": ["admin"], "status": "enabled", "node": gethostname()}
