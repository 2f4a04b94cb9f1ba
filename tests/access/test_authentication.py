"""Credentials: each code once, every failure alike, lockout that no spelling gets round."""

from __future__ import annotations

import json
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest
from flask.testing import FlaskClient

from helpers.console import Browser
from helpers.support import SteeredClock, World, b64, basic, settings_for
from helpers.wsgi import answer_of
from kms.access import lockout, totp
from kms.access.model import Role
from kms.keys.ids import is_client_id
from kms.operations import OPERATIONS, Service

TOKEN = "/auth/token"


def code(enrolment: Any, clock: SteeredClock, steps: int = 0) -> str:
    return pyotp.TOTP(enrolment.totp_secret).at(int(clock().timestamp()) + 30 * steps)


def attempt(world: World, client_id: str, secret: str, source: str = "10.0.0.1", **headers: str) -> Any:
    return world.http.post(
        TOKEN, headers=basic(client_id, secret, **headers), environ_overrides={"REMOTE_ADDR": source}
    )


def test_a_code_works_once(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    secret, now = user.client_secret, code(user, clock)
    assert attempt(world, "user1", secret, **{"X-TOTP": now}).status_code == 200
    for spelling in (now, f" {now}", f"{now} ", f"{now}\t", now.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩"))):
        header = spelling.encode().decode("latin-1")
        assert attempt(world, "user1", secret, **{"X-TOTP": header}).status_code == 401
    clock.advance(seconds=60)
    assert attempt(world, "user1", secret, **{"X-TOTP": code(user, clock)}).status_code == 200


@pytest.mark.parametrize("steps", [-1, 0, 1])
def test_one_step_of_skew_is_allowed_each_way(world: World, clock: SteeredClock, steps: int) -> None:
    user = world.enrol("user1")
    assert attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock, steps)}).status_code == 200


@pytest.mark.parametrize("steps", [-2, 2])
def test_two_are_not(world: World, clock: SteeredClock, steps: int) -> None:
    user = world.enrol("user1")
    assert attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock, steps)}).status_code == 401


def test_an_earlier_code_does_not_work_after_a_later_one(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    assert attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock, 1)}).status_code == 200
    assert attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock, 0)}).status_code == 401


