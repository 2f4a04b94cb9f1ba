"""`kms inventory` and `kms key blast-radius`: one valid document of many pages, and lists for people and programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from helpers.support import World
from kms.cli import inventory, remote, show

Kms = Callable[..., list[Any]]


@pytest.fixture(scope="module", autouse=True)
def keys(shared_world: World, served: tuple[str, str]) -> None:
    """Seven keys of alice, one of which bob may use, and two of bob."""
    alice, bob = shared_world.login("alice"), shared_world.login("bob")
    for number in range(5):
        alice.post("/api/v1/keys", {"key_id": f"a{number}", "type": "aes-256-gcm"})
    alice.post("/api/v1/keys", {"key_id": "signer", "type": "ed25519"})
    alice.post("/api/v1/keys", {"key_id": "short", "cryptoperiod": "P10D"})
    for number in range(2):
        bob.post("/api/v1/keys", {"key_id": f"b{number}"})
    given = {"subject": "client:bob", "permission": "keys:sign", "key_pattern": "signer"}
    assert alice.post("/api/v1/grants", given).status_code == 201


@pytest.mark.parametrize("page", [1, 3, 500])
def test_one_document_of_all_pages(kms: Kms, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(inventory, "_PAGE", page)
    (bom,) = kms("inventory", "--format", "cyclonedx", by="admin")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None
    refs = [each["bom-ref"] for each in bom["components"]]
    assert len(refs) == len(set(refs))
    held = [ref for ref in refs if ref.startswith("key/")]
    assert held == [f"key/{name}/1" for name in ("a0", "a1", "a2", "a3", "a4", "b0", "b1", "short", "signer")]
    depends_on = {each["ref"]: set(each.get("dependsOn", ())) for each in bom["dependencies"]}
    assert depends_on.keys() == {"kms", *refs}
    assert depends_on["kms"] == {ref for ref in refs if ref.startswith("algorithm/")}


def test_a_file_is_there_once_it_is_whole(kms: Kms, shared_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kms("inventory", "--format", "cyclonedx", "-o", "cbom.json", by="alice") == [""]
    whole = Path("cbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(whole) is None
    assert Path("cbom.json").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(inventory, "_PAGE", 2)
    ask = remote.call

    def ended_meanwhile(*segments: str, **query: Any) -> Any:
        if query["cursor"] is not None:
            shared_world.admin.delete("/api/v1/clients/alice/sessions")
        return ask(*segments, **query)

    monkeypatch.setattr(remote, "call", ended_meanwhile)
    assert "session is over" in kms("inventory", "--format", "cyclonedx", "-o", "cbom.json", by="alice", code=3)[0]
    assert Path("cbom.json").read_text() == whole
    assert [each.name for each in Path().iterdir() if each.is_file()] == ["cbom.json"]
    assert "--output is for" in kms("inventory", "-o", "list", by="alice", code=2)[0]


def test_lists_for_programs(kms: Kms) -> None:
    assert [each["key_id"] for each in kms("inventory", by="bob")] == ["b0", "b1"]
    (weak,) = kms("inventory", "--not-post-quantum-safe", by="alice")
    assert (weak["key_id"], weak["nist_category"]) == ("signer", 0)
    assert [each["subject"] for each in weak["users"]] == ["client:bob"]
    (due,) = kms("inventory", "--due", by="alice")
    assert (due["key_id"], due["due"][0]["period"]) == ("short", "originator-usage")
    assert kms("inventory", "--due", "--within", "P1D", by="alice", code=0) == [""]
    (bom,) = kms("inventory", "--due", "--format", "cyclonedx", by="alice")
    assert [each["name"] for each in bom["components"] if each["bom-ref"].startswith("key/")] == ["short"]
    assert "within" in kms("inventory", "--within", "P9999D", by="alice", code=1)[0]


def test_tables_for_people(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "as_json", lambda: False)
    monkeypatch.setenv("COLUMNS", "400")
    (due,) = kms("inventory", "--due", by="alice")
    assert [line.split()[:2] for line in due.splitlines()[1:]] == [["short", "1"]]
    assert "Rotate the key before" in due
    (weak,) = kms("inventory", "--not-post-quantum-safe", by="alice")
    assert "client:bob" in weak


def test_the_blast_radius_of_a_key(kms: Kms, shared_world: World) -> None:
    bob = shared_world.login("bob")
    assert bob.post("/api/v1/keys/signer/sign", {"message": ""}).status_code == 200
    (shown,) = kms("key", "blast-radius", "signer", "--version", "1", by="admin")
    (use,) = shown["used_by"]
    assert (use["client_id"], use["version"], use["operations"]) == ("bob", 1, {"sign": 1})
    assert "audit:read" in kms("key", "blast-radius", "signer", by="alice", code=4)[0]
