"""The short way: hot operations are served straight from the operation table, in front of Flask.

Flask with its request objects and Flask-Limiter costs several times what encrypting costs. So this WSGI
application takes the plain form of a hot request (POST, JSON of a known length, a session token as Bearer) and
hands everything else to the Flask application behind it, which serves the same operations by the same
functions: what they answer is the same, byte for byte, and a test holds them to it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
_ON_A_KEY = "/api/v1/keys/<key_id>/"
_STATUS = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}  # as Werkzeug has it


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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        path = environ["PATH_INFO"]
        on_key = _KEY_PATH.fullmatch(path)
        operation = self._on_keys.get(on_key[2]) if on_key else self._others.get(path)
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        length = environ.get("CONTENT_LENGTH", "")
        if (
            operation is None
            or environ["REQUEST_METHOD"] != "POST"
            or environ.get("CONTENT_TYPE") != JSON
            or scheme != "Bearer"
            or not token.strip()
            or not (length.isascii() and length.isdigit() and int(length) <= self.service.settings.max_body_bytes)
        ):
            return self.behind(environ, start_response)
        variables = {"key_id": on_key[1]} if on_key else {}
        began = time.perf_counter()
        call = Call(operation.name, environ.get("REMOTE_ADDR") or "unknown", new_request_id())
        outcome = "success"
        headers = security_headers(environ.get("HTTP_HOST", ""))
        try:
            body = self._serve(operation, call, token.strip(), environ["wsgi.input"], int(length), variables)
            status = operation.status
            headers.append(("Content-Type", JSON))
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            refusal = problems.refusal_of(error, call.request_id, self.service.metrics)
            status, outcome = refusal.status, refusal.problem
            body, more = problems.encoded(refusal, call.request_id)
            headers += more
        headers += [("Content-Length", str(len(body))), ("X-Request-Id", call.request_id)]
        self.service.metrics.count(operation.name, outcome, time.perf_counter() - began)
        start_response(_STATUS[status], headers)
        return (body,)

    def _serve(
        self, operation: Operation, call: Call, token: str, stream: Any, length: int, variables: dict[str, str]
    ) -> bytes:
        service = self.service
        try:
            call.caller = caller = service.authenticator.session(token[: requests.LONGEST_HEADER])
        except errors.AuthenticationFailed as refusal:
            service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            service.record(call, refusal)
            raise
        except errors.Refusal as refusal:
            service.record(call, refusal)
            raise
        service.rate_limits.hit(operation.rate_class, identity(caller, call.source))
        entered = self.admission.enter(caller.client_id)
        try:
            body = requests.read(stream, length)
        finally:
            self.admission.leave(caller.client_id, entered)
        answer = perform(service, operation, call, lambda: requests.decoded(operation, body), variables)
        return problems.encoded_answer(answer, call.request_id)
