"""The Flask application: routes made from the operation table, guarded by Flask-Limiter."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast

import msgspec
from flask import Flask, Response, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits.errors import StorageError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from kms import errors
from kms.access.lockout import network_of
from kms.access.model import Caller
from kms.access.ratelimit import RateClass, identity, limited, storage_of
from kms.api import openapi, problems, reference, requests, token_endpoint
from kms.api.admission import Admission
from kms.api.aws.middleware import AwsMiddleware
from kms.api.aws.sts_door import StsMiddleware
from kms.api.console.hooks import register as register_console
from kms.api.cursors import Cursors
from kms.api.fast_path import FastPathMiddleware, WsgiApp
from kms.api.headers import JSON, request_headers, security_headers
from kms.api.origin import with_origin
from kms.api.transit.middleware import TransitMiddleware
from kms.audit.keys import verifier_key
from kms.operations import (
    OPERATIONS,
    BatchItems,
    BytesAnswer,
    Call,
    Operation,
    Request,
    Service,
    TextAnswer,
    execute_operation,
    new_request_id,
)
from kms.operations.accounts.sessions import TokenRequest
from kms.operations.keys.public_keys import verification_keys
from kms.operations.system.checking import checked_state
from kms.operations.system.readiness import CONDITIONS, audit_log_state, require_ready

_NOTHING_HERE = "There is nothing at this path. What there is stands at /docs, and for programs at /openapi.json."


def create_flask_app(service: Service) -> Flask:
    """The WSGI application of one worker."""
    app = Flask("kms", static_folder=None)
    app.url_map.strict_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.merge_slashes = False
    app.extensions["kms"] = service
    hooks = FlaskHooks(service, Admission(service.settings.threads))
    uri, options = storage_of(service.settings)
    limiter = Limiter(
        key_func=lambda: identity(g.call.caller, g.call.source),
        app=app,
        storage_uri=uri,
        enabled=service.rate_limits.enabled,
        storage_options={**options, "wrap_exceptions": True},
    )
    app.extensions["kms.limiter"] = limiter  # its decorators hold it only weakly
    app.before_request(hooks.open)
    app.after_request(hooks.close)
    app.register_error_handler(Exception, hooks.refuse)
    for operation in OPERATIONS.values():
        limit = limiter.shared_limit(
            getattr(service.settings, f"rate_limit_{operation.rate_class}"), scope=operation.rate_class
        )
        _route(app, operation.name, operation.method, operation.path, limit(hooks.view(operation)))
    public = limiter.shared_limit(service.settings.rate_limit_public, scope=RateClass.PUBLIC)
    for page in (hooks.livez, hooks.readyz):
        _route(app, page.__name__, "GET", f"/{page.__name__}", page)
    _route(app, "jwks", "GET", "/.well-known/jwks.json", public(hooks.jwks))
    _route(app, "client_jwks", "GET", "/clients/<client_id>/.well-known/jwks.json", public(hooks.client_jwks))
    _route(app, "audit_key", "GET", "/.well-known/audit-key", public(hooks.audit_key))
    _route(app, "openapi", "GET", "/openapi.json", public(hooks.openapi))
    _route(app, "home", "GET", "/", public(hooks.home))
    _route(app, "docs", "GET", "/docs", public(hooks.docs))
    _route(app, "problem", "GET", "/problems/<name>", public(hooks.problem))
    register_console(app, service, hooks.admission)
    transit = TransitMiddleware(cast(WsgiApp, app.wsgi_app), service, hooks.admission)
    dialects = AwsMiddleware(StsMiddleware(transit, service, hooks.admission), service, hooks.admission)
    fast_path = FastPathMiddleware(dialects, service, hooks.admission)
    app.wsgi_app = with_origin(fast_path, service)  # type: ignore[assignment,method-assign]  # Flask's own hook
    return app


_PROBES = {"livez", "readyz"}


def _route(app: Flask, name: str, method: str, path: str, view: Callable[..., Response]) -> None:
    app.add_url_rule(path, name, view, methods=[method], provide_automatic_options=False)


@dataclass
class FlaskHooks:
    """What every request passes: on the way in proof and admission, on the way out headers, log and metrics."""

    service: Service
    admission: Admission
    probed: dict[str, str] = field(default_factory=dict)  # how each of the pages for probes was answered last

    def __post_init__(self) -> None:
        self.cursors = Cursors(self.service.vault.derived_keys)

    def open(self) -> None:
        """Refuse by size, then prove the caller; nothing of the body is read before that."""
        g.began = time.perf_counter()
        name = request.endpoint or "unknown"
        g.call = call = Call(name, request.remote_addr or "unknown", new_request_id())
        g.body_length = requests.body_length(request.environ, self.service.settings.max_body_bytes)
        operation = OPERATIONS.get(name)
        if operation is None or operation.is_public:
            return
        try:
            call.caller = self._proven(operation, call)
        except errors.Refusal as refusal:
            if not isinstance(refusal, errors.RateLimited):  # a flood must not fill the audit log
                self.service.record(call, refusal)
            raise

    def _proven(self, operation: Operation, call: Call) -> Caller | None:
        """Whom the headers prove; None where the body is to do that."""
        authenticator = self.service.authenticator
        try:
            presented = requests.presented(request, operation)
            if isinstance(presented, str):
                return authenticator.session(presented)
        except errors.AuthenticationFailed:
            # Counted apart from logins: whoever floods from a place must not keep others there from logging in.
            self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, call.source))
            raise
        self.service.rate_limits.hit(RateClass.AUTHENTICATE, identity(None, call.source))
        if presented is None:
            return None
        with self.admission.slow() if presented.is_passphrase else nullcontext():
            return self.service.authenticate(presented, call.source)

    def view(self, operation: Operation) -> Callable[..., Response]:
        """The Flask view of `operation`."""

        def serve(**path: str) -> Response:
            call: Call = g.call
            try:
                read_request = self._read(operation, call)
            except errors.Refusal as refusal:
                if not isinstance(refusal, errors.RateLimited):
                    self.service.record(call, refusal)
                raise
            cursors = self.cursors
            who = call.caller.client_id if call.caller is not None else network_of(call.source)
            with self.admission.for_operation(operation, who):
                answer = execute_operation(self.service, operation, call, read_request, path)
            return _response(cursors.shown(operation.name, answer), operation, call.request_id)

        serve.__name__ = operation.name  # Flask-Limiter tells views apart by their names
        return serve

    def _read(self, operation: Operation, call: Call) -> Callable[[], Request | BatchItems]:
        """Read the body, and give what decodes it.

        Where the headers prove nobody it must, unless the operation is for everybody, or that is refused.
        """
        stream, limit = request.environ["wsgi.input"], self.service.settings.max_body_bytes
        if call.caller is not None:
            body = requests.read_admitted(self.admission, call.caller.client_id, stream, g.body_length, limit)
            parse = partial(requests.parse, request, operation, body)
            if operation.is_token_endpoint:
                return lambda: token_endpoint.require_proof_in_headers(cast(TokenRequest, parse()))
            return lambda: self.cursors.opened(operation.name, parse())
        if g.body_length is not None and g.body_length > token_endpoint.LONGEST_BODY:
            raise errors.TooLarge(f"At most {token_endpoint.LONGEST_BODY} bytes are taken before a proof.")
        network = network_of(call.source)
        body = requests.read_unproven(self.admission, network, stream, g.body_length, token_endpoint.LONGEST_BODY)
        if operation.is_public:
            return partial(requests.parse, request, operation, body)
        decoded = cast(TokenRequest, requests.parse(request, operation, body))
        call.caller = token_endpoint.proven_in_body(self.service, request, decoded, call)
        return lambda: decoded

    def close(self, response: Response) -> Response:
        """Add the headers that every answer has; count and log the request."""
        call: Call = g.call
        outcome = getattr(g, "outcome", "success")
        for name, value in security_headers(request.environ.get("HTTP_HOST", "")):
            response.headers.setdefault(name, value)
        for name, value in request_headers(call):
            response.headers[name] = value
        seconds = time.perf_counter() - g.began
        self.service.metrics.count(call.operation, outcome, seconds)
        operation = OPERATIONS.get(call.operation)
        if operation is not None and operation.hot and outcome == "success":
            return response  # the audit log has it; a line here would cost more than the operation
        if call.operation in _PROBES:
            before, self.probed[call.operation] = self.probed.get(call.operation, "success"), outcome
            if before == outcome:
                return response  # asked every few seconds; what is new about it is logged
        problems.log_answer(call, outcome, response.status_code, seconds)
        return response

    def refuse(self, error: Exception) -> Response:
        """Every failure as a problem document; the unforeseen ones are logged and say nothing."""
        allow = None
        if isinstance(error, RateLimitExceeded) and error.limit is not None:
            error = self._limited(error)
        elif isinstance(error, StorageError):
            error = errors.Unavailable("The rate limits cannot be counted. Try again.", retry_after=1)
        elif isinstance(error, NotFound) or (isinstance(error, MethodNotAllowed) and request.path == "/"):
            error = errors.NotFound(_NOTHING_HERE)
        elif isinstance(error, MethodNotAllowed):
            allow = ", ".join(sorted(_methods_at(request.path) or error.valid_methods or ()))
            error = errors.MethodNotAllowed(f"This path takes {allow}.")
        elif isinstance(error, HTTPException) and error.code is not None and error.code < 500:
            error = errors.MalformedRequest("The request cannot be read.")
        refusal = problems.refusal_of(error, g.call.request_id, self.service.metrics)
        g.outcome = refusal.problem
        body, headers = problems.encoded(refusal, g.call.request_id)
        response = Response(body, refusal.status, headers)
        if allow is not None:
            response.headers["Allow"] = allow
        return response

    def _limited(self, error: RateLimitExceeded) -> errors.Refusal:
        """Flask-Limiter's exception as the refusal that the engine under it would have given."""
        assert error.limit is not None
        operation = OPERATIONS.get(g.call.operation)
        rate_class = operation.rate_class if operation else RateClass.PUBLIC
        who = identity(g.call.caller, g.call.source)
        ends = self.service.rate_limits.strategy.get_window_stats(error.limit.limit, who, rate_class).reset_time
        return limited(rate_class, error.limit.limit, ends)

    def livez(self) -> Response:
        """Whether the process runs."""
        return Response("ok\n", content_type="text/plain")

    def readyz(self) -> Response:
        """Whether this worker carries out uses of keys; the refusal is the one that a use would be given."""
        require_ready(self.service)
        details = ""
        if "verbose" in request.args:
            details = "".join(f"{name}: ok\n" for name, _ in CONDITIONS)
            details += checked_state(self.service) + audit_log_state(self.service)
        return Response(f"ok\n{details}", content_type="text/plain")

    def jwks(self) -> Response:
        """The public keys with which the service signs (RFC 7517)."""
        return _published(msgspec.json.encode(self.service.publisher.jwks()), JSON)

    def client_jwks(self, client_id: str) -> Response:
        """The public keys that verify what a client signs with; the same for one that is not there."""
        return _published(msgspec.json.encode(verification_keys(self.service, client_id)), JSON)

    def audit_key(self) -> Response:
        """The key that verifies the checkpoints of the audit log, as a verifier key (c2sp.org/signed-note)."""
        with self.service.vault.read() as snapshot:
            key = verifier_key(snapshot, self.service.settings.audit_origin)
        return _published(f"{key}\n".encode(), "text/plain; charset=utf-8")

    def openapi(self) -> Response:
        """The description of the whole interface."""
        return _published(msgspec.json.encode(openapi.description()), JSON)

    def home(self) -> Response:
        """A page that leads people on. Raises NotFound for programs, for which there is nothing."""
        if request.accept_mimetypes.best_match([JSON, "text/html"]) != "text/html":
            raise errors.NotFound(_NOTHING_HERE)
        response = _page(reference.home())
        response.headers["Vary"] = "Accept"
        return response

    def docs(self) -> Response:
        """The same to read."""
        return _page(reference.page())

    def problem(self, name: str) -> Response:
        """The page that explains a problem type."""
        text = problems.explanation(name)
        if text is None:
            raise errors.NotFound("There is no such problem type.")
        return Response(text, content_type="text/plain; charset=utf-8")


