"""Whatever is sent to the doors of the dialects, they answer, and never with a fault of their own."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape

from helpers.support import Api, SteeredClock, Template, World, b64, settings_for
from helpers.wsgi import answer_of, signed
from kms.api.aws.request import ACTIONS
from kms.api.transit.routes import ROUTES
from kms.operations import Service
from kms.operations.system.schedule import remove_old_rows

ODD: list[Any] = [
    None, True, 0, -1, 2**70, 1.5, "", "x", "\0", "é", "x" * 3000, "AAAA", [], [None], ["x"], {}, {"x": "y"},
    {"": None}, "alias/x", "alias/", "arn:aws:kms:us-east-1:000000000000:key/k", "arn:aws:kms:::", "vault:v1:AAAA",
    "vault:v9:AAAA", [{}], [{"TagKey": "a", "TagValue": "b"}], [[[[]]]],
]  # fmt: skip


KEYS: dict[str, dict[str, Any]] = {
    "k": {}, "rsa": {"type": "rsa-2048"}, "ec": {"type": "ec-p256"}, "agree": {"type": "x25519"},
    "mac": {"type": "hmac-sha256"}, "kem": {"type": "ml-kem-768"}, "wrap": {"type": "aes-256-kwp"},
    "gcm": {"type": "aes-256-gcm", "exportable": True}, "siv": {"type": "aes-256-siv"}, "ed": {"type": "ed448"},
}  # fmt: skip


@pytest.fixture(scope="module")
def template(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A vault with a client and her keys. Each test has a copy of it, since each may change or delete them all."""
    made = Template(tmp_path_factory.mktemp("template") / "data")
    service = template.open(settings_for(made.folder))
    alice = World.of(service).user("alice")
    for key_id, body in KEYS.items():
        assert alice.post("/api/v1/keys", {"key_id": key_id, **body}).status_code == 201
    service.close()
    return made


@pytest.fixture
def alice(world: World) -> Api:
    return world.login("alice")


def drawn(chance: random.Random, shape: Shape) -> Any:
    """A value of that shape, now and then one that is not."""
    if chance.random() < 0.1:
        return chance.choice(ODD)
    kind = shape.type_name
    if kind == "structure":
        required = set(shape.required_members)  # type: ignore[attr-defined]
        members = shape.members.items()  # type: ignore[attr-defined]
        return {name: drawn(chance, each) for name, each in members if name in required or chance.random() < 0.3}
    if kind == "list":
        return [drawn(chance, shape.member) for _ in range(chance.randint(0, 3))]  # type: ignore[attr-defined]
    if kind == "map":
        return {chance.choice(["a", "b", ""]): chance.choice(["1", ""]) for _ in range(chance.randint(0, 2))}
    if kind == "blob":
        return b64(chance.randbytes(chance.choice([0, 1, 16, 32, 64, 256, 4096, 5000])))
    if kind in ("integer", "long"):
        return chance.choice([0, 1, 7, 32, 90, 1000, 5000])
    if kind == "boolean":
        return chance.random() < 0.3
    if kind == "timestamp":
        return datetime.now(UTC).timestamp()
    if shape.enum:  # type: ignore[attr-defined]
        return chance.choice(shape.enum)  # type: ignore[attr-defined]
    if shape.name in ("KeyIdType", "PrincipalIdType"):
        return chance.choice([*KEYS, "nothing", "alias/a"])
    return chance.choice(["alias/a", "default", "x", "us-east-1", '{"Statement": []}'])


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_aws_requests_drawn_from_the_model(world: World, alice: Api, clock: SteeredClock, name: str) -> None:
    access = alice.post("/api/v1/access-keys", {}).json
    model = botocore.session.get_session().get_service_model("kms").operation_model(name)
    chance = random.Random(name)  # the same requests every time
    slow = name.startswith(("CreateKey", "GenerateDataKeyPair", "Rotate", "Enable", "Disable", "Put", "Tag", "Untag"))
    for _ in range(15 if slow else 50):
        body = json.dumps(drawn(chance, model.input_shape)).encode()
        status, content = answer_of(world, signed(access, clock, name, body), body)
        if status == 503:  # a lease that ended for want of processor time; refusing is always right
            continue
        assert status in (200, 400), (body, status, content)
        if status != 200:
            told = json.loads(content)
            assert set(told) <= {"__type", "message"}
            assert told["__type"]
            assert told.get("message", "absent")
    for garbage in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 5000, b'{"KeyId": ' + b"1" * 5000 + b"}"):
        status, content = answer_of(world, signed(access, clock, name, garbage), garbage)
        assert status in (200, 400, 503), (garbage, status, content)


