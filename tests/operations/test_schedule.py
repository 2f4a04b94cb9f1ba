"""What happens by itself, exactly once however many workers there are."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select

from helpers.support import LEASE, SteeredClock, World
from kms.access import clients
from kms.access.model import Role, Token
from kms.config import Settings
from kms.operations import Schedule, Service
from kms.operations.system.schedule import remove_old_rows, rotate_due_keys
from kms.vault import tables
from kms.vault.checking import wrong_tables


def versions(service: Service, key_id: str) -> int:
    with service.vault.read() as snapshot:
        key = snapshot.key_by_id(key_id)
        assert key is not None
        assert len(snapshot.versions(key)) == key.latest_version
        return key.latest_version


def test_a_due_key_is_rotated_once_by_many_workers(database_url: str, tmp_path: Path, clock: SteeredClock) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, lease=LEASE, threads=4)
    workers = [Service.open(settings, clock) for _ in range(4)]
    world = World.of(workers[0])
    user = world.user("user1")
    user.post("/generate_ecc_key")
    assert user.patch("/api/v1/keys/user1_ecc", {"rotation_period": "P30D"}).status_code == 200
    try:
        for expected in (1, 2, 3):
            threads = [threading.Thread(target=rotate_due_keys, args=(each, clock())) for each in workers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert versions(workers[0], "user1_ecc") == expected
            clock.advance(days=30)
    finally:
        for each in workers:
            each.close()


def test_a_rotation_whose_claimant_died_is_taken_up(
    world: World, clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = world.user("user1")
    user.post("/generate_ecc_key")
    user.patch("/api/v1/keys/user1_ecc", {"rotation_period": "P1D"})
    clock.advance(days=1)
    from kms.operations.system import schedule

    monkeypatch.setattr(schedule, "_rotate", lambda *_: 0)  # died between claim and rotation
    rotate_due_keys(world.service, clock())
    monkeypatch.undo()
    rotate_due_keys(world.service, clock())
    assert versions(world.service, "user1_ecc") == 1
    clock.advance(minutes=2)
    rotate_due_keys(world.service, clock())
    assert versions(world.service, "user1_ecc") == 2


def test_revoked_and_suspended_keys_do_not_rotate(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    for path in ("/generate_ecc_key", "/generate_symmetric_key"):
        user.post(path)
    for key_id in ("user1_ecc", "user1_symmetric"):
        user.patch(f"/api/v1/keys/{key_id}", {"rotation_period": "P1D"})
    user.post("/revoke_key", {"key_id": "user1_ecc"})
    user.post("/api/v1/keys/user1_symmetric/suspend")
    clock.advance(days=2)
    rotate_due_keys(world.service, clock())
    assert versions(world.service, "user1_ecc") == versions(world.service, "user1_symmetric") == 1
    world.login("user1", Role.USER).post("/api/v1/keys/user1_symmetric/resume")
    rotate_due_keys(world.service, clock())
    assert versions(world.service, "user1_symmetric") == 2


def test_the_rotation_is_in_the_audit_log(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    user.post("/generate_ecc_key")
    user.patch("/api/v1/keys/user1_ecc", {"rotation_period": "P1D"})
    clock.advance(days=1)
    rotate_due_keys(world.service, clock())
    entries = world.admin.get("/api/v1/audit/entries").json["items"]
    (entry,) = [entry for entry in entries if entry["operation"] == "scheduled_rotation"]
    assert (entry["key_id"], entry["version"], entry["outcome"]) == ("user1_ecc", 2, "success")


def test_keys_that_expire_soon_are_announced(world: World, clock: SteeredClock) -> None:
    world.user("user1").post("/generate_ecc_key")
    for days, expected in ((0, (0, 0)), (340, (0, 1)), (360, (1, 1)), (366, (0, 0))):
        clock.advance(days=days)
        text = world.admin.get("/metrics").get_data(as_text=True)
        for within, count in zip((7, 30), expected, strict=True):
            assert f'kms_keys_expiring{{days="{within}"}} {count}.0' in text
        clock.advance(days=-days)


def test_ended_sessions_and_old_failures_are_removed(world: World, clock: SteeredClock) -> None:
    world.user("user1")
    world.http.post("/auth/token", headers={"Authorization": "Basic eDp4", "X-TOTP": "000000"})
    clock.advance(hours=2)
    remove_old_rows(world.service, clock())
    with world.service.vault.read() as snapshot:
        assert snapshot.select(Token) == []
        assert snapshot.connection.execute(select(func.count()).select_from(tables.login_failures)).scalar() == 0
    assert wrong_tables(world.service.vault) == []


def test_a_running_schedule_checks_the_vault(
    world: World, clock: SteeredClock, capfd: pytest.CaptureFixture[str]
) -> None:
    schedule = Schedule(world.service)
    with world.service.vault.change() as change:
        clients.create(change, "user1", frozenset({Role.USER}), clock())
    with world.service.vault.engine.begin() as connection:
        connection.execute(delete(tables.clients).where(tables.clients.c.client_id == "user1"))
    clock.advance(hours=1)
    schedule.check()
    assert "KEYS ARE NOT USED" in "".join(capfd.readouterr())
