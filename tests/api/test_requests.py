"""Bad input gets a clear refusal as a problem document, never a 500, never a partial write."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from helpers.console import Browser
from helpers.support import Api, Template, World, b64
from helpers.wsgi import answer_of, signed
from kms.access.model import Role
from kms.api import openapi, requests
from kms.api.aws.request import ACTIONS
from kms.api.console.routes import ROUTES as PAGES
from kms.api.transit.routes import ROUTES
from kms.config import Settings
from kms.errors import every_refusal
from kms.keys.model import RevocationReason, ShownState, Usage
from kms.log import configure_logging
from kms.operations import OPERATIONS, Operation
from kms.vault.checking import wrong_tables


def problem(answer: Any) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json", answer.data
    document = answer.json
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["X-Request-Id"]
    assert document["type"].removeprefix("/problems/") in every_refusal()
    return answer.status_code, document["type"].removeprefix("/problems/")


def raw(api: Api, path: str, body: bytes, content_type: str | None = "application/json") -> Any:
    return api.http.post(path, data=body, content_type=content_type, headers=api.headers)


@pytest.fixture(scope="module")
def refused(shared_world: World) -> Api:
    """A client for whom no key is ever made."""
    return shared_world.user("user1")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"[]", "application/json", (400, "malformed-request")),
        (b'"text"', "application/json", (400, "malformed-request")),
        (b"null", "application/json", (400, "malformed-request")),
        (b"{", "application/json", (400, "malformed-request")),
        (b'{"client_id": \xff}', "application/json", (400, "malformed-request")),
        (b'{"client_id": "\xff"}', "application/json", (400, "malformed-request")),
        (b'{"x":' * 100_000, "application/json", (422, "validation-failed")),
        (b'{"client_id":' + b"[" * 100_000, "application/json", (422, "validation-failed")),
        (b"{}", "text/plain", (415, "unsupported-media-type")),
        (b"client_id=user1", "application/x-www-form-urlencoded", (415, "unsupported-media-type")),
        (b'{"client_id": 5}', "application/json", (422, "validation-failed")),
        (b'{"client_id": "user1", "bit": 2048}', "application/json", (422, "validation-failed")),
        (b'{"client_id": "../etc"}', "application/json", (422, "validation-failed")),
        (b'{"client_id": " user1"}', "application/json", (422, "validation-failed")),
        (b'{"client_id": "user1\\n"}', "application/json", (422, "validation-failed")),
        (b'{"bits": 1024}', "application/json", (422, "validation-failed")),
        (b'{"bits": "2048"}', "application/json", (422, "validation-failed")),
        (b"{" + b" " * (3 << 19), "application/json", (413, "too-large")),
    ],
)
def test_bodies(refused: Api, body: bytes, content_type: str, expected: tuple[int, str]) -> None:
    assert problem(raw(refused, "/generate_rsa_key", body, content_type)) == expected
    assert refused.get("/api/v1/keys").json["items"] == []


def test_the_member_is_named(world: World) -> None:
    user = world.user("user1")
    for body, member in (({"client_id": 5}, "client_id"), ({"bits": 1}, "bits"), ({"bit": 1}, "bit")):
        assert member in user.post("/generate_rsa_key", body).json["detail"]


def test_paths_and_methods(world: World) -> None:
    user = world.user("user1")
    assert problem(user.get("/nothing/here")) == (404, "not-found")
    refused = user.get("/revoke_key")
    assert problem(refused) == (405, "method-not-allowed")
    assert refused.headers["Allow"] == "POST"
    assert user.get("/api/v1/clients/user1/passkeys/options").headers["Allow"] == "POST"  # and no DELETE of a passkey
    assert problem(user.post("/api/v1/keys/%2e%2e/sign", {"message": ""}))[0] in (404, 405)
    assert problem(user.get("/api/v1/keys?limit=0")) == (422, "validation-failed")
    assert problem(user.get("/api/v1/keys?limit=x")) == (422, "validation-failed")
    assert problem(user.get("/api/v1/keys?colour=red")) == (422, "validation-failed")


def test_before_proof_nothing_of_the_body_is_read(world: World) -> None:
    class Untouchable:
        def read(self, *_: int) -> bytes:
            raise AssertionError("the body was read")

        readline = readlines = __iter__ = read

    for operation in OPERATIONS.values():
        if operation.is_token_endpoint or operation.is_public:
            continue  # its body may hold the proof, and is read within limits (test_late_bodies)
        path = operation.path.replace("<int:version>", "1").replace("<", "").replace(">", "")
        answer = world.http.open(
            path,
            method=operation.method,
            environ_overrides={"wsgi.input": Untouchable(), "CONTENT_LENGTH": "100"},
            content_type="application/json",
        )
        assert problem(answer) == (401, "authentication-failed")


def test_every_answer_has_the_headers(world: World) -> None:
    user = world.user("user1")
    for answer in (
        user.get("/api/v1/keys"),
        user.get("/nothing"),
        world.http.get("/livez"),
        world.http.get("/metrics"),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert len(answer.headers["X-Request-Id"]) == 16
        assert "Strict-Transport-Security" not in answer.headers
    elsewhere = world.http.get("/livez", headers={"Host": "kms.example.org"})
    assert "max-age" in elsewhere.headers["Strict-Transport-Security"]


def test_every_problem_type_has_a_page(world: World) -> None:
    for name in every_refusal():
        page = world.http.get(f"/problems/{name}")
        assert page.status_code == 200
        assert len(page.get_data(as_text=True)) > 60
    assert problem(world.http.get("/problems/none")) == (404, "not-found")


CANARY = "CANARY-kms-secret-zzzz"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
members = st.sampled_from(
    sorted({field.encode_name for op in OPERATIONS.values() for field in msgspec.structs.fields(op.request)})
)


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([name for name, op in OPERATIONS.items() if op.method in ("POST", "PATCH")]),
    body=st.dictionaries(members, values | st.sampled_from(["user1", "user1_symmetric", "AAAA", "P1D"]), max_size=4),
    target=st.sampled_from(["user1", "user1_symmetric", "admin", "%00", "ünïcode", "x" * 300]),
)
def test_no_json_makes_it_fail(world: World, name: str, body: dict[str, Any], target: str) -> None:
    if name in {"disable_client", "delete_client", "end_session"}:
        return
    operation = OPERATIONS[name]
    try:
        caller = world.user("user1")
    except Exception:  # noqa: BLE001  # it is there from the example before
        caller = world.login("user1", Role.USER)
    path = re.sub("<int:version>", "1", operation.path)
    path = re.sub("<[a-z_]+>", lambda _: target, path)
    answer = caller.http.open(path, method=operation.method, json=body, headers=caller.headers)
    assert answer.status_code < 500, (path, body, answer.data)
    if answer.status_code >= 400:
        problem(answer)
    assert wrong_tables(world.service.vault) == []


@pytest.fixture
def logged(settings: Settings, capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    """What is written where the service logs as it does when it was started."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(settings)
    yield capfd
    # What logs after this test would otherwise write to a stream that was closed with it.
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("own_metric_files")
def test_secrets_reach_no_log_no_audit_and_no_metric(world: World, logged: pytest.CaptureFixture[str]) -> None:
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    for operation in OPERATIONS.values():
        path = operation.path.replace("<key_id>", "user1_symmetric").replace("<int:version>", "1")
        path = re.sub("<[a-z_]+>", CANARY, path)
        names = [field.encode_name for field in msgspec.structs.fields(operation.request)] + [CANARY]
        if operation.name in {"create_key", "create_external_key"}:
            names.remove("key_id")  # a key's name is no secret
        bodies: list[Any] = [{name: CANARY} for name in names] + [{name: {CANARY: CANARY} for name in names}]
        if operation.name in {"end_session", "set_alias"}:
            continue
        for body in bodies:
            for headers in (user.headers, {"Authorization": f"Bearer {CANARY}"}, {"X-Vault-Token": CANARY}):
                extra = {**headers, "X-Request-Id": CANARY, "X-TOTP": CANARY, "Cookie": CANARY, "Referer": CANARY}
                world.http.open(f"{path}?{CANARY}={CANARY}", method=operation.method, json=body, headers=extra)
        world.http.open(path, method=operation.method, data=CANARY + "{", headers=user.headers)
        basic = {"Authorization": "Basic " + b64(f"{CANARY}:{CANARY}".encode()), "X-Recovery-Code": CANARY}
        world.http.open(path, method=operation.method, headers=basic)
    world.http.get(f"/{CANARY}")
    plaintext = b64(b"plaintext " + CANARY.encode())
    user.post("/api/v1/keys/user1_symmetric/encrypt", {"plaintext": plaintext})
    token = user.headers["Authorization"].removeprefix("Bearer ")
    written = "".join(logged.readouterr())
    audit = b"".join(path.read_bytes() for path in world.service.settings.spool_dir.iterdir()).decode()
    entries = json.dumps(world.admin.get("/api/v1/audit/entries?limit=10000").json)
    exposed = world.admin.get("/metrics").get_data(as_text=True)
    assert "issue_token" in written
    assert "issue_token" in audit
    assert 'kms_requests_total{operation="issue_token"' in exposed
    for place in (written, audit, exposed, entries):
        for secret in (CANARY, token, plaintext):
            assert secret not in place


