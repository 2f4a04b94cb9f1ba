"""The short way: hot operations are served straight from the operation table, in front of Flask.

Flask with its request objects and Flask-Limiter costs several times what encrypting costs. So this WSGI
application takes the plain form of a hot request (POST, JSON of a known length, a session token as Bearer) and
hands everything else on, in the end to the Flask application, which serves the same operations by the same
functions: what they answer is the same, byte for byte, and a test holds them to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

from kms import errors
from kms.access.ratelimit import RateClass, identity
from kms.api import problems, requests
from kms.api.admission import Admission
from kms.api.headers import JSON, security_headers
from kms.operations import OPERATIONS, Call, Operation, Service, new_request_id, perform

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_KEY_PATH = re.compile(r"/api/v1/keys/([A-Za-z0-9][A-Za-z0-9._-]{0,127})/([a-z-]+)")
_BEARER = "Bearer "
_LONGEST_KEY_ID = 128
_LONGEST_NUMBER = 19
_ROUTES_CACHED = 20_000
_ON_A_KEY = "/api/v1/keys/<key_id>/"
_STATUS = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}  # as Werkzeug has it


_IS_JSON = [("Content-Type", JSON)]


@lru_cache(maxsize=4096)
def _length(text: str) -> int | None:
    """The number that a Content-Length header gives."""
    return int(text) if text.isascii() and text.isdigit() else None


@dataclass
class Dispatch:
    """A WSGI application in front of another."""

    behind: WsgiApp
    service: Service
    admission: Admission

    def __post_init__(self) -> None:
        hot = [operation for operation in OPERATIONS.values() if operation.hot]
        self._on_keys = {each.path.removeprefix(_ON_A_KEY): each for each in hot if each.path.startswith(_ON_A_KEY)}
        self._others = {each.path: each for each in hot if "<" not in each.path}
        self._longest = _LONGEST_KEY_ID + max(len(each.path) for each in hot)
        self._routed = lru_cache(maxsize=_ROUTES_CACHED)(self._route)

    def _route(self, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The hot operation at `path` and the variables in it."""
        on_key = _KEY_PATH.fullmatch(path)
        operation = self._on_keys.get(on_key[2]) if on_key else self._others.get(path)
        if operation is None:
            return None
        return operation, {"key_id": on_key[1]} if on_key else {}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        path = environ["PATH_INFO"]
        routed = self._routed(path) if len(path) <= self._longest else None
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        is_bearer = authorization.startswith(_BEARER)
        token = authorization[len(_BEARER) : requests.LONGEST_HEADER].strip() if is_bearer else ""
        text = environ.get("CONTENT_LENGTH", "")
        length = _length(text) if len(text) < _LONGEST_NUMBER else None
        if (
            routed is None
            or not token
            or length is None
            or length > self.service.settings.max_body_bytes
            or environ.get("CONTENT_TYPE") != JSON
            or environ["REQUEST_METHOD"] != "POST"
        ):
            return self.behind(environ, start_response)
        began = time.perf_counter()
        operation, variables = routed
        call = Call(operation.name, environ.get("REMOTE_ADDR") or "unknown", new_request_id())
        outcome = "success"
        try:
            body = self._serve(operation, call, token, environ["wsgi.input"], length, variables)
            status, kind = operation.status, _IS_JSON
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            refusal = problems.refusal_of(error, call.request_id, self.service.metrics)
            status, outcome = refusal.status, refusal.problem
            body, kind = problems.encoded(refusal, call.request_id)
        self.service.metrics.count(operation.name, outcome, time.perf_counter() - began)
        start_response(
            _STATUS[status],
            [
                *security_headers(environ.get("HTTP_HOST", "")),
                *kind,
                ("Content-Length", str(len(body))),
                ("X-Request-Id", call.request_id),
            ],
        )
        return [body]  # Granian sends a list at once, and pulls anything else out piece by piece

    def _serve(
        self, operation: Operation, call: Call, token: str, stream: Any, length: int, variables: dict[str, str]
    ) -> bytes:
        service = self.service
        try:
            call.caller = caller = service.authenticator.session(token)
        except errors.AuthenticationFailed as refusal:
            service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            service.record(call, refusal)
            raise
        except errors.Refusal as refusal:
            service.record(call, refusal)
            raise
        service.rate_limits.hit(operation.rate_class, identity(caller, call.source))
        try:
            body = requests.read_admitted(self.admission, caller.client_id, stream, length)
        except errors.Refusal as refusal:
            service.record(call, refusal)
            raise
        answer = perform(service, operation, call, partial(requests.decoded, operation, body), variables)
        return problems.encoded_answer(answer, call.request_id)
