"""A session or an access key that ends while a body is on its way is not answered any more."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from helpers.support import Api, SteeredClock, World
from helpers.wsgi import answer_of, signed


class Late(io.RawIOBase):
    """A body during whose arrival something happens."""

    def __init__(self, body: bytes, meanwhile: Callable[[], Any]) -> None:
        self.body, self.meanwhile = body, meanwhile

    def read(self, size: int = -1) -> bytes:
        self.meanwhile()
        body, self.body = self.body, b""
        return body


BODY = b'{"plaintext": ""}'


def encrypted(world: World, alice: Api, path: str, body: bytes, meanwhile: Callable[[], Any], **given: Any) -> int:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "CONTENT_TYPE": "application/json", **given}
    environ |= {"HTTP_AUTHORIZATION": alice.headers["Authorization"], "wsgi.input": Late(body, meanwhile)} | given
    return answer_of(world, environ, body)[0]


@pytest.mark.parametrize("path", ["/api/v1/keys/k/encrypt", "/api/v1/keys", "/v1/transit/encrypt/k"])
@pytest.mark.parametrize("content_type", ["application/json", "application/problem+json"])
def test_a_session_that_expires_while_the_body_arrives(
    world: World, clock: SteeredClock, path: str, content_type: str
) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})
    body = b"{}" if path.endswith("keys") else BODY

    def ask(meanwhile: Callable[[], Any]) -> int:
        return encrypted(world, alice, path, body, meanwhile, CONTENT_TYPE=content_type)

    assert ask(lambda: clock.advance(minutes=59)) in (200, 201)
    assert ask(lambda: clock.advance(minutes=2)) in (401, 403)


def test_a_session_that_is_ended_while_the_body_arrives(world: World) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})
    status = encrypted(world, alice, "/api/v1/keys/k/encrypt", BODY, lambda: alice.post("/auth/logout"))
    assert status == 401


def test_an_access_key_that_expires_while_the_body_arrives(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "k"})
    access = alice.post("/api/v1/access-keys", {"expires_in": 900}).json
    body = json.dumps({"KeyId": "k", "Plaintext": "AAAA"}).encode()

    def ask(meanwhile: Callable[[], Any]) -> int:
        environ = signed(access, clock, "Encrypt", body)
        return answer_of(world, {**environ, "wsgi.input": Late(body, meanwhile)}, body)[0]

    assert ask(lambda: clock.advance(minutes=4)) == 200
    clock.advance(minutes=9)
    assert ask(lambda: clock.advance(minutes=3)) in (400, 401, 403)
