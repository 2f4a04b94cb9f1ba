"""What is remembered of good signatures: nothing that was not signed comes in by it, and nothing outlives its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from helpers.support import SteeredClock, World
from helpers.wsgi import answer_of, signed
from kms.api.aws import proof

Environ = dict[str, Any]
BODY = b'{"Limit": 5}'
WRONG, INCOMPLETE = "InvalidSignatureException", "IncompleteSignatureException"


def outcome(world: World, environ: Environ, body: bytes = BODY) -> str:
    status, content = answer_of(world, environ, body)
    return "" if status == 200 else str(json.loads(content)["__type"])


@pytest.fixture
def access(world: World) -> dict[str, str]:
    made: dict[str, str] = world.user("amy").post("/api/v1/access-keys", {}).json
    return made


@pytest.fixture
def good(world: World, clock: SteeredClock, access: dict[str, str]) -> Environ:
    """A request that was answered twice, so that everything is remembered of it."""
    environ = signed(access, clock, "ListKeys", BODY)
    assert [outcome(world, environ) for _ in range(2)] == ["", ""]
    return environ


def authorization(change: Callable[[str], str]) -> Callable[[Environ], Environ]:
    return lambda environ: {"HTTP_AUTHORIZATION": change(environ["HTTP_AUTHORIZATION"])}


ALTERED: dict[str, tuple[Callable[[Environ], Environ], str]] = {
    "an unsigned header of AWS's": (lambda _: {"HTTP_X_AMZ_FOO": "x"}, INCOMPLETE),
    "an unsigned session token": (lambda _: {"HTTP_X_AMZ_SECURITY_TOKEN": "x"}, INCOMPLETE),
    "an unsigned header of AWS's, empty": (lambda _: {"HTTP_X_AMZ_CONTENT_SHA256": ""}, INCOMPLETE),
    "any other header": (lambda _: {"HTTP_USER_AGENT": "x"}, ""),
    "another host": (lambda _: {"HTTP_HOST": "localhost:8444"}, WRONG),
    "the host twice": (lambda given: {"HTTP_HOST": "localhost:8443,localhost:8443"}, WRONG),
    "no host": (lambda _: {"HTTP_HOST": None}, WRONG),
    "the target twice": (lambda given: {"HTTP_X_AMZ_TARGET": ",".join([given["HTTP_X_AMZ_TARGET"]] * 2)}, WRONG),
    "another target": (lambda _: {"HTTP_X_AMZ_TARGET": "TrentService.ListAliases"}, WRONG),
    "the date twice": (lambda given: {"HTTP_X_AMZ_DATE": ",".join([given["HTTP_X_AMZ_DATE"]] * 2)}, WRONG),
    "no date": (lambda _: {"HTTP_X_AMZ_DATE": None}, INCOMPLETE),
    "another type": (lambda _: {"CONTENT_TYPE": "application/json"}, WRONG),
    "no type": (lambda _: {"CONTENT_TYPE": None}, WRONG),
    "white space that is not signed": (lambda given: {"CONTENT_TYPE": f"  {given['CONTENT_TYPE']} "}, ""),
    "a query": (lambda _: {"QUERY_STRING": "a=b"}, INCOMPLETE),
    "an upper-case signature": (
        authorization(lambda text: text[:-64] + text[-64:].translate({ord("a") + n: "A" for n in range(6)})),
        INCOMPLETE,
    ),
    "no signature": (authorization(lambda text: text[:-64]), INCOMPLETE),
    "half a signature": (authorization(lambda text: text[:-32]), INCOMPLETE),
    "a signature and more": (authorization(lambda text: f"{text}0"), INCOMPLETE),
    "a signature of other letters": (authorization(lambda text: text[:-64] + "\xe9" * 64), INCOMPLETE),
    "another signature": (authorization(lambda text: text[:-64] + "0" * 64), WRONG),
    "two signatures": (authorization(lambda text: f"{text}, Signature={text[-64:]}"), INCOMPLETE),
    "a target that is not signed": (authorization(lambda text: text.replace(";x-amz-target", "")), INCOMPLETE),
    "a host that is not signed": (authorization(lambda text: text.replace("host;", "")), INCOMPLETE),
    "a header that is not sent": (
        authorization(lambda text: text.replace(";x-amz-target", ";x-amz-nothing;x-amz-target")),
        INCOMPLETE,
    ),
    "a header named twice": (authorization(lambda text: text.replace(";host;", ";host;host;")), INCOMPLETE),
    "another region": (authorization(lambda text: text.replace("us-east-1", "us-east-2")), WRONG),
    "another service": (authorization(lambda text: text.replace("/kms/", "/s3/")), WRONG),
    "white space in the statement": (authorization(lambda text: f" {text} ".replace(", S", ",   S")), ""),
}


@pytest.mark.parametrize("case", ALTERED)
def test_what_is_altered_in_a_remembered_request_is_noticed(world: World, good: Environ, case: str) -> None:
    change, expected = ALTERED[case]
    for _ in range(2):
        assert outcome(world, {**good, **change(good)}) == expected
        assert outcome(world, good) == ""


def test_the_body_is_signed(world: World, clock: SteeredClock, access: dict[str, str], good: Environ) -> None:
    other = b'{"Limit": 6}'
    assert outcome(world, good, other) == WRONG
    of_other = signed(access, clock, "ListKeys", other)
    assert outcome(world, of_other, other) == ""
    assert outcome(world, of_other) == WRONG


def test_headers_may_come_in_any_order(world: World, good: Environ) -> None:
    turned = dict(reversed(good.items()))
    assert [outcome(world, turned) for _ in range(2)] == ["", ""]
    assert outcome(world, {**turned, "HTTP_X_AMZ_FOO": "x"}) == INCOMPLETE


def test_a_good_request_is_over_in_time(world: World, clock: SteeredClock, good: Environ) -> None:
    clock.advance(seconds=299)
    assert outcome(world, good) == ""
    clock.advance(seconds=3)
    assert outcome(world, good) == WRONG


def test_another_access_key_is_another_signer(world: World, good: Environ, access: dict[str, str]) -> None:
    other = world.user("bob").post("/api/v1/access-keys", {}).json["access_key_id"]
    statement = good["HTTP_AUTHORIZATION"].replace(access["access_key_id"], other)
    assert outcome(world, {**good, "HTTP_AUTHORIZATION": statement}) == WRONG


@pytest.mark.parametrize("ended", ["key", "disable", "rotate-secret", "reset-totp"])
def test_what_was_ended_is_not_remembered(world: World, good: Environ, access: dict[str, str], ended: str) -> None:
    if ended == "key":
        assert world.login("amy").delete(f"/api/v1/access-keys/{access['access_key_id']}").status_code == 200
    else:  # of the client, or of its secret or second factor, which ends what came of them
        assert world.admin.post(f"/api/v1/clients/amy/{ended}").status_code == 200
    assert outcome(world, good) == "UnrecognizedClientException"


def test_a_session_token_is_signed_with_the_rest(world: World, clock: SteeredClock) -> None:
    amy = world.user("amy")
    first, second = (amy.post("/api/v1/access-keys", {"with_session_token": True}).json for _ in range(2))
    environ = signed(first, clock, "ListKeys", BODY)
    assert [outcome(world, environ) for _ in range(2)] == ["", ""]
    unknown = "UnrecognizedClientException"
    assert outcome(world, {**environ, "HTTP_X_AMZ_SECURITY_TOKEN": second["session_token"]}) == unknown
    assert outcome(world, {**environ, "HTTP_X_AMZ_SECURITY_TOKEN": ""}) == unknown
    assert outcome(world, {**environ, "HTTP_X_AMZ_SECURITY_TOKEN": None}) == INCOMPLETE
    swapped = {**first, "session_token": second["session_token"]}
    assert outcome(world, signed(swapped, clock, "ListKeys", BODY)) == unknown
    assert outcome(world, environ) == ""


def test_what_is_remembered_is_bounded(world: World, good: Environ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "_REMEMBERED", 4)
    dispatch: Any = world.http.application.wsgi_app
    shapes = dispatch.next_app._proofs._shapes
    for number in range(10):
        assert outcome(world, {**good, f"HTTP_X_{number}": "x"}) == ""
        assert 0 < len(shapes) <= 4
    before = dict(shapes)
    assert outcome(world, {**good, **{f"HTTP_X_{number}": "x" for number in range(1000)}}) == ""
    assert shapes == before  # what is longer than programs send
