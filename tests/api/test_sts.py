"""AWS's Security Token Service, asked by an unmodified boto3: keys for platform tokens and for second factors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pyotp
import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from helpers.aws_in_process import client
from helpers.support import Api, SteeredClock, Template, World, settings_for
from helpers.tokens import PlatformIssuer
from helpers.wsgi import answer_of, called, environ_of, signed
from kms.access.model import Role
from kms.operations.accounts import access_keys as access_keys_of_clients

ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
SUBJECT = "system:serviceaccount:prod:pay"


def refusal(call: Callable[..., Any], **given: Any) -> tuple[str, str]:
    """The code and the sentence of what is refused."""
    with pytest.raises(ClientError) as refused:
        call(**given)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def checked(sts: Any, name: str, **given: Any) -> Any:
    """An answer that is as botocore's model has it."""
    answer = getattr(sts, name)(**given)
    assert answer.pop("ResponseMetadata")["RequestId"]
    shape = sts.meta.service_model.operation_model(sts.meta.method_to_api_mapping[name]).output_shape
    assert not ParamValidator().validate(answer, shape).has_errors()
    return answer


class Person:
    """A client with an authenticator app and access keys."""

    def __init__(self, world: World, clock: SteeredClock, client_id: str, *roles: Role) -> None:
        self.world, self.clock, self.client_id = world, clock, client_id
        self.totp = pyotp.TOTP(world.enrol(client_id, *roles).totp_secret)
        self.api = world.login(client_id, *roles)

    def code(self) -> str:
        """A code that was not used: of the next thirty seconds."""
        self.clock.advance(seconds=30)
        return self.totp.at(self.clock())

    @property
    def serial(self) -> str:
        return f"arn:aws:iam::{ACCOUNT}:mfa/{self.client_id}"

    def key(self, **given: Any) -> dict[str, Any]:
        made = self.api.post("/api/v1/access-keys", given)
        assert made.status_code == 201, made.text
        return dict(made.json)

    def sts(self, **given: Any) -> Any:
        return client(self.world, "sts", self.key(**given))


@pytest.fixture
def amy(world: World, clock: SteeredClock) -> Person:
    return Person(world, clock, "amy")


@pytest.fixture
def issuer(world: World) -> PlatformIssuer:
    """An issuer whose tokens for the subject stand for the client `pay`, which has a key `k`."""
    made = PlatformIssuer()
    api = world.user("pay")
    assert api.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    body = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    issuer_id = world.admin.post("/api/v1/issuers", body).json["issuer_id"]
    role = {"role": "pay", "issuer": issuer_id, "claims": {"sub": SUBJECT}, "client_id": "pay"}
    assert world.admin.post("/api/v1/issuer-roles", role).status_code == 201
    return made


def by_token(world: World, token: str, **given: Any) -> Any:
    asked = {"RoleArn": f"{ROLE}pay", "RoleSessionName": "pod-1", "WebIdentityToken": token, **given}
    return checked(client(world, "sts"), "assume_role_with_web_identity", **asked)


def test_a_platforms_token_gives_keys(world: World, clock: SteeredClock, issuer: PlatformIssuer) -> None:
    answer = by_token(world, issuer.token(SUBJECT, clock().timestamp()))
    assert answer["SubjectFromWebIdentityToken"] == SUBJECT
    assert (answer["Provider"], answer["Audience"]) == (issuer.issuer, issuer.audience)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/pay/pod-1"
    assert answer["AssumedRoleUser"]["Arn"] == arn
    given = answer["Credentials"]
    assert given["AccessKeyId"].startswith("ASIA")
    assert 3590 < (given["Expiration"] - clock()).total_seconds() <= 3600
    sealed = client(world, "kms", given).encrypt(KeyId="k", Plaintext=b"x")["CiphertextBlob"]
    assert client(world, "kms", given).decrypt(CiphertextBlob=sealed)["Plaintext"] == b"x"
    identity = checked(client(world, "sts", given), "get_caller_identity")
    assert identity == {"Account": ACCOUNT, "Arn": arn, "UserId": answer["AssumedRoleUser"]["AssumedRoleId"]}
    clock.advance(seconds=3601)
    access = {"access_key_id": given["AccessKeyId"], "secret_access_key": given["SecretAccessKey"]}
    access["session_token"] = given["SessionToken"]  # boto3 would sign with the time of this machine
    _, content = answer_of(world, signed(access, clock, "ListKeys", b"{}"), b"{}")
    assert b"ExpiredTokenException" in content