def test_an_aws_body_in_chunks_is_read_or_refused(world: World, alice: Api, clock: SteeredClock) -> None:
    access = alice.post("/api/v1/access-keys", {}).json

    def sent(body: bytes, **how: Any) -> tuple[int, dict[str, Any]]:
        environ = {**signed(access, clock, "CreateKey", body), "CONTENT_LENGTH": None}
        status, content = answer_of(world, {**environ, "HTTP_TRANSFER_ENCODING": "chunked", **how}, body)
        return status, json.loads(content)

    ends_by_itself = {"wsgi.input_terminated": True}
    status, made = sent(b'{"Description": "in chunks"}', **ends_by_itself)
    assert (status, made["KeyMetadata"]["Description"]) == (200, "in chunks")
    limit = world.service.settings.max_body_bytes
    status, refused = sent(b"x" * (limit + 1), **ends_by_itself)
    assert (status, refused["__type"]) == (413, "RequestEntityTooLargeException")
    for body in (b'{"Description": "in chunks"}', b""):
        assert sent(body)[0] == 411


def test_an_access_key_that_has_ended_is_told_so_to_who_holds_its_session_token(
    world: World, alice: Api, clock: SteeredClock
) -> None:
    def refusal(access: dict[str, Any]) -> str:
        status, content = answer_of(world, signed(access, clock, "ListKeys", b"{}"), b"{}")
        return str(json.loads(content)["__type"]) if status != 200 else ""

    lasting = alice.post("/api/v1/access-keys", {"expires_in": 3600}).json
    with_token = alice.post("/api/v1/access-keys", {"expires_in": 3600, "with_session_token": True}).json
    assert refusal(lasting) == refusal(with_token) == ""
    clock.advance(hours=2)
    for _ in range(2):
        assert refusal(with_token) == "ExpiredTokenException"
        assert refusal(lasting) == "UnrecognizedClientException"
        assert refusal({**with_token, "session_token": "x"}) == "UnrecognizedClientException"
        assert refusal({**with_token, "session_token": ""}) == "UnrecognizedClientException"
        remove_old_rows(world.service, clock())
    clock.advance(days=2)
    remove_old_rows(world.service, clock())
    assert refusal(with_token) == "UnrecognizedClientException"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.function.__name__ + "-" + route.methods[0])
def test_transit_requests_of_every_kind(world: World, alice: Api, route: Any) -> None:
    chance = random.Random(route.pattern.pattern)
    members = route.body.__struct_encode_fields__
    if route.function.__name__ == "revoke_self":
        members = ()
    for _ in range(15):
        path = route.pattern.pattern.replace("~", "transit").replace("/?", "")
        for part in (
            "name",
            "kind",
            "hash_name",
            "length",
            "source",
            "version",
            "client_id",
            "mount",
            "destination",
            "rest",
        ):
            choices = {
                "name": ["k", "rsa", "ec", "mac", "gcm", "siv", "ed", "wrap", "nothing", "\u00e9", "a b", "\0"],
                "kind": ["plaintext", "wrapped", "encryption-key", "signing-key", "hmac-key", "public-key", "x"],
                "hash_name": ["sha2-256", "sha2-512", "sha3-256", "x"],
                "length": ["1", "0", "-1", "70000", "x", "²"],
                "version": ["1", "latest", "9", "²", "x"],
                "destination": ["rsa", "k", "nothing", "\0"],
                "mount": ["x", "transit", "team1", "sys", "a.b", "\u00e9", "\0"],
            }.get(part, ["x"])
            path = path.replace(f"(?P<{part}>[^/]+)", chance.choice(choices))
        values = [*ODD, b64(b"x"), "sha2-256", 1, 2, "1"]
        body = {name: chance.choice(values) for name in members if chance.random() < 0.6}
        if "batch_input" in members and chance.random() < 0.5:
            body["batch_input"] = [
                {"plaintext": "AAAA", "ciphertext": "vault:v1:AAAA", "input": "AAAA", "signature": "vault:v1:AAAA"}
                | ({"associated_data": chance.choice(ODD)} if chance.random() < 0.3 else {})
                for _ in range(3)
            ]
        content = json.dumps(body).encode()
        environ = {
            "REQUEST_METHOD": route.methods[0],
            "PATH_INFO": "/v1/" + path.encode().decode("latin-1"),
            "HTTP_X_VAULT_TOKEN": alice.headers["Authorization"].removeprefix("Bearer "),
        }
        status, answer = answer_of(world, environ, content)
        assert status not in (500, 502), (path, content, status, answer)


def test_only_the_dialects_own_requests_are_theirs(world: World, service: Service) -> None:
    for environ, status in (
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/"}, 404),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_AMZ_TARGET": "TrentService.ListKeys"}, 404),
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "HTTP_X_AMZ_TARGET": "DynamoDB_20120810.ListTables"}, 404),
        ({"REQUEST_METHOD": "POST", "PATH_INFO": "/", "HTTP_X_AMZ_TARGET": "TrentService.ListKeys"}, 400),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/v1"}, 404),
        ({"REQUEST_METHOD": "GET", "PATH_INFO": "/v1/"}, 403),
    ):
        assert answer_of(world, environ, b"")[0] == status, environ