def test_of_many_at_once_one_succeeds(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    statuses: list[int] = []

    def go(http: FlaskClient, source: str) -> None:
        headers = basic("user1", user.client_secret, **{"X-TOTP": code(user, clock)})
        answer = http.post(TOKEN, headers=headers, environ_overrides={"REMOTE_ADDR": source})
        statuses.append(answer.status_code)

    application = world.http.application
    threads = [threading.Thread(target=go, args=(application.test_client(), f"10.0.1.{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 7


def test_recovery_codes_work_once_each(world: World) -> None:
    user = world.enrol("user1")
    assert len(set(user.recovery_codes)) == 10
    first = {"X-Recovery-Code": user.recovery_codes[0]}
    assert attempt(world, "user1", user.client_secret, **first).status_code == 200
    assert attempt(world, "user1", user.client_secret, **first).status_code == 401
    assert (
        attempt(world, "user1", user.client_secret, **{"X-Recovery-Code": user.recovery_codes[1]}).status_code == 200
    )


def test_every_failure_looks_the_same(world: World, clock: SteeredClock) -> None:
    user, other = world.enrol("user1"), world.enrol("other")
    disabled = world.enrol("disabled")
    assert world.admin.post("/api/v1/clients/disabled/disable").status_code == 200
    good = code(user, clock)
    attempts = [
        ("user1", other.client_secret, good),
        ("user1", user.client_secret, "000000"),
        ("user1", "a passphrase that is wrong", good),
        ("nobody", user.client_secret, good),
        ("nobody", "a passphrase that is wrong", good),
        ("USER1", user.client_secret, good),
        ("user1 ", user.client_secret, good),
        ("", "", good),
        ("disabled", disabled.client_secret, code(disabled, clock)),
    ]
    bodies = set()
    for number, (client_id, secret, totp_code) in enumerate(attempts):
        answer = attempt(world, client_id, secret, f"10.0.2.{number}", **{"X-TOTP": totp_code})
        assert answer.status_code == 401
        bodies.add(tuple(sorted((k, v) for k, v in answer.json.items() if k != "request_id")))
        assert "Basic" in answer.headers["WWW-Authenticate"]
    assert len(bodies) == 1


def test_no_second_factor_is_said_whatever_the_secret(world: World) -> None:
    user = world.enrol("user1")
    answers = [attempt(world, *who) for who in (("user1", user.client_secret), ("user1", "x"), ("nobody", "x"))]
    assert {(answer.status_code, answer.json["type"]) for answer in answers} == {(401, "/problems/mfa-required")}


def test_failures_lock_out_for_longer_and_longer(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    session = world.login("user1", Role.USER)
    for _ in range(6):
        assert attempt(world, "user1", "wrong-passphrase", **{"X-TOTP": "000000"}).status_code == 401
    locked = attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock)})
    assert locked.status_code == 429
    assert int(locked.headers["Retry-After"]) == 1
    assert session.get("/api/v1/keys").status_code == 200  # the client's own sessions go on
    other = world.enrol("other")
    assert attempt(world, "other", other.client_secret, **{"X-TOTP": code(other, clock)}).status_code == 200
    assert attempt(world, "user1", user.client_secret, "10.9.9.9", **{"X-TOTP": code(user, clock)}).status_code == 200
    waits = []
    for _ in range(4):
        clock.advance(seconds=1000)
        attempt(world, "user1", "wrong-passphrase", **{"X-TOTP": "000000"})
        answer = attempt(world, "user1", "wrong-passphrase", **{"X-TOTP": "000000"})
        waits.append(int(answer.headers["Retry-After"]))
    assert waits == [2, 4, 8, 16]
    clock.advance(seconds=1000)
    assert attempt(world, "user1", user.client_secret, **{"X-TOTP": code(user, clock)}).status_code == 200
    assert attempt(world, "user1", "wrong-passphrase", **{"X-TOTP": "000000"}).status_code == 401


def test_clients_that_do_not_exist_are_locked_out_alike(world: World) -> None:
    statuses = [attempt(world, "nobody", "wrong-passphrase", **{"X-TOTP": "000000"}).status_code for _ in range(7)]
    assert statuses == [401] * 6 + [429]


def test_guesses_from_everywhere_are_slowed_down_too(world: World) -> None:
    statuses = []
    for number in range(52):
        answer = attempt(world, "user1", "wrong-passphrase", f"10.1.{number}.1", **{"X-TOTP": "000000"})
        statuses.append(answer.status_code)
    assert statuses == [401] * 51 + [429]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False), ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False), ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)  # fmt: skip
def test_what_counts_as_one_place(one: str, other: str, same: bool) -> None:
    assert (lockout.network_of(one) == lockout.network_of(other)) is same


def test_the_only_route_that_mints_a_session_wants_a_fresh_factor(world: World) -> None:
    minting = [
        operation for operation in OPERATIONS.values() if "access_token" in str(operation.function.__annotations__)
    ]
    assert [operation.name for operation in OPERATIONS.values() if operation.is_token_endpoint] == ["issue_token"]
    assert not minting
    session = world.login("admin", Role.ADMIN)
    assert session.post(TOKEN).status_code == 401


def test_one_shot_calls(world: World, clock: SteeredClock) -> None:
    user = world.enrol("user1")
    headers = basic("user1", user.client_secret, **{"X-TOTP": code(user, clock)})
    assert world.http.post("/generate_symmetric_key", headers=headers).status_code == 200
    assert world.http.post("/generate_symmetric_key", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"grant_type=client_credentials", "application/x-www-form-urlencoded", 200), (b"", None, 200),
        (b'{"grant_type": "client_credentials"}', "application/json", 200),
        (b"grant_type=password", "application/x-www-form-urlencoded", 422), (b"<xml/>", "text/xml", 415),
    ],
)  # fmt: skip
def test_how_a_token_is_asked_for(
    world: World, clock: SteeredClock, content: bytes, kind: str | None, status: int
) -> None:
    user = world.enrol("user1")
    headers = basic("user1", user.client_secret, **{"X-TOTP": code(user, clock)})
    answer = world.http.post(TOKEN, headers=headers, data=content, content_type=kind)
    assert answer.status_code == status
    if status == 200:
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 3600)


