"""The audit log is searched, folded or not, and answers what people ask of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from helpers.support import SteeredClock, Template, World, b64, kind_of, settings_for
from kms.access.model import Role
from kms.audit import index_watch, questions
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.index import Index
from kms.audit.index_check import check
from kms.audit.tiles import bundle_path
from kms.clock import steady_seconds
from kms.operations import OPERATIONS


@pytest.fixture
def used(world: World, clock: SteeredClock) -> World:
    """A key that alice made and used, rotated, and lets bob use; half of it is folded."""
    alice, bob = world.user("alice"), world.user("bob")
    alice.post("/api/v1/keys", {"key_id": "orders"})
    alice.post("/api/v1/keys", {"key_id": "forgotten"})
    alice.post("/api/v1/grants", {"subject": "client:bob", "permission": "keys:encrypt", "key_pattern": "orders"})
    alice.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")})
    world.service.folder.fold()
    clock.advance(days=100)
    alice, bob = world.login("alice", Role.USER), world.login("bob", Role.USER)
    assert alice.post("/api/v1/keys/orders/rotate").status_code == 200
    for _ in range(3):
        clock.advance(seconds=1)
        bob.post("/api/v1/keys/orders/encrypt", {"plaintext": b64(b"x")})
    return world


def entries(world: World, **filters: Any) -> list[dict[str, Any]]:
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = world.admin.get(f"/api/v1/audit/entries?{query}")
    assert answer.status_code == 200, answer.json
    return answer.json["items"]


@pytest.mark.parametrize("is_folded", [False, True])
def test_entries_are_found_folded_or_not(used: World, is_folded: bool) -> None:
    if is_folded:
        used.service.folder.fold()
    found = entries(used, key_id="orders", operation="encrypt")
    assert [(each["client_id"], each["version"]) for each in found] == [("alice", 1), *[("bob", 2)] * 3]
    assert len(entries(used, key_id="orders", operation="encrypt", limit=2)) == 2
    assert {each["client_id"] for each in entries(used, key_id="orders", version=2, operation="encrypt")} == {"bob"}
    session = found[0]["session"]
    assert [each["operation"] for each in entries(used, session=session)][:2] == ["create_key", "create_key"]
    assert entries(used, request_id=found[1]["request_id"]) == [found[1]]
    assert entries(used, outcome="refused", key_id="orders") == []


def test_pages_go_back_to_the_first_entry(used: World) -> None:
    found: list[dict[str, Any]] = []
    path = "/api/v1/audit/entries?limit=3"
    page = used.admin.get(path).json
    while True:
        found = page["items"] + found
        if page["next_cursor"] is None:
            break
        page = used.admin.get(f"{path}&cursor={page['next_cursor']}").json
    once = [(each["request_id"], each["operation"]) for each in found]
    assert len(once) == len(set(once))
    assert found[0]["operation"] == "bootstrap"
    operations = [each["operation"] for each in found]
    assert operations.count("encrypt") == 4
    assert operations.count("create_key") == 2


def test_who_used_a_version_of_a_key(used: World) -> None:
    used.service.folder.fold()
    (bob,) = used.admin.get("/api/v1/audit/users-of-key?key_id=orders&version=2").json["items"][1:]
    assert (bob["client_id"], bob["uses"]) == ("bob", 3)
    later = bob["first"]
    assert used.admin.get(f"/api/v1/audit/users-of-key?key_id=orders&after={later}").json["items"][0]["uses"] == 2
    assert used.user("carol").get("/api/v1/audit/users-of-key?key_id=orders").status_code == 403


def test_what_a_client_had_never_done_before(used: World) -> None:
    used.service.folder.fold()
    after = entries(used, key_id="orders", operation="encrypt", client_id="alice")[0]["time"]
    found = used.admin.get(f"/api/v1/audit/novelties?client_id=alice&after={after}").json["items"]
    assert [(each["operation"], each["key_id"]) for each in found] == [("rotate_key_version", "orders")]


def test_keys_that_nobody_used(used: World, clock: SteeredClock) -> None:
    used.service.last_uses.write_at_the_end()
    since = (clock() - timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = used.admin.get(f"/api/v1/keys?unused_since={since}").json["items"]
    assert [each["key_id"] for each in found] == ["forgotten"]


def test_an_index_that_is_damaged_does_not_hide_anything(used: World) -> None:
    used.service.folder.fold()
    index = used.service.settings.audit_index
    index.write_bytes(b"x" * 8192)
    answer = used.admin.get("/api/v1/audit/entries?key_id=orders&operation=encrypt")
    assert answer.status_code == 503 or len(answer.json["items"]) == 4
    used.user("dora")
    used.service.folder.fold()
    assert len(entries(used, key_id="orders", operation="encrypt")) == 4


def test_questions_that_may_take_long_are_bounded(used: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {name for name, each in OPERATIONS.items() if each.slow}
    assert {"audit_entries", "get_users_of_key", "get_novelties"} <= slow
    used.service.folder.fold()
    path = "/api/v1/audit/novelties?client_id=alice&after=2020-01-01T00:00:00Z"
    assert used.admin.get(path).json["items"]
    monkeypatch.setattr(questions, "MOST_BUNDLES", 0)
    answer = used.admin.get(path)
    assert (answer.status_code, kind_of(answer)) == (422, "validation-failed") and "from later on" in answer.text


def record_old(world: World, count: int) -> None:
    at = timestamp(world.service.clock())
    with world.service.vault.change() as change:
        for number in range(count):
            change.record(AuditEntry(1, at, str(number), "old", SUCCESS, "local").line().decode())


def test_an_index_without_some_rows_is_found_and_made_anew(used: World, monkeypatch: pytest.MonkeyPatch) -> None:
    used.service.folder.fold()
    record_old(used, 300)  # more than the bundle that is indexed again when the log grows
    used.service.folder.fold()
    index = used.service.settings.audit_index
    with sqlite3.connect(index) as database:
        database.execute("DELETE FROM postings")
    database.close()
    assert entries(used, key_id="orders") == []
    later = steady_seconds() + used.service.settings.integrity_interval.total_seconds()
    monkeypatch.setattr(index_watch, "steady_seconds", lambda: later)
    with capture_logs() as logs:
        used.service.folder.fold()
    assert [each["event"] for each in logs if each["log_level"] == "critical"] == [
        "THE INDEX OF THE AUDIT LOG WAS WRONG, and is made anew"
    ]
    assert not index.exists()
    used.service.folder.fold()
    assert len(entries(used, key_id="orders", operation="encrypt")) == 4
    (told,) = entries(used, operation="audit_index_wrong")
    assert told["request_id"] == "fold" and "of the entries 0 to 255" in told["target"]


def test_what_retention_dropped_does_not_stop_searches(
    template: Template, tmp_path: Path, clock: SteeredClock
) -> None:
    settings = settings_for(tmp_path / "data", audit_keep=timedelta(days=1))
    with closing(template.open(settings, clock)) as service:
        world = World.of(service)
        record_old(world, 600)
        service.folder.fold()
        clock.advance(days=2)
        service.folder.fold()
        service.folder.fold()
        assert not (settings.audit_log_dir / bundle_path(0)).exists()
        assert 0 < len(entries(world, operation="old", limit=1000)) < 600
        wrong = check(Index(settings.audit_log_dir, settings.audit_index), 0)
        assert wrong is None
