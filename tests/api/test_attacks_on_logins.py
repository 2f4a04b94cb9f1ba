"""What sessions and access keys are worth: no more than what made them, and no longer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyotp
import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from joserfc.jwk import ECKey

from helpers.authority import Issued, issue
from helpers.aws_in_process import client
from helpers.support import Api, SteeredClock, Template, World, settings_for
from helpers.tokens import ASSERTION_TYPE, TOKEN_EXCHANGE, PlatformIssuer, assertion, new_key, public_jwk, signed
from kms.access.model import Role


def person(world: World, client_id: str, *roles: Role) -> Api:
    """A new client whose person has just given the second factor."""
    made = world.enrol(client_id, *roles)
    code = pyotp.TOTP(made.totp_secret).at(world.service.clock())
    answer = world.http.post("/auth/token", auth=(client_id, made.client_secret), headers={"X-TOTP": code})
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, client_id)


def narrower(world: World, api: Api, scope: str, **more: Any) -> Api:
    """A session within that scope."""
    form = {"grant_type": TOKEN_EXCHANGE, "scope": scope, **more}
    answer = world.http.post("/auth/token", data=form, headers=api.headers)
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, api.client_id)


def test_a_session_does_not_grant_the_use_of_keys_outside_of_its_scope(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    for key in ("app-1", "other"):
        assert amy.post("/api/v1/keys", {"key_id": key}).status_code == 201
    narrow = narrower(world, amy, "grants:manage@app-* keys:read@app-* keys:decrypt@app-*")
    grant = {"subject": "client:bob", "permission": "keys:decrypt"}
    assert narrow.post("/api/v1/grants", {**grant, "key_pattern": "app-1"}).status_code == 201
    for pattern in ("other", "*"):
        answer = narrow.post("/api/v1/grants", {**grant, "key_pattern": pattern})
        assert answer.status_code in (403, 404), answer.text


def test_a_session_does_not_grant_what_its_scope_does_not_have(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    assert amy.post("/api/v1/keys", {"key_id": "app-1"}).status_code == 201
    narrow = narrower(world, amy, "grants:manage keys:read")
    grant = {"subject": "client:bob", "permission": "keys:decrypt", "key_pattern": "app-1"}
    assert narrow.post("/api/v1/grants", grant).status_code == 403


def test_a_session_does_not_take_back_grants_outside_of_its_scope(world: World) -> None:
    amy = person(world, "amy")
    person(world, "bob")
    assert amy.post("/api/v1/keys", {"key_id": "other"}).status_code == 201
    grant = {"subject": "client:bob", "permission": "keys:decrypt", "key_pattern": "other"}
    made = amy.post("/api/v1/grants", grant).json
    narrow = narrower(world, amy, "grants:manage@app-*")
    assert narrow.delete(f"/api/v1/grants/{made['grant_id']}").status_code in (403, 404)
    assert not narrow.get("/api/v1/grants").json["items"]


def by_key(world: World, signed: str, **form: Any) -> Any:
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed, **form}
    return world.http.post("/auth/token", data=form)


@pytest.mark.parametrize("scope", ["", "metrics:read"])
def test_no_session_outlives_the_public_key_that_proved_it(world: World, clock: SteeredClock, scope: str) -> None:
    amy = person(world, "amy", Role.AUDITOR)
    key = new_key()
    ends = (clock() + timedelta(minutes=10)).isoformat()
    made = amy.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(key), "expires_at": ends})
    assert made.status_code == 201, made.text
    answer = by_key(world, assertion(key, "amy", clock().timestamp()), **({"scope": scope} if scope else {}))
    assert answer.status_code == 200, answer.text
    assert answer.json["expires_in"] <= 600


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue("Test CA", is_ca=True)


@pytest.fixture
def guarded(template: Template, tmp_path: Path, authority: Issued) -> Iterator[World]:
    """A world behind a proxy on loopback, which passes certificates on."""
    (tmp_path / "ca.pem").write_text(authority.pem)
    settings = settings_for(tmp_path / "data", client_ca=tmp_path / "ca.pem", trusted_proxies="127.0.0.1")
    opened = template.open(settings, SteeredClock())
    yield World.of(opened)
    opened.close()


@pytest.mark.parametrize("way", ["tls", "x5c"])
def test_no_session_outlives_the_certificate_that_proved_it(guarded: World, authority: Issued, way: str) -> None:
    guarded.enrol("pay")
    at = guarded.service.clock()
    leaf = authority.issue("pay", ends=at + timedelta(minutes=10))
    if way == "tls":
        header = {"Client-Cert": f":{base64.b64encode(leaf.der).decode()}:", "X-Forwarded-For": "192.0.2.7"}
        answer = guarded.http.post("/auth/token", data={"client_id": "pay"}, headers=header)
    else:
        aud = "https://localhost:8443"
        claims = {"iss": "pay", "sub": "pay", "aud": aud, "exp": at.timestamp() + 60, "jti": "a"}
        chain = [base64.b64encode(leaf.der).decode()]
        answer = by_key(guarded, signed(ECKey.import_key(leaf.key_pem), claims, x5c=chain))
    assert answer.status_code == 200, answer.text
    assert answer.json["expires_in"] <= 600


def test_no_access_key_outlives_the_narrower_session_that_made_it(world: World, clock: SteeredClock) -> None:
    amy = person(world, "amy")
    assert amy.post("/api/v1/keys", {"key_id": "k"}).status_code == 201
    narrow = narrower(world, amy, "sessions:manage keys:encrypt@k", expires_in="60")
    made = narrow.post("/api/v1/access-keys", {})
    assert made.status_code == 201, made.text
    clock.advance(seconds=120)
    kms = client(world, "kms", made.json)
    with pytest.raises(ClientError):
        kms.encrypt(KeyId="k", Plaintext=b"x")


def role_for_oneself(world: World, api: Api) -> Any:
    made = PlatformIssuer()
    issuer = {"issuer": made.issuer, "audience": made.audience, "jwks": made.jwks}
    answer = world.admin.post("/api/v1/issuers", issuer)
    assert answer.status_code == 201, answer.text
    role = {"role": "wide", "issuer": made.issuer, "claims": {"sub": "x"}, "client_id": api.client_id}
    return api.post("/api/v1/issuer-roles", role)


def test_a_narrowed_session_makes_no_issuer_role_for_a_wider_one_of_its_client(world: World) -> None:
    amy = person(world, "amy", Role.ADMIN)
    answer = role_for_oneself(world, narrower(world, amy, "clients:manage clients:read"))
    assert answer.status_code == 403, answer.text


def test_a_program_makes_no_issuer_role_for_its_own_client(world: World, clock: SteeredClock) -> None:
    amy = person(world, "amy", Role.ADMIN)
    key = new_key()
    assert amy.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(key)}).status_code == 201
    answer = by_key(world, assertion(key, "amy", clock().timestamp()))
    program = Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, "amy")
    other = {"jwk": public_jwk(new_key())}
    assert program.post("/api/v1/clients/amy/public-keys", other).status_code == 401
    answer = role_for_oneself(world, program)
    assert answer.status_code == 401, answer.text


@pytest.mark.parametrize("way", ["reset-totp"])
def test_a_narrowed_session_makes_its_client_no_new_credentials(world: World, way: str) -> None:
    amy = person(world, "amy", Role.ADMIN)
    narrow = narrower(world, amy, "clients:manage secrets:rotate")
    answer = narrow.post(f"/api/v1/clients/amy/{way}", {})
    assert answer.status_code == 403, answer.text


@pytest.mark.parametrize("way", ["reset-totp"])
def test_a_program_makes_its_client_no_new_credentials(world: World, clock: SteeredClock, way: str) -> None:
    amy = person(world, "amy", Role.ADMIN)
    key = new_key()
    assert amy.post("/api/v1/clients/amy/public-keys", {"jwk": public_jwk(key)}).status_code == 201
    answer = by_key(world, assertion(key, "amy", clock().timestamp()))
    program = Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, "amy")
    answer = program.post(f"/api/v1/clients/amy/{way}", {})
    assert answer.status_code == 401, answer.text


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def twin_of(leaf: Issued) -> bytes:
    """The same certificate in other bytes: beside an ECDSA signature (r, s), (r, n - s) is good, and easily made."""
    r, s = decode_dss_signature(leaf.certificate.signature)
    signature = encode_dss_signature(r, P256_ORDER - s)
    bits = b"\x03" + bytes([len(signature) + 1]) + b"\0" + signature
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    content = leaf.certificate.tbs_certificate_bytes + algorithm + bits
    return b"\x30\x82" + len(content).to_bytes(2, "big") + content


def by_certificate(world: World, leaf: bytes, client_id: str = "pay") -> Any:
    header = {"Client-Cert": f":{base64.b64encode(leaf).decode()}:", "X-Forwarded-For": "192.0.2.7"}
    return world.http.post("/auth/token", data={"client_id": client_id}, headers=header)


def test_an_ended_certificate_does_not_come_back_in_other_bytes(guarded: World, authority: Issued) -> None:
    guarded.enrol("pay")
    leaf = authority.issue("pay")
    path = f"/api/v1/clients/pay/certificates/{sha256(leaf.der).hexdigest()}"
    assert by_certificate(guarded, leaf.der).status_code == 200
    assert guarded.admin.delete(path).status_code == 200
    assert by_certificate(guarded, leaf.der).status_code == 401
    assert by_certificate(guarded, twin_of(leaf)).status_code == 401


def test_the_end_of_a_certificate_ends_what_it_proved_in_other_bytes(guarded: World, authority: Issued) -> None:
    guarded.enrol("pay")
    leaf = authority.issue("pay")
    answer = by_certificate(guarded, twin_of(leaf))
    if answer.status_code == 401:
        return
    program = Api(guarded.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, "pay")
    guarded.admin.delete(f"/api/v1/clients/pay/certificates/{sha256(leaf.der).hexdigest()}")
    assert program.get("/api/v1/keys").status_code == 401


def test_a_narrowed_session_gives_no_other_keys_to_an_issuer_of_its_client(world: World) -> None:
    amy = person(world, "amy", Role.ADMIN)
    assert role_for_oneself(world, amy).status_code == 201
    issuer = world.admin.get("/api/v1/issuers").json["items"][0]["issuer_id"]
    narrow = narrower(world, amy, "clients:manage")
    answer = narrow.patch(f"/api/v1/issuers/{issuer}", {"jwks": PlatformIssuer().jwks})
    assert answer.status_code == 403, answer.text