def test_tokens_end(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    assert user.get("/api/v1/keys").status_code == 200
    vault_style = {"X-Vault-Token": user.headers["Authorization"].removeprefix("Bearer ")}
    assert world.http.get("/api/v1/keys", headers=vault_style).status_code == 200
    clock.advance(minutes=59, seconds=59)
    assert user.get("/api/v1/keys").status_code == 200
    clock.advance(seconds=1)
    assert user.get("/api/v1/keys").status_code == 401
    again = world.login("user1", Role.USER)
    assert again.post("/auth/logout").status_code == 200
    assert again.get("/api/v1/keys").status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic",
        "Basic !!!",
        "Digest x",
        "Basic " + b64(b"x"),
        "Bearer " + "x" * 9000,
    ],
)
def test_headers_that_prove_nothing(world: World, header: str) -> None:
    assert world.http.get("/api/v1/keys", headers={"Authorization": header}).status_code == 401


def test_a_passphrase_of_a_person(world: World, clock: SteeredClock) -> None:
    user = world.user("user1")
    enrolment = world.enrol("second")
    second = world.login("second", Role.USER)
    assert user.post("/api/v1/clients/second/rotate-secret").status_code == 403
    answer = second.post("/api/v1/clients/second/rotate-secret", {"passphrase": "correct horse battery"})
    assert answer.json == {"client_id": "second"}
    assert second.get("/api/v1/keys").status_code == 401  # its sessions have ended
    factor = {"X-TOTP": code(enrolment, clock)}
    assert attempt(world, "second", enrolment.client_secret, **factor).status_code == 401
    assert attempt(world, "second", "correct horse battery", **factor).status_code == 200


def test_rfc_6238_known_answers() -> None:
    from datetime import UTC, datetime

    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # the RFC's, in base32; its answers cut to six digits
    for seconds, digits in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")):
        assert totp.matching_step(secret, digits, datetime.fromtimestamp(seconds, UTC)) == seconds // 30


@pytest.mark.slow
@pytest.mark.parametrize("form", ["generated", "passphrase"])
def test_unknown_clients_take_as_long_as_wrong_secrets(world: World, clock: SteeredClock, form: str) -> None:
    """Loosely: medians within a third of each other, on a machine that does other things too."""
    user = world.enrol("user1")
    secret = user.client_secret[:-4] + "AAAA" if form == "generated" else "a passphrase that is wrong"
    times: dict[str, list[float]] = {"user1": [], "nobody": []}
    for number in range(200):
        for client_id, taken in times.items():
            began = time.perf_counter()
            attempt(world, client_id, secret, f"10.{number}.0.1", **{"X-TOTP": "000000"})
            taken.append(time.perf_counter() - began)
        clock.advance(hours=2)  # forgets the failures, so that no lock cuts an attempt short
    known, unknown = (statistics.median(taken) for taken in times.values())
    assert 0.67 < known / unknown < 1.5


SPELLINGS = {
    "capitals": "USER1",
    "one capital": "User1",
    "a space before": " user1",
    "a space after": "user1 ",
    "a tab": "user1\t",
    "a line": "user1\n",
    "a null": "user1\0",
    "a null and more": "user1\0x",
    "full width": "ｕｓｅｒ１",
    "a superscript": "user¹",
    "another digit": "user١",
    "a letter of another alphabet": "us\u0435r1",
    "an accent": "u\u0301ser1",
    "nothing to be seen": "user\u200b1",
    "a soft hyphen": "user\u00ad1",
    "a mark of the byte order": "\ufeffuser1",
    "from right to left": "\u202euser1",
    "a long s": "u\u017fer1",
    "percent": "user%31",
    "percent twice": "user%2531",
    "a plus": "user1+",
    "a dot": "user1.",
    "quotes": '"user1"',
    "a wildcard": "user*",
    "another of databases": "user_",
    "a comment": "user1'--",
}
"""What a fold, a trim, a normal form, a decoder or a database could take for `user1`."""


