"""The entry point of the Vault dialect: everything below `/v1/`, with a session token in X-Vault-Token.

It stands in front of Flask, as the dispatch does, so that Vault clients use keys as fast as others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote

import msgspec

from kms import errors
from kms.access.lockout import network_of
from kms.access.ratelimit import RateClass, identity
from kms.api import requests
from kms.api.admission import Admission
from kms.api.fast_path import Environ, StartResponse, WsgiApp
from kms.api.faults import long_request_id, recorded_fault
from kms.api.headers import JSON, request_headers, security_headers
from kms.api.origin import presented_certificate
from kms.api.transit import (  # noqa: F401  # they fill the table
    encrypting,
    logins,
    managing,
    mounting,
    signing,
    system,
    tokens,
    transferring,
)
from kms.api.transit.answers import Fault, envelope, fault_of
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import DELETE, LIST, READ, ROUTES, WRITE, Body, Done, Route, help_of
from kms.keys.ids import is_mount
from kms.operations import Call, Service

_PREFIX = "/v1/"
_LONGEST_PATH = 512
_METHODS = frozenset({*READ, *WRITE, *LIST, *DELETE})
_LONGEST_PUBLIC = 20_480  # a platform's token, and what goes with it
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})  # as Go's programs write it
_NO_KEY = "encryption key not found"
_ROOT_NAMESPACE = frozenset({"", "root"})


@dataclass
class TransitMiddleware:
    """A WSGI application in front of another, which gets everything that is not of this dialect."""

    next_app: WsgiApp
    service: Service
    admission: Admission

    def __post_init__(self) -> None:
        self._routed = lru_cache(maxsize=10_000)(self._route)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve the request here, or have it served behind."""
        path = environ["PATH_INFO"]
        if not path.startswith(_PREFIX):
            return self.next_app(environ, start_response)
        began = time.perf_counter()
        call = Call("transit", environ.get("REMOTE_ADDR") or "unknown", long_request_id())
        outcome, retry, location = "success", None, None
        try:
            done = self._answer(environ, path[len(_PREFIX) :], call)
            status, location = done.status, done.location
            body = b"" if status == HTTPStatus.NO_CONTENT else _encoded(call, done)
        except Exception as error:  # noqa: BLE001  # every failure has its answer
            fault = recorded_fault(error, Fault, fault_of, self.service, call)
            status, outcome, retry = fault.status, fault.problem, fault.retry_after
            body = msgspec.json.encode({"errors": [fault.message] if fault.message else []}) + b"\n"
        self.service.metrics.count(call.operation, outcome, time.perf_counter() - began)
        headers = [*security_headers(environ.get("HTTP_HOST", "")), *request_headers(call)]
        if retry is not None:
            headers.append(("Retry-After", str(retry)))
        if location is not None:
            headers.append(("Location", location))
        if status != HTTPStatus.NO_CONTENT:
            headers += [("Content-Type", JSON), ("Content-Length", str(len(body)))]
        start_response(f"{status} {_phrase(status)}", headers)
        return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _answer(self, environ: Environ, path: str, call: Call) -> Done:
        method, query = environ["REQUEST_METHOD"], _query(environ)
        if method == "HEAD" or (method in READ and query.get("list") in _TRUE):
            (method,) = READ if method == "HEAD" else LIST
        is_plain = len(path) <= _LONGEST_PATH and method in _METHODS
        routed = self._routed(method, path) if is_plain else None
        if routed is not None:
            call.operation = f"transit:{routed[0].function.__name__.rstrip('_')}"
        limit = self.service.settings.max_body_bytes
        length = requests.body_length(environ, limit)
        if "//" in path:
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            return _without_empty_parts(environ)
        _require_supported(environ)
        token = self._prove(environ, call, routed[0] if routed else None)
        if "help" in query and method in READ:
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(call.caller, call.source))
            return Done(bare={"help": help_of(path), "see_also": None})
        if routed is None or (routed[2] and not self._is_mount(routed[2].removesuffix("."))):
            raise Fault(f"unsupported path or method: {path[:80]}", status=404, problem="not-found")
        route, variables, prefix = routed
        self.service.rate_limits.hit(route.rate_class, identity(call.caller, call.source))
        transit, stream = (
            TransitRequest(self.service, call, self.admission, prefix, token, presented_certificate(environ)),
            environ["wsgi.input"],
        )
        if call.caller is None:
            body = self._public_body(route, call, length, stream)
            answer = route.function(transit, body, **variables)
        else:
            content = requests.read_admitted(self.admission, call.caller.client_id, stream, length, limit)
            is_use = route.rate_class is RateClass.USE
            try:
                with nullcontext() if is_use else self.admission.working(call.caller.client_id):
                    answer = route.function(transit, _body(route, content, query), **variables)
            except errors.NotFound as refusal:
                if route.methods in (READ, LIST) or not route.is_of_mount:
                    raise
                # Only what reads is not found in Vault; the rest is a bad request.
                raise Fault(_NO_KEY if is_use else refusal.detail, problem=refusal.problem) from None
        if call.caller is not None:
            self.service.record(call)  # where no operation has left an entry
        return answer if isinstance(answer, Done) else Done(answer)

    def _public_body(self, route: Route, call: Call, length: int | None, stream: Any) -> Body:
        """The body of a login, which comes before any proof; other public routes have none that matters."""
        if route.methods == READ:
            return route.body()
        if length is not None and length > _LONGEST_PUBLIC:
            raise errors.TooLarge(f"At most {_LONGEST_PUBLIC} bytes are taken without a token.")
        content = requests.read_unproven(self.admission, network_of(call.source), stream, length, _LONGEST_PUBLIC)
        return _body(route, content, {})

    def _prove(self, environ: Environ, call: Call, route: Route | None) -> str:
        """Set the caller behind the token, which is given back; none where the route is public."""
        if route is not None and route.is_public:
            return ""
        token: str = environ.get("HTTP_X_VAULT_TOKEN", "")
        if not token:
            scheme, _, parameter = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
            token = parameter.strip() if scheme.lower() == "bearer" else ""
        try:
            call.caller = self.service.authenticator.session(token[: requests.LONGEST_HEADER])
        except errors.AuthenticationFailed:
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise
        return token

    def _is_mount(self, mount: str) -> bool:
        return is_mount(mount) and self.service.key_cache.is_mount(mount)

    def _route(self, method: str, path: str) -> tuple[Route, dict[str, str], str] | None:
        """What serves `path`, the parts of it with names of keys as ids, and how the ids of the mount begin."""
        mount, _, rest = path.partition("/")
        prefix = "" if mount == self.service.settings.transit_mount else f"{mount}."
        for route in ROUTES:
            found = route.pattern.fullmatch(f"~/{rest}" if route.is_of_mount else path)
            if found and method in route.methods:
                parts = found.groupdict()
                if route.is_of_mount:
                    parts |= {part: prefix + parts[part] for part in ("name", "destination") if part in parts}
                return route, parts, prefix if route.is_of_mount else ""
        return None


