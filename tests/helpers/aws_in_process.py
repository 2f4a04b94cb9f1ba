"""An unmodified boto3 whose requests go to the service in this process, as it signs and sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from helpers.support import World
from helpers.wsgi import called, environ_of

URL = "https://localhost:8443"


class _Raw:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.content


def environ_of_headers(headers: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """The variables of a request to `POST /` with these headers."""
    sent = {
        name: value.decode("latin-1") if isinstance(value, bytes) else str(value) for name, value in headers.items()
    }
    variables = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.items()}
    kind = variables.pop("HTTP_CONTENT_TYPE", None)
    variables.pop("HTTP_CONTENT_LENGTH", None)
    return environ_of(body, REQUEST_METHOD="POST", PATH_INFO="/", CONTENT_TYPE=kind, **variables)


def client(world: World, service: str, access: Mapping[str, str] | None = None, region: str = "us-east-1") -> Any:
    """A boto3 client that signs with `access`, as the service or STS gave it; without, it does not sign."""
    key = {name.lower(): value for name, value in (access or {}).items()}
    options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "parameter_validation": False}
    made = boto3.client(
        service,
        endpoint_url=URL,
        region_name=region,
        aws_access_key_id=key.get("access_key_id") or key.get("accesskeyid") or "-",
        aws_secret_access_key=key.get("secret_access_key") or key.get("secretaccesskey") or "-",
        aws_session_token=key.get("session_token") or key.get("sessiontoken"),
        config=Config(**options) if access else Config(signature_version=UNSIGNED, **options),
    )

    def send(request: Any, **_: Any) -> AWSResponse:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        headers = {"Host": urlsplit(request.url).netloc, **dict(request.headers.items())}
        status, answered, content = called(world.http.application.wsgi_app, environ_of_headers(headers, body))
        return AWSResponse(request.url, int(status.split()[0]), dict(answered), _Raw(content))

    made.meta.events.register("before-send", send)
    return made