def by_basic(world: World, client_id: str, secret: str, totp_code: str) -> int:
    return int(attempt(world, client_id, secret, **{"X-TOTP": totp_code}).status_code)


def by_console(world: World, client_id: str, secret: str, totp_code: str) -> int:
    browser = Browser.of(world)
    browser.http.environ_base["REMOTE_ADDR"] = "10.0.0.1"
    answer = browser.log_in(client_id, secret, code=totp_code)
    return 200 if answer.status_code == 303 and browser.cookie else int(answer.status_code)


def by_userpass(world: World, client_id: str, secret: str, totp_code: str) -> int:
    path = f"auth/userpass/login/{client_id}".encode().decode("latin-1")  # as servers hand a decoded path on
    body = json.dumps({"password": secret, "totp": totp_code}).encode()
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": f"/v1/{path}", "REMOTE_ADDR": "10.0.0.1"}
    return answer_of(world, environ, body)[0]


DOORS: list[Callable[[World, str, str, str], int]] = [by_basic, by_console, by_userpass]


@pytest.mark.parametrize("door", DOORS)
def test_no_other_spelling_of_a_name_is_that_client(world: World, clock: SteeredClock, door: Any) -> None:
    """One that was let in would have a count of failures of its own: more guesses with each spelling."""
    user = world.enrol("user1")
    for name, spelling in SPELLINGS.items():
        assert 400 <= door(world, spelling, user.client_secret, code(user, clock)) < 500, name
    assert door(world, "user1", user.client_secret, code(user, clock)) == 200  # and none of them spent the code


def test_a_lock_holds_at_every_door_for_every_spelling(world: World, clock: SteeredClock) -> None:
    """What fails at one door counts at the others."""
    user = world.enrol("user1")
    for door in DOORS:
        for _ in range(2):
            assert door(world, "user1", user.client_secret, "000000") in (401, 403)
    for door in DOORS:
        assert door(world, "user1", user.client_secret, code(user, clock)) == 429, door
        for name, spelling in SPELLINGS.items():
            assert 400 <= door(world, spelling, user.client_secret, code(user, clock)) < 500, (door, name)
    clock.advance(seconds=2)
    assert by_userpass(world, "user1", user.client_secret, code(user, clock)) == 200


def test_no_client_is_made_that_only_looks_like_another(world: World) -> None:
    world.enrol("user1")
    for name, spelling in SPELLINGS.items():
        answer = world.admin.post("/api/v1/clients", {"client_id": spelling})
        assert answer.status_code == (201 if is_client_id(spelling) else 422), name
        assert spelling.isascii() or answer.status_code == 422, name


@pytest.fixture
def two_nodes(database_url: str, tmp_path: Path, clock: SteeredClock) -> Iterator[tuple[World, World]]:
    """Two hosts with a data directory each, and one database."""
    here, there = tmp_path / "here", tmp_path / "there"
    first = Service.open(settings_for(here, database_url=database_url), clock)
    there.mkdir(mode=0o700)
    shutil.copy(here / "root.key", there)
    second = Service.open(settings_for(there, database_url=database_url), clock)
    yield World.of(first), World.of(second)
    for service in (second, first):
        service.close()


def test_a_code_works_once_on_all_nodes_of_one_database(two_nodes: tuple[World, World], clock: SteeredClock) -> None:
    user = two_nodes[0].enrol("user1")
    headers = basic("user1", user.client_secret, **{"X-TOTP": code(user, clock)})
    statuses: list[int] = []
    start = threading.Barrier(8)

    def go(node: World, source: str) -> None:
        http = node.http.application.test_client()
        start.wait()
        answer = http.post(TOKEN, headers=headers, environ_overrides={"REMOTE_ADDR": source})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=go, args=(two_nodes[n % 2], f"10.0.1.{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 7
    for node in two_nodes:
        assert attempt(node, "user1", user.client_secret, **{"X-TOTP": code(user, clock)}).status_code == 401