def _encoded(call: Call, done: Done) -> bytes:
    shown = done.bare if done.bare is not None else envelope(call.request_id, done.data, done.auth)
    return msgspec.json.encode(shown) + b"\n"


def _query(environ: Environ) -> dict[str, str]:
    text = environ.get("QUERY_STRING", "")
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()} if text else {}


def _require_supported(environ: Environ) -> None:
    """Refuse what would change the meaning of a request and is not here. Raises Fault."""
    namespace = environ.get("HTTP_X_VAULT_NAMESPACE", "").strip("/")
    if namespace not in _ROOT_NAMESPACE:
        raise Fault("no such namespace; further mounts keep names apart here", status=404, problem="not-found")
    if "HTTP_X_VAULT_WRAP_TTL" in environ:
        raise Fault("wrapping of answers is not supported")


def _without_empty_parts(environ: Environ) -> Done:
    """Where to go with a path in which two slashes follow each other, as Vault says it."""
    path = re.sub("/{2,}", "/", environ["PATH_INFO"]).encode("latin-1")
    query = environ.get("QUERY_STRING", "")
    return Done(status=307, bare={}, location=quote(path) + (f"?{query}" if query else ""))


@cache
def _decoder(kind: type[Body]) -> Any:
    return msgspec.json.Decoder(kind, strict=False)


def _body(route: Route, content: bytes, query: dict[str, str]) -> Body:
    """What a request says in its body, or where it reads or lists in its query. Raises Fault."""
    try:
        if route.methods in (READ, LIST):
            return msgspec.convert(query, route.body, strict=False)
        body: Body = _decoder(route.body).decode(content or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"null" not in content:
            raise _unreadable(error) from None
    else:
        return body
    try:
        return msgspec.convert(_without_null(msgspec.json.decode(content)), route.body, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from None


def _without_null(given: Any) -> Any:
    """`given` without the members that are null, its own and those of what it lists; null itself has no members."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        return given
    listed = {name: list(map(_without_null, value)) for name, value in given.items() if isinstance(value, list)}
    return {name: listed.get(name, value) for name, value in given.items() if value is not None}


def _unreadable(error: Exception) -> Fault:
    if not isinstance(error, msgspec.ValidationError):
        return Fault("error parsing JSON", problem="malformed-request")
    return Fault(re.sub(r" - at `\$\.?([^`]*)`$", r": \1", str(error)))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
