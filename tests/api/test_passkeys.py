"""People log in with passkeys: each rule of WebAuthn that the service must hold, and what an attacker would try."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webauthn.helpers import encode_cbor, parse_cbor

from helpers.authenticator import (
    ATTESTED,
    BACKED_UP,
    BACKUP_ELIGIBLE,
    EDDSA,
    ES256,
    RS256,
    USER_PRESENT,
    USER_VERIFIED,
    Authenticator,
    b64url,
    unb64url,
)
from helpers.people import PASSKEY_GRANT, Person, by_passkey, child_of, request_options, session
from helpers.support import Api, SteeredClock, Template, World, kind_of, settings_for
from kms.access import callers
from kms.access.model import Role
from kms.access.passkeys import Passkey
from kms.access.webauthn import AuthenticationResponse
from kms.config import Settings
from kms.errors import AuthenticationFailed
from kms.operations import Call, Service
from kms.vault.checking import wrong_tables


@pytest.fixture
def amy(world: World) -> Person:
    return Person.of(world, "amy")


_numbers = itertools.count()


@pytest.fixture
def someone(shared_world: World) -> Person:
    """Somebody new, in a world that lasts."""
    return Person.of(shared_world, f"someone{next(_numbers)}")


@pytest.fixture
def other_node(world: World, settings: Settings, template: Template) -> Iterator[World]:
    """A second worker on the same vault."""
    opened = Service.open(settings, world.service.clock)
    yield World.of(opened)
    opened.close()


def entries(world: World, operation: str) -> list[dict[str, Any]]:
    found = world.login("admin", Role.ADMIN).get("/api/v1/audit/entries?limit=1000").json["items"]
    return [each for each in found if each["operation"] == operation]


@pytest.mark.parametrize("alg", [ES256, EDDSA, RS256])
def test_a_person_logs_in_with_a_passkey(world: World, amy: Person, alg: int) -> None:
    key = Authenticator(alg)
    made = amy.add(key)
    assert made.status_code == 201, made.text
    assert made.json["transports"] == ["hybrid", "internal"]
    passkey_id = made.json["passkey_id"]
    answer = by_passkey(world, key.get(request_options(world)), scope="keys:read keys:create")
    assert (answer.status_code, answer.json["scope"]) == (200, "keys:create keys:read")
    api = session(world, by_passkey(world, key.get(request_options(world))), "amy")
    assert api.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    shown = api.get("/api/v1/clients/amy/sessions").json["items"]
    ours = [each for each in shown if each["credential"] == f"passkey:{passkey_id}"]
    assert len(ours) == 2
    assert all(each["second_factor_at"] for each in ours)
    assert amy.add_key(api).status_code == 201  # it was two factors, just now
    (listed,) = api.get(amy.path).json["items"]
    assert (listed["name"], listed["passkey_id"]) == ("laptop", passkey_id)
    assert "last_used_at" in listed
    assert listed["backup_eligible"] is False
    credentials = [each["credential"] for each in api.get("/api/v1/clients/amy/credentials").json["items"]]
    assert f"passkey:{passkey_id}" in credentials
    (first, *_) = [each for each in entries(world, "issue_token") if each.get("credential", "").startswith("passkey")]
    assert (first["client_id"], first["outcome"]) == ("amy", "success")


def test_the_options_are_those_of_webauthn(world: World, amy: Person) -> None:
    key = amy.with_passkey()
    creation, request = amy.creation(), request_options(world)
    assert creation["rp"] == {"id": "localhost", "name": "KMS"}
    assert [each["alg"] for each in creation["pubKeyCredParams"]] == [ES256, EDDSA, RS256]
    assert creation["authenticatorSelection"] == {
        "residentKey": "required", "requireResidentKey": True, "userVerification": "required",
    }  # fmt: skip
    assert (creation["attestation"], creation["timeout"]) == ("none", 300_000)
    assert [each["id"] for each in creation["excludeCredentials"]] == [b64url(key.credential_id)]
    assert b"amy" not in unb64url(creation["user"]["id"])
    assert {**request, "challenge": ""} == {
        "challenge": "", "timeout": 300_000, "rpId": "localhost", "allowCredentials": [],
        "userVerification": "required",
    }  # fmt: skip
    assert len(unb64url(request["challenge"])) >= 16
    assert request["challenge"] != request_options(world)["challenge"]


def test_a_passkey_goes_as_json_too(shared_world: World, someone: Person) -> None:
    response = someone.with_passkey().get(request_options(shared_world))
    assert (
        shared_world.http.post("/auth/token", json={"grant_type": PASSKEY_GRANT, "passkey": response}).status_code
        == 200
    )


def test_log_in_names_the_client_only_where_it_is_the_one(world: World, amy: Person) -> None:
    key = amy.with_passkey()
    assert by_passkey(world, key.get(request_options(world)), client_id="amy").status_code == 200
    assert by_passkey(world, key.get(request_options(world)), client_id="bob").status_code == 401


def test_no_session_with_a_passkey_outlives_what_sessions_may(world: World, amy: Person, clock: SteeredClock) -> None:
    key = amy.with_passkey()
    answer = by_passkey(world, key.get(request_options(world)))
    assert answer.json["expires_in"] == 3600
    api = session(world, answer, "amy")
    clock.advance(minutes=59)
    assert api.get("/api/v1/keys").status_code == 200
    confirmed = api.post("/auth/second-factor", {"passkey": key.get(request_options(world))})
    assert confirmed.status_code == 200, confirmed.text
    (entry,) = entries(world, "confirm_second_factor")
    assert entry["credential"].startswith("passkey:")
    clock.advance(minutes=2)
    assert api.get("/api/v1/keys").status_code == 401


KEYS: dict[str, Callable[[], Any]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
}


def with_key(wrong: dict[str, Any]) -> dict[str, Any]:
    """`wrong` with a key of the type that it names: what a test is called must not change from run to run."""
    return {name: KEYS[value]() if name == "key" else value for name, value in wrong.items()}


FLAGS = USER_PRESENT | USER_VERIFIED


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"origin": "https://evil.example"}, "another page"),
        ({"origin": "https://localhost"}, "another page"),
        ({"origin": "http://localhost:8443"}, "another page"),
        ({"origin": "https://localhost:8443/"}, "another page"),
        ({"client_data": {"crossOrigin": True}}, "another page"),
        ({"client_data": {"type": "webauthn.create"}}, "navigator.credentials.get"),
        ({"client_data": {"type": "payment.get"}}, "navigator.credentials.get"),
        ({"client_data": {"challenge": b64url(bytes(56))}}, "challenge"),
        ({"client_data": {"challenge": b64url(bytes(32))}}, "challenge"),
        ({"rp_id": "evil.example"}, callers.FAILED),
        ({"rp_id": "LOCALHOST"}, callers.FAILED),
        ({"flags": USER_VERIFIED}, callers.FAILED),
        ({"flags": 0}, callers.FAILED),
        ({"flags": FLAGS | BACKED_UP}, callers.FAILED),  # on another device, and may not be
        ({"flags": FLAGS | ATTESTED}, callers.FAILED),
        ({"key": "P-256"}, callers.FAILED),
        ({"key": "RSA-2048"}, callers.FAILED),
        ({"credential_id": b"nobody has this!"}, callers.FAILED),
        ({"user_handle": b"x" * 32}, callers.FAILED),
        ({"flags": USER_PRESENT}, "did not verify its user"),
    ],
    ids=str,
)
def test_what_is_wrong_about_an_assertion(
    shared_world: World, someone: Person, wrong: dict[str, Any], told: str
) -> None:
    key = someone.with_passkey()
    good = {name: getattr(key, name) for name in wrong}
    for name, value in with_key(wrong).items():
        setattr(key, name, value)
    answer = by_passkey(shared_world, key.get(request_options(shared_world)))
    assert (answer.status_code, kind_of(answer)) == (401, "authentication-failed"), answer.text
    assert told in answer.json["detail"]
    for name, value in good.items():
        setattr(key, name, value)
    assert by_passkey(shared_world, key.get(request_options(shared_world))).status_code == 200


def test_failures_are_told_in_the_same_bytes(world: World, amy: Person) -> None:
    bob = Person.of(world, "bob")
    known, disabled, unknown = amy.with_passkey(), bob.with_passkey(), Authenticator(user_handle=b"x" * 32)
    world.login("admin", Role.ADMIN).post("/api/v1/clients/bob/disable")
    known.key = ec.generate_private_key(ec.SECP256R1())
    answers = [by_passkey(world, each.get(request_options(world))) for each in (known, disabled, unknown)]
    answers.append(amy.login("12345"))
    bodies = {json.dumps({**each.json, "request_id": ""}) for each in answers}
    assert len(bodies) == 1
    assert {each.status_code for each in answers} == {401}
    of_each = {"X-Request-Id", "Audit-Leaf"}
    assert len({str([h for h in each.headers if h[0] not in of_each]) for each in answers}) == 1


@pytest.mark.parametrize("counts", [True, False])
def test_a_challenge_works_once_on_any_node(world: World, amy: Person, other_node: World, counts: bool) -> None:
    key = amy.with_passkey(counts=counts)
    response = key.get(request_options(other_node))
    assert by_passkey(world, response).status_code == 200
    for node in (world, other_node):
        again = by_passkey(node, response)
        assert (again.status_code, kind_of(again)) == (401, "authentication-failed")
        assert "used already" in again.json["detail"]
    second = key.get({"challenge": json.loads(unb64url(response["response"]["clientDataJSON"]))["challenge"],
                      "rpId": "localhost"})  # fmt: skip
    assert "used already" in by_passkey(world, second).json["detail"]
    api = session(world, by_passkey(world, key.get(request_options(world))), "amy")
    assert "used already" in api.post("/auth/second-factor", {"passkey": response}).json["detail"]


def test_of_two_same_assertions_at_once_one_is_taken(world: World, amy: Person, other_node: World) -> None:
    response = amy.with_passkey(counts=False).get(request_options(world))
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda node: by_passkey(node, response), [world, other_node] * 3))
    assert sorted(each.status_code for each in answers) == [200, *[401] * 5]


def test_a_challenge_is_over_after_five_minutes(world: World, amy: Person, clock: SteeredClock) -> None:
    key = amy.with_passkey()
    early, late = request_options(world), request_options(world)
    clock.advance(seconds=299)
    assert by_passkey(world, key.get(early)).status_code == 200
    clock.advance(seconds=1)
    refused = by_passkey(world, key.get(late))
    assert (refused.status_code, "five minutes" in refused.json["detail"]) == (401, True)
    ahead = request_options(world)
    clock.advance(minutes=-5, seconds=-1)
    assert by_passkey(world, key.get(ahead)).status_code == 401


def test_no_bit_of_a_challenge_can_be_changed(shared_world: World, someone: Person) -> None:
    key, options = someone.with_passkey(), request_options(shared_world)
    challenge = unb64url(options["challenge"])
    for at in range(0, len(challenge) * 8, 7):
        changed = bytearray(challenge)
        changed[at // 8] ^= 1 << at % 8
        response = key.get({**options, "challenge": b64url(bytes(changed))})
        assert "not one of this service" in by_passkey(shared_world, response).json["detail"]
    assert by_passkey(shared_world, key.get(options)).status_code == 200


def test_a_challenge_is_for_one_thing(world: World, amy: Person) -> None:
    bob = Person.of(world, "bob")
    key = amy.with_passkey()
    of_creation = {**request_options(world), "challenge": amy.creation()["challenge"]}
    assert by_passkey(world, key.get(of_creation)).status_code == 401
    for challenge in (request_options(world)["challenge"], bob.creation()["challenge"]):
        refused = amy.add(Authenticator(), {**amy.creation(), "challenge": challenge})
        assert (refused.status_code, "challenge" in refused.json["detail"]) == (422, True)


def test_a_counter_that_goes_back_is_refused_and_said(
    world: World, amy: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    key = amy.with_passkey(sign_count=7)
    assert by_passkey(world, key.get(request_options(world))).status_code == 200
    for count in (7, 3, -1):
        key.sign_count = count
        refused = by_passkey(world, key.get(request_options(world)))
        assert (refused.status_code, kind_of(refused)) == (403, "passkey-cloned")
    key.sign_count = 7
    api = amy.api
    assert kind_of(api.post("/auth/second-factor", {"passkey": key.get(request_options(world))})) == "passkey-cloned"
    found = [each for each in entries(world, "issue_token") if each["outcome"] == "passkey-cloned"]
    (passkey,) = api.get(amy.path).json["items"]
    assert {each["credential"] for each in found} == {f"passkey:{passkey['passkey_id']}"}
    assert len(found) == 3
    assert "may have been copied" in capsys.readouterr().out
    key.sign_count = 8
    assert by_passkey(world, key.get(request_options(world))).status_code == 200  # refusals did not move the count


def test_a_passkey_without_a_counter_is_taken(shared_world: World, someone: Person) -> None:
    key = someone.with_passkey(counts=False)
    for _ in range(2):
        assert by_passkey(shared_world, key.get(request_options(shared_world))).status_code == 200


def test_a_passkey_of_one_device_does_not_become_one_of_several(shared_world: World, someone: Person) -> None:
    key = someone.with_passkey()
    key.flags |= BACKUP_ELIGIBLE
    assert kind_of(by_passkey(shared_world, key.get(request_options(shared_world)))) == "passkey-cloned"
    synced = someone.with_passkey(flags=FLAGS | BACKUP_ELIGIBLE)
    synced.flags |= BACKED_UP
    assert by_passkey(shared_world, synced.get(request_options(shared_world))).status_code == 200


def test_guessing_is_locked_out_together_with_codes(world: World, amy: Person, clock: SteeredClock) -> None:
    key = amy.with_passkey()
    right, wrong = key.key, ec.generate_private_key(ec.SECP256R1())
    key.key = wrong
    for _ in range(3):
        assert by_passkey(world, key.get(request_options(world))).status_code == 401
    for _ in range(2):
        assert amy.login("12345").status_code == 401
    confirmed = amy.api.post("/auth/second-factor", {"passkey": key.get(request_options(world))})
    assert confirmed.status_code == 401
    key.key = right
    assert kind_of(by_passkey(world, key.get(request_options(world)))) == "rate-limited"
    assert kind_of(amy.login()) == "rate-limited"
    clock.advance(seconds=2)
    assert by_passkey(world, key.get(request_options(world))).status_code == 200


def test_a_passkey_that_is_not_there_is_counted_by_itself(world: World, amy: Person) -> None:
    unknown, key = Authenticator(user_handle=b"x" * 32), amy.with_passkey()
    for _ in range(6):
        assert kind_of(by_passkey(world, unknown.get(request_options(world)))) == "authentication-failed"
    assert kind_of(by_passkey(world, unknown.get(request_options(world)))) == "rate-limited"
    assert by_passkey(world, key.get(request_options(world))).status_code == 200


@pytest.mark.parametrize("how", ["passkey", "credentials", "client", "disabled", "secret"])
def test_the_end_of_a_passkey_ends_its_sessions_on_every_node(
    world: World, amy: Person, other_node: World, how: str
) -> None:
    key = amy.with_passkey()
    here = session(world, by_passkey(world, key.get(request_options(world))), "amy")
    elsewhere = Api(other_node.http, here.headers, "amy")
    access = here.post("/api/v1/access-keys", {}).json
    child = child_of(world, here)
    assert elsewhere.get("/api/v1/keys").status_code == 200
    (passkey,) = here.get(amy.path).json["items"]
    admin = world.login("admin", Role.ADMIN)
    end = {
        "passkey": lambda: amy.api.delete(f"{amy.path}/{passkey['passkey_id']}"),
        "credentials": lambda: admin.delete("/api/v1/clients/amy/credentials"),
        "client": lambda: admin.delete("/api/v1/clients/amy"),
        "disabled": lambda: admin.post("/api/v1/clients/amy/disable"),
        "secret": lambda: amy.api.post("/api/v1/clients/amy/rotate-secret", {}),
    }[how]
    assert end().status_code == 200
    for api in (here, elsewhere, child):
        assert api.get("/api/v1/keys").status_code == 401
    with pytest.raises(AuthenticationFailed):
        other_node.service.programs.by_access_key(access["access_key_id"], access["secret_access_key"], "192.0.2.1")
    assert by_passkey(other_node, key.get(request_options(world))).status_code == (200 if how == "secret" else 401)
    if how == "passkey":
        assert amy.api.get("/api/v1/keys").status_code == 200
    with world.service.vault.read() as snapshot:
        left = snapshot.matching(Passkey, client_id="amy")
    assert bool(left) == (how in {"disabled", "secret"})


def test_a_session_is_made_by_nobody_who_was_ended_meanwhile(world: World, amy: Person) -> None:
    key = amy.with_passkey()
    response = msgspec.convert(key.get(request_options(world)), AuthenticationResponse)
    caller = world.service.passkeys.authenticate(response, "192.0.2.1")
    (passkey,) = amy.api.get(amy.path).json["items"]
    amy.api.delete(f"{amy.path}/{passkey['passkey_id']}")
    with pytest.raises(AuthenticationFailed), world.service.change(Call("x", "192.0.2.1", "0", caller)):
        pass


def test_only_the_client_itself_adds_a_passkey(world: World, amy: Person, clock: SteeredClock) -> None:
    boss = Person.of(world, "boss", Role.ADMIN)
    made = Authenticator().create(amy.creation())
    body = {"name": "x", "response": made}
    program = world.login("amy", Role.USER)  # without a second factor
    narrow = child_of(world, amy.api, scope="sessions:manage")
    for api, kind in (
        (boss.api, "permission-denied"),
        (narrow, "permission-denied"),
        (program, "insufficient-user-authentication"),
    ):
        assert kind_of(api.post(amy.path, body)) == kind
        assert kind_of(api.post(f"{amy.path}/options", {})) == kind
    nobody = boss.api.post("/api/v1/clients/nobody/passkeys/options", {})
    assert nobody.status_code == 403
    clock.advance(minutes=4)
    assert amy.creation()
    clock.advance(minutes=1)
    assert kind_of(amy.api.post(amy.path, body)) == "insufficient-user-authentication"
    assert amy.api.post("/auth/second-factor", {"code": amy.code}).status_code == 200
    assert amy.add(Authenticator()).status_code == 201


def test_administrators_list_and_end_passkeys_and_others_do_not(world: World, amy: Person) -> None:
    amy.with_passkey()
    bob = Person.of(world, "bob")
    (passkey,) = amy.api.get(amy.path).json["items"]
    path = f"{amy.path}/{passkey['passkey_id']}"
    assert bob.api.get(amy.path).status_code == 403
    assert bob.api.delete(path).status_code == 403
    assert bob.api.delete(path.replace("amy", "bob")).status_code == 404
    admin = world.login("admin", Role.ADMIN)
    assert admin.get(amy.path).json["items"] == [passkey]
    assert admin.delete(path).json == passkey
    assert admin.delete(path).status_code == 404


def test_a_passkey_is_of_one_client(world: World, amy: Person) -> None:
    key = amy.with_passkey()
    bob = Person.of(world, "bob")
    stolen = Authenticator(key=key.key, credential_id=key.credential_id)
    assert kind_of(bob.add(stolen)) == "already-exists"
    assert kind_of(amy.add(Authenticator(credential_id=key.credential_id))) == "already-exists"
    own = bob.with_passkey()
    api = session(world, by_passkey(world, own.get(request_options(world))), "bob")
    refused = api.post("/auth/second-factor", {"passkey": key.get(request_options(world))})
    assert (kind_of(refused), refused.json["detail"]) == ("authentication-failed", callers.FAILED)
    own.user_handle = key.user_handle
    assert by_passkey(world, own.get(request_options(world))).status_code == 401


def test_a_client_has_twenty_passkeys_at_the_most(world: World, amy: Person) -> None:
    for _ in range(20):
        amy.with_passkey()
    assert kind_of(amy.add(Authenticator())) == "conflict"


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "https://evil.example"},
        {"rp_id": "evil.example"},
        {"flags": USER_PRESENT},
        {"flags": USER_VERIFIED},
        {"flags": FLAGS | BACKED_UP},
        {"client_data": {"type": "webauthn.get"}},
        {"client_data": {"crossOrigin": True}},
        {"client_data": {"challenge": b64url(bytes(56))}},
        {"credential_id": b"short"},
        {"credential_id": b"x" * 1024},
        {"key": "P-384"},
        {"key": "RSA-2048"},
        {"alg": RS256, "key": "P-256"},
        {"alg": RS256, "key": "RSA-1024"},
        {"alg": -37, "key": "RSA-2048"},
        {"attestation": "fido-u2f"},
        {"attestation": "tpm"},
        {"attestation": "nonsense"},
    ],
    ids=str,
)
def test_what_is_wrong_about_a_new_passkey(someone: Person, wrong: dict[str, Any]) -> None:
    refused = someone.add(Authenticator(**with_key(wrong)))
    assert (refused.status_code, kind_of(refused)) == (422, "validation-failed"), refused.text
    assert someone.api.get(someone.path).json["items"] == []


def test_a_new_passkey_may_vouch_for_itself(shared_world: World, someone: Person) -> None:
    key = someone.with_passkey(attestation="packed")
    assert by_passkey(shared_world, key.get(request_options(shared_world))).status_code == 200


def test_creation_options_work_once(world: World, amy: Person, clock: SteeredClock) -> None:
    options = amy.creation()
    assert amy.add(Authenticator(), options).status_code == 201
    assert "used already" in amy.add(Authenticator(), options).json["detail"]
    late = amy.creation()
    clock.advance(minutes=5)
    assert amy.api.post("/auth/second-factor", {"code": amy.code}).status_code == 200
    assert "five minutes" in amy.add(Authenticator(), late).json["detail"]


def test_the_credential_must_be_the_one_that_is_attested(someone: Person) -> None:
    made = Authenticator().create(someone.creation())
    made["id"] = made["rawId"] = b64url(b"of another, longer")
    assert someone.api.post(someone.path, {"name": "x", "response": made}).status_code == 422


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\x00", 7, None])
def test_a_name_is_one_line(someone: Person, name: Any) -> None:
    made = Authenticator().create(someone.creation())
    assert someone.api.post(someone.path, {"name": name, "response": made}).status_code == 422


LAUGHS = b"\x98\x28\xd8\x1c\x80" + b"".join(
    b"\xd8\x1c\x82" + b"".join([b"\xd8\x1d\x18" + bytes([number])] * 2) for number in range(39)
)
"""A list of 40 lists, each of which has the one before it in it twice, by the tags for shared values."""

JUNK = st.one_of(
    st.binary(max_size=200),
    st.just(LAUGHS),
    st.sampled_from([
        b"\xbf", b"\x9b" + b"\xff" * 8, b"\x5b" + b"\x7f" * 8, b"\x81" * 20_000, b"\xd8\x1d\x00", b"\xa1" * 5000,
        b"\x04" + b"\x01" * 64, b"\xc2\x5a\x00\x00\x20\x00", b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    ]),
)  # fmt: skip


EXTENSIONS = 0x80


@pytest.mark.parametrize(
    "extensions",
    [LAUGHS, b"\xa1\x61x" + LAUGHS, b"\xd8\x1c\x80", b"\x81" * 5 + b"\x80", b"\xbf\xff", b"\xa0\xa0", b""],
)
def test_no_cbor_unfolds(shared_world: World, someone: Person, extensions: bytes) -> None:
    """It would keep every other change waiting until the end of memory."""
    key = someone.with_passkey()
    key.flags, key.extensions = FLAGS | EXTENSIONS, extensions
    assert by_passkey(shared_world, key.get(request_options(shared_world))).json["detail"] == callers.FAILED
    refused = someone.add(Authenticator(flags=FLAGS | EXTENSIONS, extensions=extensions))
    assert kind_of(refused) == "validation-failed"


def test_extensions_that_nobody_asked_for_are_passed_over(shared_world: World, someone: Person) -> None:
    given = encode_cbor({"hmac-secret": True, "credProtect": 2, "x": {"y": [b"z", None]}})
    key = someone.with_passkey(flags=FLAGS | EXTENSIONS, extensions=given)
    assert by_passkey(shared_world, key.get(request_options(shared_world))).status_code == 200


@pytest.fixture(scope="module")
def same_person(shared_world: World) -> Person:
    return Person.of(shared_world, "same-person")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nonsense_is_refused_and_nothing_else(same_person: Person, data: st.DataObject) -> None:
    """No parser is tripped into an internal error, whatever stands where bytes may stand."""
    amy, world = same_person, same_person.world
    place = data.draw(st.sampled_from(["key", "authData", "attestationObject", "attStmt", "clientDataJSON", "get"]))
    junk = data.draw(JUNK)
    key = Authenticator()
    if place == "get":
        response = key.get(request_options(world))
        member = data.draw(st.sampled_from([*response["response"], "rawId"]))
        (response if member == "rawId" else response["response"])[member] = b64url(junk[:6000])
        assert by_passkey(world, response).status_code in {401, 422, 429}
        return
    made = key.create(amy.creation())
    attestation = parse_cbor(unb64url(made["response"]["attestationObject"]))
    if place == "key":
        attestation["authData"] = attestation["authData"][: 37 + 18 + 32] + junk
    elif place in attestation:
        attestation[place] = junk
    sent = junk if place == "attestationObject" else encode_cbor(attestation)
    made["response"]["attestationObject"] = b64url(sent[:24_000])
    if place == "clientDataJSON":
        made["response"]["clientDataJSON"] = b64url(junk)
    assert amy.api.post(amy.path, {"name": "x", "response": made}).status_code == 422


def test_wrong_requests_at_the_token_endpoint(world: World, amy: Person, clock: SteeredClock) -> None:
    response = amy.with_passkey().get(request_options(world))
    clock.advance(seconds=30)
    post = world.http.post
    assert post("/auth/token", data={"grant_type": PASSKEY_GRANT}).status_code == 422
    for text in ("", "x", "{}", "null", "[]", '"x"', "[" * 9000):
        assert post("/auth/token", data={"grant_type": PASSKEY_GRANT, "passkey": text}).status_code == 422, text
    both = post(
        "/auth/token",
        data={"passkey": json.dumps(response)},
        auth=("amy", amy.secret),
        headers={"X-TOTP": amy.code},
    )
    assert both.status_code == 422
    refused = amy.api.post("/auth/second-factor", {})
    assert (refused.status_code, "code, passkey" in refused.json["detail"]) == (422, True)
    assert amy.api.post("/auth/second-factor", {"code": "1", "passkey": response}).status_code == 422
    assert by_passkey(world, response).status_code == 200


def test_options_are_for_everybody_and_take_nothing(world: World) -> None:
    post = world.http.post
    assert post("/auth/passkey/options", json={"client_id": "admin"}).status_code == 422
    assert post("/auth/passkey/options", data=b"{" * 100, content_type="application/json").status_code == 400
    assert post("/auth/passkey/options", headers={"Authorization": "Bearer nonsense"}).status_code == 200
    assert world.http.get("/auth/passkey/options").status_code == 405
    (last, *_) = entries(world, "passkey_request_options")[-1:]
    assert (last["outcome"], last.get("client_id")) == ("success", None)


def test_options_are_rate_limited_by_source(template: Template, settings: Settings, clock: SteeredClock) -> None:
    opened = template.open(msgspec.structs.replace(settings, rate_limit_public="3/minute"), clock)
    world = World.of(opened)
    statuses = [world.http.post("/auth/passkey/options").status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    opened.close()


def test_a_service_of_another_name(template: Template, settings: Settings, clock: SteeredClock) -> None:
    opened = template.open(msgspec.structs.replace(settings, public_url="https://KMS.example.com:443/"), clock)
    world = World.of(opened)
    amy = Person.of(world, "amy")
    key = amy.with_passkey(origin="https://kms.example.com")
    options = request_options(world)
    assert options["rpId"] == "kms.example.com"
    assert by_passkey(world, key.get(options)).status_code == 200
    key.origin = "https://kms.example.com.evil.example"
    assert by_passkey(world, key.get(request_options(world))).status_code == 401
    opened.close()


def test_rows_are_the_same_on_either_database(tmp_path: Path, database_url: str, clock: SteeredClock) -> None:
    opened = Service.open(settings_for(tmp_path / "data", database_url=database_url), clock)
    world = World.of(opened)
    amy = Person.of(world, "amy")
    key = amy.with_passkey(flags=FLAGS | BACKUP_ELIGIBLE, sign_count=2**32 - 3)
    api = session(world, by_passkey(world, key.get(request_options(world))), "amy")
    (shown,) = api.get(amy.path).json["items"]
    assert shown["backup_eligible"] is True
    with opened.vault.read() as snapshot:
        (row,) = snapshot.matching(Passkey, client_id="amy")
    assert (row.sign_count, row.credential_id, row.last_used_at) == (2**32 - 2, key.credential_id, clock())
    assert wrong_tables(opened.vault) == []
    assert amy.api.delete(f"{amy.path}/{shown['passkey_id']}").status_code == 200
    assert api.get("/api/v1/keys").status_code == 401
    assert wrong_tables(opened.vault) == []
    opened.close()