NAMES_A_KEY = {"KeyId", "TargetKeyId", "SourceKeyId", "DestinationKeyId", "AliasName", "AccessKeyId"}
"""What is no secret: the names by which the audit log tells what was asked for."""


@pytest.mark.usefixtures("own_metric_files")
def test_secrets_at_the_dialects_and_the_console_reach_none_of_them(
    template: Template, settings: Settings, logged: pytest.CaptureFixture[str]
) -> None:
    service = template.open(msgspec.structs.replace(settings, rate_limit="off"))
    world = World.of(service)
    user = world.user("user1")
    user.post("/generate_symmetric_key")
    access = user.post("/api/v1/access-keys", {}).json
    token = user.headers["Authorization"].removeprefix("Bearer ")
    headers = {f"HTTP_{name}": CANARY for name in ("COOKIE", "REFERER", "USER_AGENT", "X_REQUEST_ID", "X_TOTP")}
    for action in ACTIONS.values():
        names = [field.encode_name for field in msgspec.structs.fields(action.input)]
        named = {"KeyId": "user1_symmetric"} if "KeyId" in names else {}
        for name in {*names, CANARY} - NAMES_A_KEY:
            for value in (CANARY, b64(CANARY.encode()), [{CANARY: CANARY}]):
                body = json.dumps({**named, name: value}).encode()
                answer_of(world, headers | signed(access, world.service.clock, action.name, body), body)
        for wrong in (CANARY.encode(), b"{" + CANARY.encode()):
            answer_of(world, headers | signed(access, world.service.clock, action.name, wrong), wrong)
        unsigned = signed(access, world.service.clock, action.name, b"") | {"HTTP_X_AMZ_SECURITY_TOKEN": CANARY}
        for proof in (f"AWS4-HMAC-SHA256 Credential={CANARY}", f"Bearer {CANARY}", CANARY):
            for query in ("", CANARY):
                given_proof = {"HTTP_AUTHORIZATION": proof, "QUERY_STRING": query}
                answer_of(world, headers | unsigned | given_proof, CANARY.encode())
    for route in ROUTES:
        path = route.pattern.pattern.replace("~", "transit").replace("/?", "")
        path = path.replace("(?P<name>[^/]+)", "user1_symmetric").replace("(?P<destination>[^/]+)", "user1_symmetric")
        path = re.sub(r"\(\?P<\w+>\[\^/\]\+\)", CANARY, path)
        environ = headers | {"REQUEST_METHOD": route.methods[0], "PATH_INFO": f"/v1/{path}"}
        environ["QUERY_STRING"] = f"{CANARY}={CANARY}"
        for name in (*route.body.__struct_encode_fields__, CANARY):
            for value in (CANARY, b64(CANARY.encode()), [{name: CANARY}]):
                if route.function.__name__ not in {"revoke_self", "delete"}:
                    body = json.dumps({name: value}).encode()
                    answer_of(world, environ | {"HTTP_X_VAULT_TOKEN": token}, body)
        for given_token in (token, CANARY):
            answer_of(world, environ | {"HTTP_X_VAULT_TOKEN": given_token}, b"{" + CANARY.encode())
    for member in ("Action", "RoleArn", "WebIdentityToken", "TokenCode", "SerialNumber", CANARY):
        form = urlencode({"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", member: CANARY}).encode()
        sent = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_TYPE": "application/x-www-form-urlencoded"}
        answer_of(world, headers | sent, form)
    fields = {"client_secret", "code", "recovery_code", "passkey", "passphrase", "public_key", "csrf", "description"}
    for page in PAGES:
        path = page.path.replace("<key_id>", "user1_symmetric").replace("<int:version>", "1")
        path = re.sub("<[^>]+>", "user1", path)
        if page.method == "POST" and "delete" not in path and "disable" not in path:
            browser = Browser.as_client(world, "user1", Role.USER)  # some of them end the session
            browser.post(path, dict.fromkeys(fields, CANARY), csrf=None)
            browser.post(path, dict.fromkeys(fields - {"csrf"}, CANARY))
    Browser.of(world).post("/login", {"client_id": "user1", **dict.fromkeys(fields, CANARY)}, csrf=None)
    written = "".join(logged.readouterr())
    audit = b"".join(path.read_bytes() for path in world.service.settings.spool_dir.iterdir()).decode()
    entries = json.dumps(world.admin.get("/api/v1/audit/entries?limit=10000").json)
    exposed = world.admin.get("/metrics").get_data(as_text=True)
    for place, operation in (
        (written, "console:save_key"), (audit, "aws:Encrypt"), (audit, "transit:encrypt"), (audit, "sts"),
        (entries, "certificate_request"), (exposed, 'operation="aws:Encrypt"'),
    ):  # fmt: skip
        assert operation in place
    for place in (written, audit, entries, exposed):
        for secret in (CANARY, b64(CANARY.encode()), token, access["secret_access_key"]):
            assert secret not in place
    service.close()


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/revoke_key", {}, "key_id: this member is needed and is not there."),
        ("/revoke_key", None, "key_id: this member is needed and is not there."),
        ("/generate_ecc_key", {"curve": "P-1"}, "curve: must be one of P-256, P-384, P-521, secp256k1."),
        (
            "/revoke_key",
            {"key_id": "x", "reason": "bored"},
            f"reason: must be one of {', '.join(RevocationReason)}.",
        ),
        ("/api/v1/keys", {"usages": ["sign", "fly"]}, f"usages[1]: must be one of {', '.join(Usage)}."),
        (
            "/api/v1/keys/x/sign",
            {"message": "", "signature_format": "x"},
            "signature_format: must be one of der, p1363.",
        ),
        (
            "/api/v1/keys/x/derive",
            {"context": "", "keep_as": {"type": "aes-256-gcm", "usages": ["x"]}},
            f"keep_as.usages[0]: must be one of {', '.join(Usage)}.",
        ),
    ],
)
def test_a_refusal_says_what_is_missing_and_which_values_there_are(
    refused: Api, path: str, body: Any, detail: str
) -> None:
    answer = refused.post(path, body)
    assert problem(answer) == (422, "validation-failed")
    assert answer.json["detail"] == detail


