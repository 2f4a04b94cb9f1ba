"""What is taken away while a request is on its way is gone for it too, wherever it was when that was answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pyotp
import pytest

from helpers.support import Api, World, basic, kind_of
from kms.access import clients
from kms.access.model import ClientStatus
from kms.key_cache import KeyCache
from kms.vault.store import Vault


@pytest.fixture
def alice(world: World) -> Api:
    return world.user("alice")


def elsewhere(act: Callable[[], Any]) -> Any:
    """What another request does meanwhile, until it has its answer."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(act()))
    thread.start()
    thread.join(timeout=30)
    return results[0]


def once_before(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, act: Callable[[], Any]) -> None:
    """Have `act` done elsewhere as that method is called next, and only then."""
    original, armed = getattr(owner, name), [act]

    def overtaken(self: Any, *given: Any, **named: Any) -> Any:
        if armed:
            elsewhere(armed.pop())
        return original(self, *given, **named)

    monkeypatch.setattr(owner, name, overtaken)


@pytest.mark.parametrize("change", ["revoke", "suspend"])
@pytest.mark.parametrize("between", ["_loaded", "_usable"])
def test_a_version_read_before_a_change_is_remembered_for_nobody(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch, change: str, between: str
) -> None:
    alice.post("/api/v1/keys", {"key_id": "k"})
    once_before(monkeypatch, KeyCache, between, lambda: alice.post(f"/api/v1/keys/k/{change}", {}))
    alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""})  # it began before the change
    for _ in range(3):
        assert alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""}).status_code in (403, 409)
        world.service.memory.refresh()


def test_an_older_version_read_before_a_change_is_remembered_for_nobody(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("/api/v1/keys", {"key_id": "k"})
    sealed = alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""}).json["ciphertext"]
    alice.post("/api/v1/keys/k/rotate")
    once_before(monkeypatch, KeyCache, "_load", lambda: alice.post("/api/v1/keys/k/revoke", {}))
    alice.post("/api/v1/keys/k/decrypt", {"ciphertext": sealed})
    assert kind_of(alice.post("/api/v1/keys/k/decrypt", {"ciphertext": sealed})) == "key-revoked"


def test_a_session_that_ended_while_a_change_waited_makes_no_access_key(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rotate_secret() -> None:
        with world.service.vault.change() as change:
            clients.rotate_secret(change, clients.get(change, "alice"), None)

    once_before(monkeypatch, Vault, "_join_group", rotate_secret)
    assert alice.post("/api/v1/access-keys", {"expires_in": 3600}).status_code == 401


def test_a_client_that_was_disabled_while_a_change_waited_makes_no_key(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disable() -> None:
        with world.service.vault.change() as change:
            clients.set_status(change, clients.get(change, "alice"), ClientStatus.DISABLED)

    once_before(monkeypatch, Vault, "_join_group", disable)
    assert alice.post("/api/v1/keys", {"items": [{"key_id": "k"}]}).status_code == 401
    assert world.admin.get("/api/v1/keys").json["items"] == []


def test_a_grant_that_was_deleted_while_a_change_waited_changes_nothing(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = world.user("bob")
    alice.post("/api/v1/keys", {"key_id": "k"})
    given = {"subject": "client:bob", "key_pattern": "k", "permission": "keys:rotate"}
    grant_id = alice.post("/api/v1/grants", given).json["grant_id"]
    assert bob.post("/api/v1/keys/k/rotate", {}).status_code == 200
    once_before(monkeypatch, Vault, "_join_group", lambda: alice.delete(f"/api/v1/grants/{grant_id}"))
    assert bob.post("/api/v1/keys/k/rotate", {}).status_code == 404
    assert alice.get("/api/v1/keys/k").json["latest_version"] == 2


def test_a_secret_that_was_changed_while_its_login_was_under_way_gives_no_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.enrol("carol")

    def rotate_secret() -> None:
        with world.service.vault.change() as change:
            clients.rotate_secret(change, clients.get(change, "carol"), None)

    code = pyotp.TOTP(made.totp_secret).at(world.service.clock())
    once_before(monkeypatch, type(world.service.authenticator), "revalidate", rotate_secret)
    headers = basic("carol", made.client_secret, **{"X-TOTP": code})
    assert world.http.post("/auth/token", headers=headers).status_code == 401
