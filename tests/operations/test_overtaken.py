"""What is taken away while a request is on its way is gone for it too, wherever it was when that was answered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pyotp
import pytest

from helpers.authenticator import Authenticator
from helpers.people import Person
from helpers.running import wait_until
from helpers.support import Api, SteeredClock, World, basic, kind_of
from helpers.tokens import TOKEN_EXCHANGE
from kms.access import clients, sessions
from kms.access.access_keys import AccessKey
from kms.access.model import ClientStatus, Token
from kms.access.passkeys import Passkey
from kms.key_cache import KeyCache
from kms.keys.model import Key, KeyVersion
from kms.revocation.in_force import RevocationsInForce
from kms.vault.change import Change
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


def test_a_version_that_is_revoked_again_as_it_is_read_again_is_revoked_and_not_forged(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.post("/api/v1/keys", {"key_id": "k"})
    sealed = alice.post("/api/v1/keys/k/encrypt", {"plaintext": ""}).json["ciphertext"]
    world.service.memory._forget_everything()
    allow, reasons, here = RevocationsInForce.allow, ["superseded", "keyCompromise"], threading.get_ident()

    def list_moves_on(self: RevocationsInForce, version: KeyVersion) -> bool:
        if threading.get_ident() == here and reasons:
            reason = reasons.pop(0)
            assert elsewhere(lambda: alice.post("/api/v1/keys/k/revoke", {"reason": reason})).status_code == 200
            world.service.memory.refresh()
        return allow(self, version)

    monkeypatch.setattr(RevocationsInForce, "allow", list_moves_on)
    assert kind_of(alice.post("/api/v1/keys/k/decrypt", {"ciphertext": sealed})) == "key-revoked"
    assert not reasons


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


def in_one_commit_before(
    monkeypatch: pytest.MonkeyPatch, vault: Vault, turn: int, act: Callable[[Change], None]
) -> None:
    """Have `act` done in the same commit as the change that asks for its turn as the `turn`th, and before it."""
    original, asked = Vault._join_group, itertools.count(1)
    has_turn = threading.Event()

    def earlier() -> None:
        with vault.change() as change:
            has_turn.set()
            wait_until(lambda: vault._turns._waiting, every=0)  # a change that is old is joined by none
            act(change)

    def overtaken(self: Vault) -> Any:
        if next(asked) == turn:
            threading.Thread(target=earlier).start()
            assert has_turn.wait(30)
        return original(self)

    monkeypatch.setattr(Vault, "_join_group", overtaken)


@pytest.mark.parametrize("what", ["child", "access key", "key", "confirmed", "passkey"])
@pytest.mark.parametrize("end", ["sessions", "client"])
def test_who_ends_in_the_same_commit_makes_nothing_after_that(
    world: World, monkeypatch: pytest.MonkeyPatch, clock: SteeredClock, what: str, end: str
) -> None:
    """Else a session that was ended would leave one behind that nobody has ended."""
    amy = Person.of(world, "amy")
    options = amy.creation()
    clock.advance(seconds=30)
    exchange = {"grant_type": TOKEN_EXCHANGE}
    act: Callable[[], Any] = {
        "child": lambda: world.http.post("/auth/token", data=exchange, headers=amy.api.headers),
        "access key": lambda: amy.api.post("/api/v1/access-keys", {}),
        "key": lambda: amy.api.post("/api/v1/keys", {"type": "aes-256-gcm"}),
        "confirmed": lambda: amy.api.post("/auth/second-factor", {"code": amy.code}),
        "passkey": lambda: amy.add(Authenticator(), options),
    }[what]

    def ending(change: Change) -> None:
        if end == "sessions":
            sessions.end_all(change, "amy")
        else:
            clients.set_status(change, clients.get(change, "amy"), ClientStatus.DELETED)

    # What confirms a session uses the code up in a change of its own, before the one of the session.
    in_one_commit_before(monkeypatch, world.service.vault, 2 if what == "confirmed" else 1, ending)
    answer = act()
    assert (answer.status_code, kind_of(answer)) == (401, "authentication-failed"), answer.text
    with world.service.vault.read() as snapshot:
        for cls in (Token, AccessKey, Passkey):
            assert snapshot.matching(cls, client_id="amy") == []
        assert snapshot.matching(Key, owner="amy") == []
