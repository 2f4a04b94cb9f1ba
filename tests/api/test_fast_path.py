"""The two doors of a hot operation give the same answers, byte for byte, and leave the same entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from helpers.support import Api, SteeredClock, Template, World, b64
from helpers.uses import OPERATION_OF
from helpers.wsgi import called, environ_of
from kms.api.fast_path import FastPathMiddleware
from kms.audit.spool_reading import unchecked
from kms.config import Settings
from kms.operations import OPERATIONS, Service

JSON = "application/json"


@dataclass
class Doors:
    """A service with both of its doors, and a client of it."""

    service: Service
    dispatch: FastPathMiddleware
    world: World
    alice: Api

    def ask(self, door: Any, path: str, body: bytes, **environ: Any) -> tuple[str, dict[str, str], bytes]:
        given = {"CONTENT_TYPE": JSON, "HTTP_AUTHORIZATION": self.alice.headers["Authorization"], **environ}
        given = {"REQUEST_METHOD": "POST", "PATH_INFO": path, **given}
        status, headers, answer = called(door, environ_of(body, **given))
        names = [name.lower() for name, _ in headers]
        assert len(names) == len(set(names))
        request_id = dict(headers)["X-Request-Id"]
        comparable = {name.lower(): value.replace(request_id, "ID") for name, value in headers}
        if "audit-leaf" in comparable:
            comparable["audit-leaf"] = "of an entry of its own"
        return status, comparable, answer.replace(request_id.encode(), b"ID")

    def both(self, path: str, body: Any, **environ: Any) -> tuple[str, dict[str, str], bytes]:
        """The one answer of both doors."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        behind = self.ask(self.dispatch.next_app, path, content, **environ)
        front = self.ask(self.dispatch, path, content, **environ)
        assert front == behind
        return front


def doors_of(world: World) -> Doors:
    dispatch = world.http.application.wsgi_app
    assert isinstance(dispatch, FastPathMiddleware)
    return Doors(world.service, dispatch, world, world.user("alice"))


def doors_with_keys(world: World) -> Doors:
    made = doors_of(world)
    for key_id, body in {
        "siv": {"type": "aes-256-siv"}, "mac": {"type": "hmac-sha256"}, "ed": {"type": "ed25519"},
        "old": {"type": "aes-256-siv"}, "rsa": {"type": "rsa-2048"},
    }.items():  # fmt: skip
        assert made.alice.post("/api/v1/keys", {"key_id": key_id, **body}).status_code == 201
    made.alice.post("/api/v1/keys/old/revoke")
    return made


@pytest.fixture(scope="module")
def doors(shared_world: World) -> Doors:
    """One for all tests here: hot operations change nothing that an answer shows."""
    return doors_with_keys(shared_world)


@pytest.fixture
def never_behind(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*_: Any) -> Any:
        raise AssertionError("the request was handed on")

    monkeypatch.setattr(doors.dispatch, "next_app", fail)
    yield


@pytest.mark.parametrize("operation", OPERATION_OF)
@pytest.mark.parametrize("key_id", ["siv", "mac", "ed", "old", "none", "rsa"])
def test_every_hot_operation_on_every_kind_of_key(doors: Doors, operation: str, key_id: str) -> None:
    path = f"/api/v1/keys/{key_id}/{operation}"
    random = operation in ("data-key", "data-key-pair", "encapsulate") or key_id == "rsa"
    for body in (OPERATION_OF[operation][1], {}, {"x": 1}, {"items": [OPERATION_OF[operation][1], {"x": 1}, 5]}):
        if not random:
            doors.both(path, body)
    for wrong in (
        b"",
        b" ",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"items": []}',
        b'{"items": 5}',
        b'{"items": [], "x": 1}',
    ):
        if wrong.strip() or not random:
            doors.both(path, wrong)


