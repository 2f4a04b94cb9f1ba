"""Keys are listed in each of their regions, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.support import LEASE, Api, SteeredClock, World, kind_of
from kms.config import Settings
from kms.operations import Service

KEY = "mrk-00112233445566778899aabbccddeeff"


@pytest.fixture
def alice(tmp_path: Path, database_url: str, clock: SteeredClock) -> Iterator[Api]:
    opened = Service.open(Settings(data_dir=tmp_path / "data", database_url=database_url, lease=LEASE), clock)
    yield World.of(opened).user("alice")
    opened.close()


def listed(api: Api, region: str) -> list[str]:
    return [each["key_id"] for each in api.get(f"/api/v1/keys?region={region}").json["items"]]


def test_a_key_is_listed_where_it_is(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": KEY})
    alice.post("/api/v1/keys", {"key_id": "other", "region": "eu-central-1"})
    for region in ("eu-central-1", "us-east-11"):
        assert alice.post(f"/api/v1/keys/{KEY}/regions", {"add": region}).status_code == 200
    assert listed(alice, "us-east-1") == listed(alice, "us-east-11") == [KEY]
    assert listed(alice, "eu-central-1") == [KEY, "other"]
    assert listed(alice, "eu-central-11") == listed(alice, "us-east-2") == []
    moved = alice.post(f"/api/v1/keys/{KEY}/regions", {"primary": "eu-central-1", "remove": "us-east-1"}).json
    assert (moved["region"], moved["replicas"]) == ("eu-central-1", ["us-east-11"])
    assert listed(alice, "us-east-1") == []


def test_a_replica_has_a_description_and_labels_of_its_own(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": KEY, "description": "home", "labels": {"a": "1"}})
    other = {"add": "eu-central-1", "description": "abroad", "add_labels": {"b": "2"}}
    shown = alice.post(f"/api/v1/keys/{KEY}/regions", other).json
    assert (shown["description"], shown["labels"]) == ("home", {"a": "1"})
    assert shown["replica_descriptions"] == {"eu-central-1": "abroad"}
    assert shown["replica_labels"] == {"eu-central-1": {"b": "2"}}
    moved = alice.post(f"/api/v1/keys/{KEY}/regions", {"primary": "eu-central-1"}).json
    assert (moved["description"], moved["labels"]) == ("abroad", {"b": "2"})
    assert moved["replica_descriptions"] == {"us-east-1": "home"}
    changed = {"describe": "us-east-1", "description": "", "add_labels": {"c": "3"}, "remove_labels": ["a"]}
    shown = alice.post(f"/api/v1/keys/{KEY}/regions", changed).json
    assert (shown["replica_descriptions"], shown["replica_labels"]) == ({}, {"us-east-1": {"c": "3"}})
    many = {"describe": "us-east-1", "add_labels": {str(number): "" for number in range(64)}}
    assert kind_of(alice.post(f"/api/v1/keys/{KEY}/regions", many)) == "validation-failed"
    gone = alice.post(f"/api/v1/keys/{KEY}/regions", {"remove": "us-east-1"}).json
    assert gone["replica_labels"] == {}


def test_regions_that_a_key_cannot_have(alice: Api) -> None:
    alice.post("/api/v1/keys", {"key_id": KEY})
    alice.post("/api/v1/keys", {"key_id": "other"})
    for kind, key_id, body in (
        ("conflict", "other", {"add": "eu-central-1"}),
        ("already-exists", KEY, {"add": "us-east-1"}),
        ("not-found", KEY, {"primary": "eu-central-1"}),
        ("not-found", KEY, {"remove": "us-east-1"}),
        ("validation-failed", KEY, {"add": "nowhere"}),
        ("validation-failed", KEY, {"add": ""}),
        ("not-found", KEY, {"describe": "eu-central-1", "description": "x"}),
        ("not-found", KEY, {"describe": "us-east-1", "description": "x"}),
        ("validation-failed", KEY, {"description": "x"}),
        ("validation-failed", KEY, {"add_labels": {"a": "b"}}),
        ("validation-failed", KEY, {"add": "eu-central-1", "describe": "eu-central-1"}),
    ):
        assert kind_of(alice.post(f"/api/v1/keys/{key_id}/regions", body)) == kind, body