@pytest.mark.parametrize("ended", ["role", "client", "key"])
def test_keys_for_a_token_end_with_what_they_came_by(
    world: World, clock: SteeredClock, issuer: PlatformIssuer, ended: str
) -> None:
    given = by_token(world, issuer.token(SUBJECT, clock().timestamp()))["Credentials"]
    kms = client(world, "kms", given)
    kms.encrypt(KeyId="k", Plaintext=b"x")
    if ended == "role":
        assert world.admin.delete("/api/v1/issuer-roles/pay").status_code == 200
    elif ended == "client":
        assert world.admin.post("/api/v1/clients/pay/disable").status_code == 200
    else:
        assert world.login("pay").delete(f"/api/v1/access-keys/{given['AccessKeyId']}").status_code == 200
    assert refusal(kms.encrypt, KeyId="k", Plaintext=b"x")[0] == "UnrecognizedClientException"


def test_why_a_token_is_refused(world: World, clock: SteeredClock, issuer: PlatformIssuer) -> None:
    now = clock().timestamp()
    good = issuer.token(SUBJECT, now)
    stranger = PlatformIssuer().token(SUBJECT, now)
    cases: list[tuple[str, dict[str, Any], str, str]] = [
        (issuer.token(SUBJECT, now, exp=now - 100), {}, "ExpiredTokenException", "Token expired"),
        (issuer.token(SUBJECT, now, aud="other"), {}, "InvalidIdentityToken", "Incorrect token audience"),
        (issuer.token(SUBJECT, now, aud=None), {}, "InvalidIdentityToken", "audience"),
        (issuer.token(SUBJECT, now, iss=f"{issuer.issuer}/"), {}, "IDPRejectedClaim", "iss"),
        (issuer.token(SUBJECT, now, nbf=now + 900), {}, "IDPRejectedClaim", "nbf"),
        (issuer.token(f"{SUBJECT}x", now), {}, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIden"),
        (stranger, {}, "InvalidIdentityToken", "not valid"),
        (good[:-4] + "AAAA", {}, "InvalidIdentityToken", "not valid"),
        ("none", {}, "InvalidIdentityToken", ""),
        (good, {"RoleArn": f"{ROLE}nobody"}, "InvalidIdentityToken", "not valid"),
        (good, {"RoleArn": "arn:aws:iam::000000000001:role/pay"}, "AccessDenied", "Not authorized"),
        (good, {"RoleArn": "arn:aws:iam::000000000000:user/pay"}, "ValidationError", "is invalid"),
        (good, {"RoleSessionName": "a b"}, "ValidationError", "at 'roleSessionName' failed to satisfy constraint"),
        (good, {"DurationSeconds": 899}, "ValidationError", "Value '899' at 'durationSeconds'"),
        (good, {"DurationSeconds": 43_200}, "ValidationError", "exceeds the MaxSessionDuration"),
        (good, {"Policy": "{}"}, "ValidationError", "Policy is not supported here"),
        (good, {"PolicyArns": [{"arn": f"{ROLE}x"}]}, "ValidationError", "PolicyArns.member.1.arn is not"),
        (good, {"ProviderId": "graph.example.com"}, "ValidationError", "ProviderId is not supported here"),
    ]
    sts = client(world, "sts")
    for token, given, code, told in cases:
        asked = {"RoleArn": f"{ROLE}pay", "RoleSessionName": "pod-1", "WebIdentityToken": token, **given}
        found, message = refusal(sts.assume_role_with_web_identity, **asked)
        assert (found, told in message) == (code, True), (found, message, given)
    assert world.admin.post("/api/v1/clients/pay/disable").status_code == 200
    code, _ = refusal(
        sts.assume_role_with_web_identity, RoleArn=f"{ROLE}pay", RoleSessionName="pod", WebIdentityToken=good
    )
    assert code == "AccessDenied"


def test_keys_for_a_token_are_as_narrow_as_the_role(
    world: World, clock: SteeredClock, issuer: PlatformIssuer
) -> None:
    body = {"issuer": "https://narrow.example", "audience": "kms", "jwks": issuer.jwks}
    issuer_id = world.admin.post("/api/v1/issuers", body).json["issuer_id"]
    role = {"role": "narrow", "issuer": issuer_id, "claims": {"sub": SUBJECT}, "client_id": "pay"}
    made = world.admin.post("/api/v1/issuer-roles", {**role, "scope": "keys:decrypt@k"})
    assert made.status_code == 201, made.text
    token = issuer.token(SUBJECT, clock().timestamp(), iss="https://narrow.example")
    kms = client(world, "kms", by_token(world, token, RoleArn=f"{ROLE}narrow")["Credentials"])
    assert refusal(kms.encrypt, KeyId="k", Plaintext=b"x")[0] == "AccessDeniedException"
    assert refusal(kms.create_key)[0] == "AccessDeniedException"


def test_an_access_key_that_needs_a_second_factor(world: World, clock: SteeredClock, amy: Person) -> None:
    access = amy.key(needs_second_factor=True, expires_in=300 * 86_400)
    sts, kms = client(world, "sts", access), client(world, "kms", access)
    code, told = refusal(kms.list_keys)
    assert (code, amy.serial in told) == ("AccessDeniedException", True)
    assert refusal(sts.get_caller_identity)[0] == "AccessDenied"
    code, told = refusal(sts.get_session_token)
    assert (code, "TokenCode" in told) == ("AccessDenied", True)
    assert refusal(sts.assume_role, RoleArn=f"{ROLE}amy", RoleSessionName="me")[0] == "AccessDenied"
    answer = checked(sts, "get_session_token", SerialNumber=amy.serial, TokenCode=amy.code(), DurationSeconds=900)
    given = answer["Credentials"]
    assert 890 < (given["Expiration"] - clock()).total_seconds() <= 900
    client(world, "kms", given).create_key()
    identity = checked(client(world, "sts", given), "get_caller_identity")
    assert identity["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/amy"
    assumed = checked(
        sts, "assume_role", RoleArn=f"{ROLE}amy", RoleSessionName="me", SerialNumber=amy.serial, TokenCode=amy.code()
    )
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/amy/me"
    assert assumed["AssumedRoleUser"]["Arn"] == arn
    assert checked(client(world, "sts", assumed["Credentials"]), "get_caller_identity")["Arn"] == arn
    assert amy.api.delete(f"/api/v1/access-keys/{access['access_key_id']}").status_code == 200
    for gone in (given, assumed["Credentials"]):
        assert refusal(client(world, "kms", gone).list_keys)[0] == "UnrecognizedClientException"


def test_a_code_works_once_and_failures_count(world: World, clock: SteeredClock, amy: Person) -> None:
    sts, code = amy.sts(needs_second_factor=True), amy.code()
    sts.get_session_token(SerialNumber=amy.serial, TokenCode=code)
    wrong = "MultiFactorAuthentication failed with invalid MFA one time pass code."
    found, told = refusal(sts.get_session_token, SerialNumber=amy.serial, TokenCode=code)
    assert (found, told.startswith(wrong), "used already" in told) == ("AccessDenied", True, True)
    login = world.http.post(
        "/auth/token", auth=("amy", "x"), headers={"X-TOTP": code}
    )  # neither does it log in anywhere else
    assert login.status_code == 401
    for _ in range(5):
        assert refusal(sts.get_session_token, SerialNumber=amy.serial, TokenCode="000000") == ("AccessDenied", wrong)
    assert refusal(sts.get_session_token, SerialNumber=amy.serial, TokenCode=amy.code()[::-1])[0] in (
        "AccessDenied",
        "Throttling",
    )
    found, _ = refusal(sts.get_session_token, SerialNumber=amy.serial, TokenCode="000000")
    assert found == "Throttling"  # locked, as at every other door
    both = "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code."
    assert refusal(sts.get_session_token, SerialNumber=amy.serial) == ("AccessDenied", both)
    assert refusal(sts.get_session_token, TokenCode="123456") == ("AccessDenied", both)
    other = f"arn:aws:iam::{ACCOUNT}:mfa/bob"
    assert "unable to validate" in refusal(sts.get_session_token, SerialNumber=other, TokenCode="123456")[1]
    assert refusal(sts.get_session_token, SerialNumber=amy.serial, TokenCode="12345a")[0] == "ValidationError"


def test_keys_without_a_code_are_no_stronger(world: World, clock: SteeredClock, amy: Person) -> None:
    assert amy.api.post("/api/v1/keys", {"key_id": "a"}).status_code == 201
    access = amy.key(scope="keys:decrypt@a", expires_in=1200)
    given = client(world, "sts", access).get_session_token(DurationSeconds=3600)["Credentials"]
    assert (given["Expiration"] - clock()).total_seconds() <= 1200
    kms = client(world, "kms", given)
    assert refusal(kms.encrypt, KeyId="a", Plaintext=b"x")[0] == "AccessDeniedException"
    sts = client(world, "sts", given)
    told = "Cannot call GetSessionToken with session credentials"
    assert refusal(sts.get_session_token) == ("AccessDenied", told)
    assert refusal(sts.assume_role, RoleArn=f"{ROLE}amy", RoleSessionName="me")[0] == "AccessDenied"
    plain = amy.sts()
    assert refusal(plain.get_session_token, DurationSeconds=129_600)[0] == "ValidationError"
    assert refusal(plain.get_session_token, DurationSeconds=899)[0] == "ValidationError"
    assert plain.get_access_key_info(AccessKeyId=access["access_key_id"])["Account"] == ACCOUNT


def test_a_role_is_the_clients_own(world: World, clock: SteeredClock, amy: Person) -> None:
    sts = amy.sts()
    for role in ("amy", "user"):
        sts.assume_role(RoleArn=f"{ROLE}{role}", RoleSessionName="me")
    for role in ("admin", "bob", "auditor"):
        code, told = refusal(sts.assume_role, RoleArn=f"{ROLE}{role}", RoleSessionName="me")
        assert code == "AccessDenied"
        assert told.endswith(f"is not authorized to perform: sts:AssumeRole on resource: {ROLE}{role}")
    both = Person(world, clock, "both", Role.USER, Role.ADMIN).sts()
    assert refusal(both.assume_role, RoleArn=f"{ROLE}user", RoleSessionName="me")[0] == "AccessDenied"
    for member, value in (
        ("Tags", [{"Key": "a", "Value": "b"}]), ("ExternalId", "x1"), ("SourceIdentity", "me"), ("Policy", "{}"),
        ("TransitiveTagKeys", ["a"]),
    ):  # fmt: skip
        asked: dict[str, Any] = {"RoleArn": f"{ROLE}amy", "RoleSessionName": "me", member: value}
        assert refusal(sts.assume_role, **asked)[0] == "ValidationError"


def test_an_access_key_is_as_narrow_as_the_session_that_makes_it(world: World, amy: Person) -> None:
    scope = "sessions:manage keys:decrypt@a"
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "scope": scope}
    narrow = world.http.post("/auth/token", headers=amy.api.headers, data=form)
    assert narrow.status_code == 200, narrow.text
    api = Api(world.http, {"Authorization": f"Bearer {narrow.json['access_token']}"}, "amy")
    made = api.post("/api/v1/access-keys", {})
    assert made.status_code == 201, made.text
    assert refusal(client(world, "kms", made.json).create_key)[0] == "AccessDeniedException"
    assert api.post("/api/v1/access-keys", {"scope": "keys:encrypt@a"}).status_code == 403


def test_signatures_are_checked(world: World, clock: SteeredClock, amy: Person) -> None:
    access = amy.key()
    wrong = {**access, "secret_access_key": "x" * 40}
    assert refusal(client(world, "sts", wrong).get_caller_identity)[0] == "SignatureDoesNotMatch"
    unknown = {**access, "access_key_id": "AKIA" + "A" * 16}
    assert refusal(client(world, "sts", unknown).get_caller_identity)[0] == "InvalidClientTokenId"
    code, told = refusal(client(world, "sts").get_caller_identity)
    assert (code, told) == ("MissingAuthenticationToken", "Request is missing Authentication Token")
    clock.advance(minutes=10)
    assert refusal(client(world, "sts", access).get_caller_identity)[0] == "SignatureDoesNotMatch"


def test_expired_session_keys_say_so(world: World, clock: SteeredClock, amy: Person) -> None:
    given = amy.key(with_session_token=True, expires_in=60)
    clock.advance(seconds=61)
    assert refusal(client(world, "sts", given).get_caller_identity)[0] == "ExpiredToken"


@pytest.mark.parametrize(
    ("form", "code", "status"),
    [
        (b"Action=GetCallerIdentity&Version=2011-06-15", "MissingAuthenticationToken", 403),
        (b"Action=GetCallerIdentity&Version=2010-01-01", "InvalidAction", 400),
        (b"Action=AssumeRoot&Version=2011-06-15", "InvalidAction", 400),
        (b"Version=2011-06-15", "MissingAction", 400),
        (b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15", "ValidationError", 400),
        (b"Action=GetCallerIdentity&Action=AssumeRole&Version=2011-06-15", "MalformedInput", 400),
        (b"nothing", "MalformedInput", 400),
        (b"", "MissingAction", 400),
        (b"Action=%ff%fe&Version=2011-06-15", "InvalidAction", 400),
        (b"\xff=1", "MalformedInput", 400),
        (b"Action=%3C%00%26&Version=%5D%5D%3E", "InvalidAction", 400),
        (urlencode({f"a{n}": "b" for n in range(100)}).encode(), "MalformedInput", 400),
        (b"a=" + b"x" * 60_000, "RequestEntityTooLarge", 413),
    ],
)
def test_what_is_no_request(shared_world: World, form: bytes, code: str, status: int) -> None:
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_TYPE": "application/x-www-form-urlencoded"}
    found, content = answer_of(shared_world, environ, form)
    names = {"s": "https://sts.amazonaws.com/doc/2011-06-15/"}
    document = ElementTree.fromstring(content)
    assert (found, document.findtext("s:Error/s:Code", namespaces=names)) == (status, code)
    assert document.findtext("s:RequestId", namespaces=names)


def test_other_posts_are_not_for_sts(shared_world: World) -> None:
    for kind in ("application/json", "text/plain"):
        environ = environ_of(b"{}", REQUEST_METHOD="POST", PATH_INFO="/", CONTENT_TYPE=kind)
        status, headers, _ = called(shared_world.http.application.wsgi_app, environ)
        assert dict(headers)["Content-Type"] != "text/xml"
        assert status.startswith("404")


def test_what_is_given_is_audited(world: World, clock: SteeredClock, issuer: PlatformIssuer) -> None:
    by_token(world, issuer.token(SUBJECT, clock().timestamp()))
    auditor = world.user("auditor", Role.AUDITOR)
    entries = auditor.get("/api/v1/audit/entries?limit=100").json["items"]
    found = next(each for each in entries if each["operation"] == "sts:AssumeRoleWithWebIdentity")
    assert (found["outcome"], found["client_id"]) == ("success", "pay")
    assert found["credential"] == "issuer-role:pay"
    assert found["target"].startswith("ASIA")


def test_what_nobody_signed_is_limited(template: Template, tmp_path: Path, clock: SteeredClock) -> None:
    limited = settings_for(tmp_path / "limited", rate_limit_public="3/minute", rate_limit_authenticate="2/minute")
    service = template.open(limited, clock)
    try:
        world = World.of(service)
        environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/", "CONTENT_TYPE": "application/x-www-form-urlencoded"}
        answers = [answer_of(world, environ, b"Action=Nothing&Version=2011-06-15") for _ in range(4)]
        assert [b"Throttling" in content for _, content in answers] == [False, False, False, True]
        form = b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
        answers = [answer_of(world, environ, form) for _ in range(3)]
        assert [b"Throttling" in content for _, content in answers] == [False, False, True]
    finally:
        service.close()


def test_keys_for_tokens_take_no_place_of_lasting_ones(
    world: World, clock: SteeredClock, issuer: PlatformIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_keys_of_clients, "_MOST", 2)
    given = [by_token(world, issuer.token(SUBJECT, clock().timestamp()))["Credentials"] for _ in range(4)]
    pay = world.login("pay")
    assert [pay.post("/api/v1/access-keys", {}).status_code for _ in range(3)] == [201, 201, 409]
    listed = {each["access_key_id"] for each in pay.get("/api/v1/access-keys").json["items"]}
    assert len(listed) == 6
    assert {each["AccessKeyId"] for each in given} < listed
    names = {each["credential"] for each in pay.get("/api/v1/clients/pay/credentials").json["items"]}
    assert {f"access-key:{each}" for each in listed} <= names