def test_answers_are_the_same(doors: Doors) -> None:
    message = {"plaintext": b64(b"text"), "associated_data": b64(b"context")}
    status, headers, body = doors.both("/api/v1/keys/siv/encrypt", message)
    assert status == "200 OK"
    assert headers["cache-control"] == "no-store"
    sealed = {"ciphertext": json.loads(body)["ciphertext"], "associated_data": b64(b"context")}
    for case in (
        sealed,
        {**sealed, "associated_data": ""},
        {"items": [sealed, {"ciphertext": ""}]},
        {"ciphertext": 5},
    ):
        doors.both("/api/v1/keys/siv/decrypt", case)
    signature = json.loads(doors.both("/api/v1/keys/ed/sign", {"message": ""})[2])["signature"]
    for case in (
        {"message": "", "signature": signature},
        {"message": "", "signature": ""},
        {"digest": "", "signature": ""},
    ):
        doors.both("/api/v1/keys/ed/verify", case)
    doors.both("/api/v1/hash", {"message": "", "algorithm": "SHA-512"})
    doors.both("/api/v1/hash", {"message": "", "algorithm": "MD5"})
    doors.both("/api/v1/random", {"length": 0})


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_AUTHORIZATION": "Bearer wrong"},
        {"HTTP_AUTHORIZATION": "Bearer "},
        {"HTTP_AUTHORIZATION": "bearer x"},
        {"HTTP_AUTHORIZATION": "Basic eDp5"},
        {"HTTP_AUTHORIZATION": None},
        {"HTTP_AUTHORIZATION": "Bearer " + "x" * 5000},
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": "application/json; charset=utf-8"},
        {"CONTENT_TYPE": None},
        {"CONTENT_LENGTH": "99"},
        {"CONTENT_LENGTH": None},
        {"CONTENT_LENGTH": "²"},
        {"CONTENT_LENGTH": "9" * 5000},
        {"CONTENT_LENGTH": "-1"},
        {"CONTENT_LENGTH": str(1 << 30)},
        {"REQUEST_METHOD": "GET"},
        {"REQUEST_METHOD": "PUT"},
        {"QUERY_STRING": "a=b"},
        {"HTTP_HOST": "kms.example.org"},
        {"HTTP_HOST": "[::1]:8443"},
        {"HTTP_HOST": "localhost.example.org"},
        {"REMOTE_ADDR": None},
        {"PATH_INFO": "/api/v1/keys/siv/encrypt/"},
        {"PATH_INFO": "/api/v1/keys//encrypt"},
        {"PATH_INFO": "/api/v1/keys/\u00c3\u00bc/encrypt"},
        {"PATH_INFO": "/api/v1/keys/siv\n/encrypt"},
        {"PATH_INFO": "/api/v1/keys/" + "x" * 200 + "/encrypt"},
    ],
    ids=str,
)
def test_unusual_requests(doors: Doors, environ: dict[str, Any]) -> None:
    given = {"PATH_INFO": "/api/v1/keys/siv/encrypt", **environ}
    path = given.pop("PATH_INFO")
    doors.both(path, {"plaintext": "AAAA"}, **given)


def test_the_plain_form_is_served_in_front(doors: Doors, never_behind: None) -> None:
    body = json.dumps({"plaintext": "AAAA"}).encode()
    assert doors.ask(doors.dispatch, "/api/v1/keys/siv/encrypt", body)[0] == "200 OK"
    assert doors.ask(doors.dispatch, "/api/v1/random", b"{}")[0] == "200 OK"
    for operation in OPERATIONS.values():
        if operation.hot and not operation.is_public:
            path = operation.path.replace("<key_id>", "none")
            assert doors.ask(doors.dispatch, path, b'{"x": 1}')[0].startswith("4")


def test_both_leave_the_same_entry(world: World) -> None:
    doors = doors_with_keys(world)
    spool = doors.service.settings.spool_dir
    before = len(unchecked(spool))
    for case in ({"plaintext": ""}, {}, {"items": [{"plaintext": ""}, {}]}):
        doors.both("/api/v1/keys/siv/encrypt", case)
    doors.both("/api/v1/keys/siv/encrypt", {}, HTTP_AUTHORIZATION="Bearer wrong")
    lines = [json.loads(line) for line in unchecked(spool)][before:]
    entries = [{k: v for k, v in line.items() if k not in ("time", "request_id")} for line in lines]
    assert len(entries) == 8
    assert entries[0::2] == entries[1::2]


def test_both_count_in_one_limit(template: Template, settings: Settings, clock: SteeredClock) -> None:
    service = template.open(msgspec.structs.replace(settings, rate_limit_use="5/hour"), clock)
    doors = doors_of(World.of(service))
    doors.alice.post("/api/v1/keys", {"key_id": "siv", "type": "aes-256-siv"})
    for _ in range(2):
        assert doors.both("/api/v1/keys/siv/encrypt", {"plaintext": ""})[0] == "200 OK"
    body = b'{"plaintext": ""}'
    assert doors.ask(doors.dispatch, "/api/v1/keys/siv/encrypt", body)[0] == "200 OK"
    status, headers, _ = doors.both("/api/v1/keys/siv/encrypt", {"plaintext": ""})
    assert status.startswith("429")
    assert headers["ratelimit-policy"] == '"use";q=5;w=3600'
    service.close()


def test_what_nobody_foresaw_is_logged_and_says_nothing(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(doors.service.key_cache, "authorize", fail)
    status, _, body = doors.both("/api/v1/keys/siv/encrypt", {"plaintext": ""})
    assert status == "500 INTERNAL SERVER ERROR"
    assert b"secret" not in body