def test_a_refusal_in_a_query_and_in_a_batch_lists_the_values_too(refused: Api) -> None:
    asked = refused.get("/api/v1/keys?state=asleep").json["detail"]
    assert asked == f"state: must be one of {', '.join(ShownState)}."
    batch = {"items": [{"message": "", "signature_format": "x"}]}
    refused.post("/api/v1/keys", {"type": "ec-p256", "key_id": "in-a-batch"})
    (item,) = refused.post("/api/v1/keys/in-a-batch/sign", batch).json["items"]
    assert item["error"]["detail"] == "signature_format: must be one of der, p1363."


def test_every_closed_set_of_every_request_is_listed() -> None:
    """Whatever an operation takes one of, a refusal of another value names them all."""
    for operation in OPERATIONS.values():
        for field in msgspec.inspect.type_info(operation.request).fields:  # type: ignore[attr-defined]
            closed = [
                each
                for each in requests.alternatives(field.type)
                if isinstance(each, (msgspec.inspect.EnumType, msgspec.inspect.LiteralType))
            ]
            if not closed:
                continue
            wrong = 7 if field.name == "bits" else "no such"
            with pytest.raises(msgspec.ValidationError, match="Invalid enum value") as raised:
                msgspec.convert({**_others(operation, field.name), field.name: wrong}, operation.request)
            detail = requests._invalid(raised.value, operation.request).detail
            assert detail.startswith(f"{field.name}: must be one of "), detail
            assert "no such" not in detail


def _others(operation: Operation, name: str) -> dict[str, Any]:
    """The other members that an operation needs, as its example has them."""
    example = openapi.example_of(operation) or {}
    return {member: value for member, value in example.items() if member != name}
