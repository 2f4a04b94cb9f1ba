"""What a reviewer broke in the doors of the dialects and in what is remembered, each as the attack that showed it."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World, b64, kind_of
from helpers.vault_client import Vault
from helpers.wsgi import answer_of, signed
from kms.api.transit.routes import ROUTES, Route
from kms.audit.spool import Spool
from kms.errors import Unavailable
from kms.keys.model import Key, KeyVersion


@pytest.fixture
def alice(world: World) -> Api:
    made = world.user("alice")
    assert made.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    return made


def grant(owner: Api, to: str, permission: str, pattern: str = "*") -> str:
    body = {"subject": f"client:{to}", "permission": permission, "key_pattern": pattern}
    return str(owner.post("/api/v1/grants", body).json["grant_id"])


def token(api: Api) -> str:
    return api.headers["Authorization"].removeprefix("Bearer ")


def transit(world: World, api: Api, method: str, path: str, body: bytes = b"", **environ: Any) -> tuple[int, bytes]:
    given = {"REQUEST_METHOD": method, "PATH_INFO": f"/v1/{path}", "HTTP_X_VAULT_TOKEN": token(api), **environ}
    return answer_of(world, given, body)


class Stalled(io.RawIOBase):
    """A body that does not come until it is let go."""

    def __init__(self, body: bytes) -> None:
        self.body, self.waiting, self.go = body, threading.Event(), threading.Event()

    def read(self, size: int = -1) -> bytes:
        self.waiting.set()
        assert self.go.wait(30)
        body, self.body = self.body, b""
        return body


def test_an_old_view_of_a_key_is_remembered_for_nobody(
    world: World, alice: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    mallory = world.user("mallory")
    grant(alice, "mallory", "keys:encrypt")
    begun, go = threading.Event(), threading.Event()
    generate = world.service.key_pool.generate

    def slow(kind: Any) -> bytes:
        begun.set()
        assert go.wait(30)
        return generate(kind)

    monkeypatch.setattr(world.service.key_pool, "generate", slow)
    answers: list[Any] = []
    body = {"type": "ed25519"}
    attack = threading.Thread(target=lambda: answers.append(mallory.post("/api/v1/keys/k/data-key-pair", body)))
    attack.start()
    assert begun.wait(30)
    assert alice.delete("/api/v1/keys/k").status_code == 200
    go.set()
    attack.join()
    assert kind_of(answers[0]) == "key-state"
    for _ in range(3):
        assert kind_of(mallory.post("/api/v1/keys/k/encrypt", {"plaintext": ""})) == "key-state"


@pytest.mark.parametrize("door", ["native", "transit", "aws"])
@pytest.mark.parametrize("loss", ["grant", "client"])
def test_a_body_that_comes_late_does_not_bring_back_what_was_taken_away(
    world: World, alice: Api, clock: SteeredClock, door: str, loss: str
) -> None:
    assert alice.post("/api/v1/keys", {"key_id": "gcm", "type": "aes-256-gcm"}).status_code == 201
    mallory = world.user("mallory")
    given = grant(alice, "mallory", "keys:encrypt")
    body = b'{"plaintext": "AAAA"}' if door != "aws" else b'{"KeyId": "k", "Plaintext": "AAAA"}'
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json"}
    if door == "native":
        environ |= {"PATH_INFO": "/api/v1/keys/k/encrypt", "HTTP_AUTHORIZATION": mallory.headers["Authorization"]}
    elif door == "transit":
        environ |= {"PATH_INFO": "/v1/transit/encrypt/gcm", "HTTP_X_VAULT_TOKEN": token(mallory)}
    else:
        environ = signed(mallory.post("/api/v1/access-keys", {}).json, clock, "Encrypt", body)
    assert answer_of(world, environ, body)[0] == 200
    stalled = Stalled(body)
    late: list[tuple[int, bytes]] = []
    request = threading.Thread(target=lambda: late.append(answer_of(world, {**environ, "wsgi.input": stalled}, body)))
    request.start()
    assert stalled.waiting.wait(30)
    if loss == "grant":
        assert alice.delete(f"/api/v1/grants/{given}").status_code == 200
    else:
        assert world.admin.post("/api/v1/clients/mallory/disable").status_code == 200
    stalled.go.set()
    request.join()
    assert late[0][0] in (400, 401, 403, 404), late


def test_many_access_keys_hold_no_more_threads_than_one(world: World, alice: Api, clock: SteeredClock) -> None:
    body, held = b"{}", []
    for _ in range(4):
        access = alice.post("/api/v1/access-keys", {}).json
        for _ in range(2):
            stalled = Stalled(body)
            environ = {**signed(access, clock, "ListKeys", body), "wsgi.input": stalled}
            thread = threading.Thread(target=answer_of, args=(world, environ, body))
            thread.start()
            held.append((stalled, thread))
    time.sleep(0.5)
    waiting = [stalled for stalled, _ in held if stalled.waiting.is_set()]
    assert 1 <= len(waiting) <= world.service.settings.threads // 4
    for stalled, thread in held:
        stalled.go.set()
        thread.join()


def test_nobody_s_alias_takes_the_place_of_another_s(world: World, alice: Api, clock: SteeredClock) -> None:
    mallory = world.user("mallory")
    assert mallory.post("/api/v1/keys", {"key_id": "evil"}).status_code == 201
    assert alice.put("/api/v1/aliases/prod", {"key_id": "k"}).status_code == 200
    body = b'{"AliasName": "alias/prod", "TargetKeyId": "evil"}'
    access = mallory.post("/api/v1/access-keys", {}).json
    status, content = answer_of(world, signed(access, clock, "CreateAlias", body), body)
    assert (status, b"AlreadyExists" in content) == (400, True)
    status, content = answer_of(world, signed(access, clock, "UpdateAlias", body), body)
    assert (status, b"NotFound" in content) == (400, True)
    free = b'{"AliasName": "alias/free", "TargetKeyId": "evil"}'
    assert answer_of(world, signed(access, clock, "CreateAlias", free), free)[0] == 200
    assert kind_of(alice.put("/api/v1/aliases/free", {"key_id": "k"})) == "already-exists"
    for name in (b"us-east-1:alias/free", b"prod"):
        wrong = b'{"KeyId": "%s"}' % name
        assert answer_of(world, signed(access, clock, "DescribeKey", wrong), wrong)[0] == 400


def test_a_name_that_is_taken_is_not_given_as_one_s_own(world: World, alice: Api) -> None:
    mallory = world.user("mallory")
    assert mallory.post("/api/v1/keys", {"key_id": "orders"}).status_code == 201
    grant(mallory, "alice", "keys:read")
    grant(mallory, "alice", "keys:encrypt")
    assert transit(world, alice, "POST", "transit/keys/orders", b"{}")[0] == 400
    assert transit(world, alice, "POST", "transit/keys/mine", b"{}")[0] == 200
    assert transit(world, alice, "POST", "transit/keys/mine", b"{}")[0] == 200


def test_capabilities_tell_no_key_of_another_s_from_none(world: World, alice: Api) -> None:
    mallory = world.user("mallory")
    asked = b'{"paths": ["transit/keys/k", "transit/keys/free", "transit/encrypt/k", "transit/encrypt/free"]}'
    status, content = transit(world, mallory, "POST", "sys/capabilities-self", asked)
    assert status == 200
    assert content.count(b'["create"]') >= 2
    assert b"update" not in content
    many = b'{"paths": [%s]}' % b",".join(b'"transit/keys/%d"' % number for number in range(51))
    assert transit(world, mallory, "POST", "sys/capabilities-self", many)[0] == 400


def test_a_setting_leaves_the_others_alone(world: World, alice: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert transit(world, alice, "POST", "transit/keys/t", b"{}")[0] == 200
    for _ in range(3):
        assert transit(world, alice, "POST", "transit/keys/t/rotate")[0] == 200
    assert alice.patch("/api/v1/keys/t", {"min_protect_version": 4, "labels": {"a": "b"}}).status_code == 200
    assert transit(world, alice, "POST", "transit/keys/t/config", b'{"deletion_allowed": true}')[0] == 200
    shown = alice.get("/api/v1/keys/t").json
    assert (shown["min_protect_version"], shown["labels"]["a"]) == (4, "b")


@pytest.mark.parametrize("length", [10**3, 10**5])
def test_nothing_that_a_stranger_sends_is_remembered_whole(world: World, length: int) -> None:
    from kms.api import fast_path, headers

    before = [cache.cache_info().currsize for cache in (fast_path._length, headers._remembered)]
    for number in range(5):
        answer_of(world, {"REQUEST_METHOD": "GET" * length, "PATH_INFO": f"/v1/{number}"}, b"")
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "CONTENT_LENGTH": "0" * length + str(number)}
        answer_of(world, {**environ, "HTTP_HOST": "h" * length + str(number)}, b"")
    assert [cache.cache_info().currsize for cache in (fast_path._length, headers._remembered)] == before


def test_health_needs_no_body_and_no_thread_of_others(world: World) -> None:
    stalled = Stalled(b"")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/sys/health", "wsgi.input": stalled, "CONTENT_LENGTH": "9"}
    assert answer_of(world, environ, b"")[0] == 200
    assert not stalled.waiting.is_set()


def test_an_unreadable_line_does_not_hide_the_others(world: World, alice: Api) -> None:
    alice.post("/api/v1/keys/k/encrypt", {"plaintext": b64(b"x")})
    (world.service.settings.spool_dir / "spool-00000000000000000001-1.jsonl").write_bytes(
        b'{"v":1,\0\0\0"x"}\n\xff\n'
    )
    entries = world.admin.get("/api/v1/audit/entries?limit=1000")
    assert entries.status_code == 200
    assert "encrypt" in {each["operation"] for each in entries.json["items"]}


def test_a_closed_spool_writes_into_no_other_file(tmp_path: Any) -> None:
    spool = Spool(tmp_path / "audit", fsync=False)
    spool.append(b"{}", bytes(32))
    spool.close()
    other = (tmp_path / "other").open("w+b")
    with pytest.raises(Unavailable):
        spool.append(b"{}", bytes(32))
    assert other.seek(0, 2) == 0


def test_wrapped_answers_and_chosen_versions_are_refused(world: World, alice: Api) -> None:
    assert transit(world, alice, "POST", "transit/keys/t", b"{}")[0] == 200
    calls: list[Callable[[], tuple[int, bytes]]] = [
        lambda: transit(world, alice, "POST", "transit/datakey/plaintext/t", b"{}", HTTP_X_VAULT_WRAP_TTL="60"),
        lambda: transit(world, alice, "POST", "transit/encrypt/t", b'{"plaintext": "", "key_version": 99}'),
        lambda: transit(world, alice, "POST", "transit/restore/t", b'{"backup": "AAAA"}'),
    ]
    for call in calls:
        status, content = call()
        assert (status, b"plaintext" in content) == (400, False)


KINDS = {"sign": "ed25519", "verify": "ed25519", "csr": "ed25519", "import_version": "ed25519"}
"""Of what type a key must be for a route; others have one for encryption."""

WORKS_FOR_ITS_OWNER = {
    "encrypt", "decrypt", "rewrap", "datakey", "sign", "verify", "hmac", "csr", "read", "delete", "soft_delete",
    "configure", "rotate", "backup", "byok_export", "create",
}  # fmt: skip


def key_routes() -> list[Route]:
    return [
        route for route in ROUTES if route.is_of_mount and {"name", "destination"} & set(route.pattern.groupindex)
    ]


def asked_of(vault: Vault, route: Route, parts: dict[str, str], body: dict[str, Any]) -> int:
    """The status of a request by that route, whose parts are these."""
    path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", lambda found: parts[found[1]], route.pattern.pattern)
    path = path.replace("~", "transit").replace("/?", "")
    method = route.methods[0]
    return vault.send(method, path, b"" if method == "GET" else json.dumps(body).encode()).status


def test_no_route_of_the_vault_dialect_reaches_another_s_key(unlimited_world: World) -> None:
    """Each route is asked for a key of another, with what makes it work for its owner."""
    world = unlimited_world
    users = [world.user(name) for name in ("routes-alice", "routes-mallory")]
    alice, mallory = (Vault.of(world, each) for each in users)
    mallory.make("hers-not", "rsa-2048")
    scene: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
    for number, route in enumerate(key_routes()):
        function = route.function.__name__
        name = alice.make(
            f"r{number}", KINDS.get(function, "aes256-gcm96"), exportable=True, allow_plaintext_backup=True
        )
        alice.write(f"transit/keys/{name}/config", deletion_allowed=True)
        text = {"plaintext": b64(b"x"), "input": b64(b"x"), "deletion_allowed": True, "min_available_version": 1}
        public = alice.read(f"transit/keys/{name}").data["keys"]["1"]
        more = {"public_key": public["public_key"]} if isinstance(public, dict) else {}
        sealed = alice.write(f"transit/encrypt/{name}", **text)
        more |= {"ciphertext": sealed.data["ciphertext"]} if sealed.status == 200 else {}
        signature = alice.write(f"transit/sign/{name}", **text) if function in KINDS else sealed
        more |= {"signature": signature.data["signature"]} if function == "verify" else {}
        more |= {"backup": alice.read(f"transit/backup/{name}").data["backup"]} if "backup" in route.shown else {}
        parts = {
            "name": name,
            "destination": "hers-not",
            "kind": "plaintext",
            "hash_name": "sha2-256",
            "version": "1",
        }
        parts["kind"] = "encryption-key" if function == "export" else "plaintext"
        scene[name] = (parts, {**text, **more, "type": KINDS.get(function, "aes256-gcm96")})
    before = everything_of(world, "routes-alice")
    for route, (parts, body) in zip(key_routes(), scene.values(), strict=True):
        assert 400 <= asked_of(mallory, route, parts, body) < 500, route.shown
    turned = {"name": "hers-not", "version": "1"}  # a key of one's own, to be given out under another's
    for route in key_routes():
        if "destination" in route.pattern.groupindex:
            assert 400 <= asked_of(mallory, route, {**turned, "destination": "r0"}, {}) < 500, route.shown
    assert everything_of(world, "routes-alice") == before
    alice.make("hers-not-either", "rsa-2048")
    works = set()
    for route, (parts, body) in zip(key_routes(), scene.values(), strict=True):
        if asked_of(alice, route, {**parts, "destination": "hers-not-either"}, body) < 300:
            works.add(route.function.__name__.rstrip("_"))
    assert works >= WORKS_FOR_ITS_OWNER


def everything_of(world: World, owner: str) -> list[object]:
    with world.service.vault.read() as snapshot:
        keys = snapshot.matching(Key, owner=owner)
        uids = {each.uid for each in keys}
        return [keys, [each for each in snapshot.select(KeyVersion) if each.key_uid in uids]]
