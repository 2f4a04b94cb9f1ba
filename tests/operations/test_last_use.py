"""When a key was used last: known at once where it was used, everywhere soon, and not after the key is gone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, b64, kind_of
from kms.access.policy import USES
from kms.api.aws import specs
from kms.config import Settings
from kms.errors import Unavailable
from kms.operations import OPERATIONS, Service
from kms.operations.keys.state_changes import remove
from kms.vault.checking import wrong_tables

KEY = "/api/v1/keys/k"


@pytest.fixture
def alice(world: World) -> Api:
    api = world.user("alice")
    api.post("/api/v1/keys", {"key_id": "k"})
    return api


def last(api: Api) -> dict[str, Any]:
    return dict(api.get(f"{KEY}/last-use").json)


def test_every_use_counts_and_nothing_else(alice: Api, clock: SteeredClock) -> None:
    shown = last(alice)
    assert shown == {"key_id": "k", "tracked_since": shown["tracked_since"]}
    alice.post(f"{KEY}/encrypt", {"plaintext": 5})
    alice.post(f"{KEY}/decrypt", {"ciphertext": b64(b"x" * 80)})
    alice.post(f"{KEY}/decrypt", {"items": [{"ciphertext": b64(b"x" * 80)}]})
    alice.post(f"{KEY}/rotate")
    assert "used_at" not in last(alice)
    clock.advance(seconds=1)
    answer = alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    shown = last(alice)
    assert (shown["operation"], shown["request_id"]) == ("encrypt", answer.headers["X-Request-Id"])
    assert datetime.fromisoformat(shown["used_at"]) == clock()
    clock.advance(seconds=1)
    sealed = answer.json["ciphertext"]
    alice.post(f"{KEY}/decrypt", {"items": [{"ciphertext": sealed}, {"ciphertext": b64(b"x" * 80)}]})
    assert last(alice)["operation"] == "decrypt"


def test_it_is_written_every_few_minutes_and_at_the_end(alice: Api, world: World, clock: SteeredClock) -> None:
    uses = world.service.last_uses
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    used_at = clock()
    uses.write_if_due()
    assert uses.seen("k")
    clock.advance(minutes=5)
    uses.write_if_due()
    assert uses.seen("k") is None
    assert last(alice)["used_at"] == used_at.isoformat().replace("+00:00", "Z")


def test_what_cannot_be_written_is_kept(alice: Api, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    uses = world.service.last_uses

    def away() -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(world.service.vault, "change", away)
        with pytest.raises(Unavailable):
            uses.write()
    assert uses.seen("k")
    uses.write()
    assert last(alice)["operation"] == "encrypt"


def test_the_later_of_two_workers_counts(alice: Api, world: World, settings: Settings, clock: SteeredClock) -> None:
    other = Service.open(settings, clock)
    try:
        other.last_uses.note("k", (clock(), "sign", "there"))
        clock.advance(seconds=1)
        alice.post(f"{KEY}/encrypt", {"plaintext": ""})
        world.service.last_uses.write()
        other.last_uses.write()
        assert last(alice)["operation"] == "encrypt"
    finally:
        other.close()


def test_a_new_key_of_an_old_name_was_not_used(alice: Api, world: World, clock: SteeredClock) -> None:
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    world.service.last_uses.write()
    alice.post(f"{KEY}/encrypt", {"plaintext": ""})
    with world.service.vault.change() as change:
        key = change.key_by_id("k")
        assert key is not None
        remove(change, key)
    clock.advance(seconds=1)
    alice.post("/api/v1/keys", {"key_id": "k"})
    assert "used_at" not in last(alice)
    world.service.last_uses.write()
    assert "used_at" not in last(alice)


def test_it_is_tracked_since_the_key_is_there(alice: Api, clock: SteeredClock) -> None:
    created = alice.get(KEY).json["created_at"]
    clock.advance(minutes=1)
    assert last(alice)["tracked_since"] == created
    assert clock() - datetime.fromisoformat(created) == timedelta(minutes=1)


def test_nobody_else_sees_it(world: World, alice: Api) -> None:
    assert kind_of(world.user("bob").get(f"{KEY}/last-use")) == "not-found"


def test_aws_has_a_word_for_every_use() -> None:
    assert set(specs.LAST_USES) == {each.name for each in OPERATIONS.values() if each.permission in USES}


def test_much_is_written_a_part_at_a_time(
    alice: Api, world: World, clock: SteeredClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kms.last_uses._ROWS_AT_ONCE", 2)
    uses, names = world.service.last_uses, [f"k{number}" for number in range(5)]
    for round_ in range(2):  # rows that are new, then rows that are there
        for name in names:
            alice.post("/api/v1/keys", {"key_id": name})
            alice.post(f"/api/v1/keys/{name}/encrypt", {"plaintext": ""})
        clock.advance(minutes=5)
        left = []
        for _ in range(3):
            uses.write_if_due()
            left.append(sum(uses.seen(name) is not None for name in names))
        assert left == [3, 1, 0]
        shown = [alice.get(f"/api/v1/keys/{name}/last-use").json for name in names]
        assert [each["operation"] for each in shown] == ["encrypt"] * 5
        assert wrong_tables(world.service.vault) == [], round_
    monkeypatch.setattr("kms.last_uses._MOST_REMEMBERED", 4)
    for name in names:
        alice.post(f"/api/v1/keys/{name}/encrypt", {"plaintext": ""})
    uses.write_if_due()
    assert not any(uses.seen(name) for name in names)
