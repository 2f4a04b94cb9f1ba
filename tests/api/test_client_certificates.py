"""A program logs in with a certificate that a trusted proxy or TLS has verified, or that its assertion carries."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from helpers.authority import Issued, issue
from helpers.support import Api, SteeredClock, Template, World, settings_for
from helpers.tokens import ASSERTION_TYPE, assertion, signed


@pytest.fixture(scope="module")
def authority() -> Issued:
    return issue("Test CA", is_ca=True)


@pytest.fixture(scope="module")
def guarded(template: Template, tmp_path_factory: pytest.TempPathFactory, authority: Issued) -> Iterator[World]:
    """A world behind a proxy on loopback, which passes certificates on."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    (folder / "ca.pem").write_text(authority.pem)
    settings = settings_for(folder / "data", client_ca=folder / "ca.pem", trusted_proxies="127.0.0.1")
    opened = template.open(settings, SteeredClock())
    made = World.of(opened)
    for client_id in ("pay", "ledger"):
        made.enrol(client_id)
    yield made
    opened.close()


def by_certificate(world: World, leaf: Issued, client_id: str = "pay") -> Any:
    header = {"Client-Cert": f":{base64.b64encode(leaf.der).decode()}:", "X-Forwarded-For": "192.0.2.7"}
    return world.http.post("/auth/token", data={"client_id": client_id}, headers=header)


def test_a_certificate_logs_its_client_in_until_it_is_ended(guarded: World, authority: Issued) -> None:
    leaf = authority.issue("pay")
    answer = by_certificate(guarded, leaf)
    assert answer.status_code == 200, answer.text
    program = Api(guarded.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, "pay")
    assert program.get("/api/v1/keys").status_code == 200
    thumbprint = sha256(leaf.der).hexdigest()
    shown = program.get("/api/v1/clients/pay/sessions").json["items"]
    assert shown[0]["credential"] == f"certificate:{thumbprint}"
    path = f"/api/v1/clients/pay/certificates/{thumbprint}"
    assert guarded.login("ledger").delete(path).status_code == 403
    assert guarded.admin.delete(path).status_code == 200
    assert program.get("/api/v1/keys").status_code == 401
    refused = by_certificate(guarded, leaf)
    assert (refused.status_code, "ended" in refused.json["detail"]) == (401, True)
    assert by_certificate(guarded, authority.issue("pay")).status_code == 200


def test_a_certificate_is_for_the_client_that_it_names(guarded: World, authority: Issued) -> None:
    assert by_certificate(guarded, authority.issue("pay"), "ledger").status_code == 401
    assert by_certificate(guarded, issue("Test CA", is_ca=True).issue("pay")).status_code == 401
    assert by_certificate(guarded, authority.issue("nobody"), "nobody").status_code == 401
    without = guarded.http.post("/auth/token", data={"client_id": "pay"})
    assert without.status_code == 401


def assertion_with(leaf: Issued, key: ECKey, client_id: str, world: World) -> Any:
    at = world.service.clock().timestamp()
    claims = {"iss": client_id, "sub": client_id, "aud": "https://localhost:8443", "exp": at + 60, "jti": leaf.pem}
    jwt = signed(key, claims, x5c=[base64.b64encode(leaf.der).decode()])
    form = {"client_assertion": jwt, "client_assertion_type": ASSERTION_TYPE}
    return world.http.post("/auth/token", data=form)


def test_an_assertion_may_carry_the_certificate(guarded: World, authority: Issued) -> None:
    leaf = authority.issue("ledger")
    key = ECKey.import_key(leaf.key_pem)
    assert assertion_with(leaf, key, "ledger", guarded).status_code == 200
    stranger = issue("Test CA", is_ca=True).issue("ledger")
    assert assertion_with(stranger, ECKey.import_key(stranger.key_pem), "ledger", guarded).status_code == 401
    assert assertion_with(leaf, ECKey.generate_key("P-256"), "ledger", guarded).status_code == 401
    assert assertion_with(authority.issue("pay"), key, "ledger", guarded).status_code == 401


def test_without_a_client_ca_no_certificate_proves_anybody(world: World, authority: Issued) -> None:
    world.enrol("pay")
    leaf = authority.issue("pay")
    assert by_certificate(world, leaf).status_code == 401
    assert assertion_with(leaf, ECKey.import_key(leaf.key_pem), "pay", world).status_code == 401
    assert assertion(ECKey.import_key(leaf.key_pem), "pay")
