"""The fast path: simple requests are served directly from the operation table, without Flask.

Flask with its request objects and Flask-Limiter costs several times what encrypting costs. So this WSGI application
takes the plain form of a request (JSON of a known length, a session token as Bearer, names of the usual form) and
hands everything else on, in the end to the Flask application, which serves the same operations by the same functions:
what they answer is the same, byte for byte, and a test holds them to it.
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
from kms.api.headers import JSON, request_headers, security_headers
from kms.operations import OPERATIONS, Call, Operation, Service, execute_operation, new_request_id

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

_VARIABLE = re.compile(r"<(\w+)>")
_VALUE = r"(?P<\1>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})"
_BEARER = "Bearer "
_LONGEST_PATH = 256
_METHODS = {"POST", "PUT", "PATCH", "DELETE"}
_LONGEST_NUMBER = 19
_ROUTES_CACHED = 20_000
STATUS = {status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus}  # as Werkzeug has it


_IS_JSON = [("Content-Type", JSON)]


@lru_cache(maxsize=4096)
def _length(text: str) -> int | None:
    """The number that a Content-Length header gives."""
    return int(text) if text.isascii() and text.isdigit() else None


@dataclass
class FastPathMiddleware:
    """A WSGI application in front of another."""

    next_app: WsgiApp
    service: Service
    admission: Admission

    def __post_init__(self) -> None:
        plain = [
            each
            for each in OPERATIONS.values()
            if each.method in _METHODS and not (each.is_token_endpoint or each.is_public) and "<int:" not in each.path
        ]
        plain.sort(key=lambda each: each.path.count("<"))  # a path without variables comes first, as in Flask
        self._operations = [(each, re.compile(_VARIABLE.sub(_VALUE, each.path))) for each in plain]
        self._routed = {each: lru_cache(maxsize=_ROUTES_CACHED)(partial(self._route, each)) for each in _METHODS}

    def _route(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation at `path` and the variables in it."""
        for operation, pattern in self._operations:
            if operation.method == method and (found := pattern.fullmatch(path)):
                return operation, found.groupdict()
        return None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        path = environ["PATH_INFO"]
        routes = self._routed.get(environ["REQUEST_METHOD"])
        routed = routes(path) if routes is not None and len(path) <= _LONGEST_PATH else None
        if routed is None:
            return self.next_app(environ, start_response)
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        is_bearer = authorization.startswith(_BEARER)
        token = authorization[len(_BEARER) : requests.LONGEST_HEADER].strip() if is_bearer else ""
        text = environ.get("CONTENT_LENGTH", "")
        length = _length(text) if len(text) < _LONGEST_NUMBER else None
        if (
            not token
            or length is None
            or length > self.service.settings.max_body_bytes
            or environ.get("CONTENT_TYPE") != JSON
        ):
            return self.next_app(environ, start_response)
        began = time.perf_counter()
        operation, variables = routed
        call = Call(operation.name, environ.get("REMOTE_ADDR") or "unknown", new_request_id())
        outcome = "success"
        try:
            answer = self._serve(operation, call, token, environ["wsgi.input"], length, variables)
            body, status, kind = problems.encoded_answer(answer, call.request_id), operation.status, _IS_JSON
            if operation.location is not None and (location := problems.location_of(operation, answer)) is not None:
                kind = [*_IS_JSON, ("Location", location)]
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            refusal = problems.refusal_of(error, call.request_id, self.service.metrics)
            status, outcome = refusal.status, refusal.problem
            body, kind = problems.encoded(refusal, call.request_id)
        seconds = time.perf_counter() - began
        self.service.metrics.count(operation.name, outcome, seconds)
        if not operation.hot:
            problems.log_answer(call, outcome, status, seconds)
        start_response(
            STATUS[status],
            [
                *security_headers(environ.get("HTTP_HOST", "")),
                *kind,
                ("Content-Length", str(len(body))),
                *request_headers(call),
            ],
        )
        return [body]  # Granian sends a list at once, and pulls anything else out piece by piece

    def _serve(
        self, operation: Operation, call: Call, token: str, stream: Any, length: int, variables: dict[str, str]
    ) -> Any:
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
            body = requests.read_admitted(self.admission, caller.client_id, stream, length, length)
        except errors.Refusal as refusal:
            service.record(call, refusal)
            raise
        read_request = partial(requests.decoded, operation, body)
        if operation.hot:
            return execute_operation(service, operation, call, read_request, variables)
        with self.admission.for_operation(operation, caller.client_id):
            return execute_operation(service, operation, call, read_request, variables)
