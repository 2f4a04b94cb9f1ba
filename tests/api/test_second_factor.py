"""Step-up: a person gives a second factor again, and the session in use counts as just confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from helpers.people import Person, child_of, session
from helpers.support import Api, SteeredClock, Template, World, kind_of
from helpers.tokens import ASSERTION_TYPE, assertion, new_key, public_jwk
from kms.config import Settings
from kms.operations import Service

PATH = "/auth/second-factor"


@pytest.fixture
def amy(world: World, clock: SteeredClock) -> Person:
    """Amy, whose second factor is six minutes old, and whose app shows a code that was not used."""
    made = Person.of(world, "amy")
    clock.advance(minutes=6)
    return made


@pytest.fixture
def other_node(world: World, settings: Settings, template: Template) -> Iterator[World]:
    """A second worker on the same vault."""
    opened = Service.open(settings, world.service.clock)
    yield World.of(opened)
    opened.close()


def test_a_code_makes_the_session_fresh_and_nothing_longer(amy: Person, clock: SteeredClock) -> None:
    refused = amy.add_key()
    assert kind_of(refused) == "insufficient-user-authentication"
    assert "/auth/second-factor" in refused.json["detail"]
    (before,) = amy.api.get("/api/v1/clients/amy/sessions").json["items"]
    answer = amy.api.post(PATH, {"code": amy.code})
    assert answer.status_code == 200, answer.text
    (after,) = amy.api.get("/api/v1/clients/amy/sessions").json["items"]
    assert after["second_factor_at"] == answer.json["second_factor_at"] != before["second_factor_at"]
    assert after["expires_at"] == answer.json["expires_at"] == before["expires_at"]
    assert amy.add_key().status_code == 201
    clock.advance(minutes=5)
    assert kind_of(amy.add_key()) == "insufficient-user-authentication"
    clock.advance(minutes=49)
    assert kind_of(amy.api.post(PATH, {"code": amy.code})) == "authentication-failed"  # the hour is over


def test_it_is_fresh_on_every_worker_at_once(amy: Person, other_node: World) -> None:
    elsewhere = Api(other_node.http, amy.api.headers, "amy")
    assert kind_of(amy.add_key(elsewhere)) == "insufficient-user-authentication"  # and is remembered there
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200
    assert amy.add_key(elsewhere).status_code == 201


def test_a_code_works_once_for_logging_in_and_for_this(amy: Person, other_node: World, clock: SteeredClock) -> None:
    assert amy.login().status_code == 200
    for world in (amy.world, other_node):
        again = Api(world.http, amy.api.headers, "amy").post(PATH, {"code": amy.code})
        assert (again.status_code, kind_of(again)) == (401, "authentication-failed")
        assert "used already" in again.json["detail"]
        assert "Retry-After" in again.headers
    clock.advance(seconds=30)
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200
    assert amy.login().status_code == 401


def test_of_two_same_codes_at_once_one_is_taken(amy: Person, other_node: World) -> None:
    second = session(amy.world, amy.login(), "amy")
    amy.world.service.clock.advance(seconds=30)  # type: ignore[attr-defined]
    apis = [amy.api, second, Api(other_node.http, amy.api.headers, "amy")] * 2
    with ThreadPoolExecutor(len(apis)) as threads:
        answers = list(threads.map(lambda api: api.post(PATH, {"code": amy.code}), apis))
    assert sorted(each.status_code for each in answers) == [200, *[401] * 5]


@pytest.mark.parametrize("code", ["", "000000 ", " 000000", "00000", "٠٠٠٠٠٠", "1e5", "0000000", "x" * 64])
def test_what_is_no_code_is_wrong_and_counted(amy: Person, code: str) -> None:
    for _ in range(6):
        assert kind_of(amy.api.post(PATH, {"code": code})) == "authentication-failed"
    assert kind_of(amy.api.post(PATH, {"code": amy.code})) == "rate-limited"


def test_wrong_codes_are_counted_with_those_at_log_in(amy: Person, clock: SteeredClock) -> None:
    wrong = "000000" if amy.code != "000000" else "000001"
    for _ in range(3):
        assert kind_of(amy.api.post(PATH, {"code": wrong})) == "authentication-failed"
    for _ in range(3):
        assert amy.login(wrong).status_code == 401
    for answer in (amy.api.post(PATH, {"code": amy.code}), amy.login()):
        assert (kind_of(answer), answer.headers["Retry-After"]) == ("rate-limited", "1")
    assert amy.api.get("/api/v1/keys").status_code == 200  # a lock stops no session
    clock.advance(seconds=2)
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200
    assert kind_of(amy.api.post(PATH, {"code": wrong})) == "authentication-failed"  # the success was forgiving


@pytest.mark.parametrize("form", [{}, {"scope": "sessions:manage keys:read"}])
def test_a_session_made_by_another_becomes_no_fresher(amy: Person, form: dict[str, str]) -> None:
    before = child_of(amy.world, amy.api, **form)
    refused = before.post(PATH, {"code": amy.code})
    assert (refused.status_code, kind_of(refused)) == (403, "permission-denied")
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200  # the code was not spent on that
    if not form:
        assert kind_of(amy.add_key(before)) == "insufficient-user-authentication"
        assert amy.add_key(child_of(amy.world, amy.api)).status_code == 201


def test_a_narrowed_session_stays_as_narrow(amy: Person, clock: SteeredClock) -> None:
    narrow = session(amy.world, amy.login(scope="sessions:manage keys:read"), "amy")
    clock.advance(minutes=6)
    assert narrow.post(PATH, {"code": amy.code}).status_code == 200
    assert kind_of(amy.add_key(narrow)) == "permission-denied"


def test_a_program_s_session_takes_no_second_factor(amy: Person) -> None:
    key = new_key()
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200
    assert amy.api.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(key)}).status_code == 201
    signed = assertion(key, "amy", amy.world.service.clock().timestamp())
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
    program = session(amy.world, amy.world.http.post("/auth/token", data=form), "amy")
    amy.world.service.clock.advance(seconds=30)  # type: ignore[attr-defined]
    assert kind_of(program.post(PATH, {"code": amy.code})) == "permission-denied"


def test_a_request_without_a_session_has_nothing_to_confirm(amy: Person) -> None:
    answer = amy.world.http.post(
        PATH, json={"code": amy.code}, auth=("amy", amy.secret), headers={"X-TOTP": amy.code}
    )
    assert kind_of(answer) == "permission-denied"
    assert kind_of(amy.world.http.post(PATH, json={"code": amy.code})) == "authentication-failed"


def test_another_client_s_code_is_wrong(amy: Person) -> None:
    bob = Person.of(amy.world, "bob")
    amy.world.service.clock.advance(seconds=30)  # type: ignore[attr-defined]
    assert kind_of(amy.api.post(PATH, {"code": bob.code})) == "authentication-failed"


def test_it_is_in_the_audit_log_without_the_code(amy: Person) -> None:
    code = amy.code
    amy.api.post(PATH, {"code": code})
    amy.api.post(PATH, {"code": code})
    entries = amy.world.login("admin").get("/api/v1/audit/entries?limit=1000").json["items"]
    found = [each for each in entries if each["operation"] == "confirm_second_factor"]
    assert [each["outcome"] for each in found] == ["success", "authentication-failed"]
    assert {each["client_id"] for each in found} == {"amy"}
    assert f'"{code}"' not in str(entries).replace("'", '"')


def test_a_grant_that_asks_for_a_fresh_factor_is_met_again(amy: Person, clock: SteeredClock) -> None:
    owner = Person.of(amy.world, "owner")
    assert owner.api.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    grant = {"subject": "client:amy", "permission": "keys:encrypt", "key_pattern": "k"}
    grant["conditions"] = {"second_factor_within": "PT5M"}  # type: ignore[assignment]
    assert owner.api.post("/api/v1/grants", grant).status_code == 201
    use = {"plaintext": "aGk="}
    assert amy.api.post("/api/v1/keys/k/encrypt", use).status_code == 401
    assert amy.api.post(PATH, {"code": amy.code}).status_code == 200
    assert amy.api.post("/api/v1/keys/k/encrypt", use).status_code == 200
    clock.now += timedelta(minutes=6)
    assert amy.api.post("/api/v1/keys/k/encrypt", use).status_code == 401