def _methods_at(path: str) -> list[str]:
    """The methods of the operations at that path: of those that fit, the ones with the fewest variables."""
    fitting = [each for each in OPERATIONS.values() if _pattern(each.path).fullmatch(path)]
    fewest = min((each.path.count("<") for each in fitting), default=0)
    return [each.method for each in fitting if each.path.count("<") == fewest]


@cache
def _pattern(rule: str) -> re.Pattern[str]:
    return re.compile(re.sub("<[^>]*>", "[^/]+", rule))


def _page(html: str) -> Response:
    response = _published(html.encode(), "text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = reference.CONTENT_SECURITY_POLICY
    return response


def _published(body: bytes, content_type: str) -> Response:
    response = Response(body, content_type=content_type)
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


def _response(answer: Any, operation: Operation, request_id: str) -> Response:
    if isinstance(answer, TextAnswer):
        response = Response(answer.body, operation.status, content_type=answer.content_type)
        if answer.etag is not None:
            response.set_etag(answer.etag)
            response.headers["Cache-Control"] = "private, no-cache"
            response.make_conditional(request)
        return response
    if isinstance(answer, BytesAnswer):
        response = Response(answer.body, operation.status, content_type="application/octet-stream")
        if answer.is_immutable:
            response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
        return response
    response = Response(problems.encoded_answer(answer, request_id), operation.status, content_type=JSON)
    location = problems.location_of(operation, answer)
    if location is not None:
        response.headers["Location"] = location
    return response
