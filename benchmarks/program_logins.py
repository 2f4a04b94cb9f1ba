"""How many programs a second log in, by each way that needs no person. Every one makes a session in the vault."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from joserfc import jws
from joserfc.jwk import ECKey

from benchmarks.connections import as_fast_as_they_can
from benchmarks.programs import Measured, Running

CONNECTIONS = 4
_MADE_AHEAD = 4000
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_Request = tuple[str, str, bytes]


def kinds(service: Running) -> dict[str, Callable[[], Iterator[_Request]]]:
    """Each way to log in, and what makes its requests."""
    key, issuer_key = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    service.call("POST", "/api/v1/clients/client-0/public-keys", {"jwk": key.as_dict(private=False)})
    jwks = {"keys": [issuer_key.as_dict(private=False)]}
    service.call("POST", "/api/v1/issuers", {"issuer": "https://bench", "audience": "kms", "jwks": jwks})
    role = {"role": "bench", "issuer": "https://bench", "claims": {"sub": "pod-*"}, "client_id": "client-0"}
    service.call("POST", "/api/v1/issuer-roles", role)
    access = service.call("POST", "/api/v1/access-keys", {})
    at = int(time.time())
    numbers = itertools.count()
    token = _signed(issuer_key, {"iss": "https://bench", "aud": "kms", "sub": "pod-1", "exp": at + 3600})

    def by_own_key() -> Iterator[_Request]:
        claims = {"iss": "client-0", "sub": "client-0", "aud": service.url, "exp": int(time.time()) + 240}
        form = {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}
        ahead = [_signed(key, {**claims, "jti": str(next(numbers))}) for _ in range(_MADE_AHEAD // CONNECTIONS)]
        return (("/auth/token", _FORM, urlencode({**form, "client_assertion": each}).encode()) for each in ahead)

    def again(path: str, kind: str, body: bytes) -> Callable[[], Iterator[_Request]]:
        return lambda: itertools.repeat((path, kind, body))

    bearer = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": token, "role": "bench"}
    approle = {"role_id": access["access_key_id"], "secret_id": access["secret_access_key"]}
    sts = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": "arn:aws:iam::000000000000:role/bench",
        "RoleSessionName": "bench",
        "WebIdentityToken": token,
    }
    return {
        "log in: own key (ES256)": by_own_key,
        "log in: platform's token (ES256)": again("/auth/token", _FORM, urlencode(bearer).encode()),
        "log in: Vault's AppRole": again("/v1/auth/approle/login", _JSON, json.dumps(approle).encode()),
        "log in: AWS's web identity": again("/", _FORM, urlencode(sts).encode()),
    }


def measure(service: Running, requests: Callable[[], Iterator[_Request]], seconds: float) -> Measured:
    """Log in as fast as `CONNECTIONS` connections can."""
    return as_fast_as_they_can(service, [requests() for _ in range(CONNECTIONS)], _log_in, seconds)


def _log_in(connection: http.client.HTTPConnection, request: _Request) -> bool:
    path, kind, body = request
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    answer.read()
    return answer.status == http.HTTPStatus.OK


def _signed(key: ECKey, claims: dict[str, Any]) -> str:
    return jws.serialize_compact({"alg": "ES256"}, json.dumps(claims), key)
