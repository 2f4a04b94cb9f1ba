"""Requests as a WSGI server hands them on, for what no client in between would let through."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from helpers.support import World
from kms import sigv4
from kms.secret import Secret
from kms.sigv4 import Signed

Headers = list[tuple[str, str]]


def environ_of(body: bytes, **given: Any) -> dict[str, Any]:
    """The variables of a request with that body, with those that are `given`; None leaves one out."""
    variables = {
        "SCRIPT_NAME": "", "QUERY_STRING": "", "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "localhost:8443",
        "REMOTE_ADDR": "127.0.0.1", "SERVER_NAME": "localhost", "SERVER_PORT": "8443", "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "https", "wsgi.input": io.BytesIO(body), **given,
    }  # fmt: skip
    return {name: value for name, value in variables.items() if value is not None}


def called(app: Any, environ: dict[str, Any]) -> tuple[str, Headers, bytes]:
    """The status line, the headers and the content that an application answers."""
    started: list[tuple[str, Headers]] = []
    content = b"".join(app(environ, lambda status, headers, *_: started.append((status, headers))))
    return *started[0], content


def answer_of(world: World, environ: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    """The status and the content that the application of `world` answers."""
    status, _, content = called(world.http.application.wsgi_app, environ_of(body, **environ))
    return int(status.split()[0]), content


def signed(
    access: dict[str, str], clock: Callable[[], datetime], action: str, body: bytes, region: str = "us-east-1"
) -> dict[str, Any]:
    """The variables of a request of the AWS dialect."""
    amz_date = clock().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {
        "content-type": "application/x-amz-json-1.1",
        "host": "localhost:8443",
        "x-amz-date": amz_date,
        "x-amz-target": f"TrentService.{action}",
    }
    if token := access.get("session_token"):
        sent["x-amz-security-token"] = token
    scope = Signed(access["access_key_id"], amz_date[:8], region, "kms", tuple(sorted(sent)))
    key = sigv4.signing_key(Secret(access["secret_access_key"].encode()), scope)
    values = [sent[name] for name in scope.headers]
    signature = sigv4.Prepared(scope, key, "POST", "/", values, amz_date).signature(body)
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "CONTENT_TYPE": sent["content-type"],
        "HTTP_X_AMZ_DATE": amz_date,
        "HTTP_X_AMZ_TARGET": sent["x-amz-target"],
        **({"HTTP_X_AMZ_SECURITY_TOKEN": token} if token else {}),
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope.access_key_id}/{scope.scope}, "
        f"SignedHeaders={';'.join(scope.headers)}, Signature={signature}",
    }
