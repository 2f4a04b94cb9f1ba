"""The console in front of Flask: logging in and out, and what every page passes on its way in and out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from flask import Flask, Response, g, request

from kms import errors
from kms.access.authentication import Credentials
from kms.access.model import Caller
from kms.access.ratelimit import RateClass, identity
from kms.api import problems, token_endpoint
from kms.api.admission import Admission
from kms.api.console import pages, session
from kms.api.console.pages.approvals import to_waiting_call
from kms.api.console.render import CONTENT_SECURITY_POLICY, MEDIA_TYPES, Renderer
from kms.api.console.requested import Form, form_of, require_csrf_token, require_own_origin, text
from kms.api.console.routes import ROUTES, Route
from kms.api.console.session import COOKIE, ConsoleSession
from kms.api.console.visit import Console, Visit, read_form_of, see_other
from kms.api.cursors import Cursors
from kms.operations import OPERATIONS, Call, Service, execute_operation
from kms.operations.accounts.sessions import TokenRequest

_LOGIN = "/console/login"
_IDLE = "You were logged out, because nothing was done for {minutes}."
_OVER = "Your session is over. Log in again."
_LONGEST_FIELD = 8192


def register(app: Flask, service: Service, admission: Admission) -> None:
    """Add the console to the application, unless the settings have it off."""
    if service.settings.console == "off":
        return
    assert pages.__name__  # imported, and so its modules have declared their pages
    hooks = ConsoleHooks(Console(service, admission, Cursors(service.vault.derived_keys), Renderer()))

    def route(method: str, path: str, endpoint: str, view: Callable[..., Response]) -> None:
        app.add_url_rule(f"/console{path}", endpoint, view, methods=[method], provide_automatic_options=False)

    route("GET", "/static/<digest>/<name>", "console:static", hooks.static)
    route("GET", "/login", "console:login_form", hooks.login_form)
    route("POST", "/login", "console:login", hooks.login)
    for each in ROUTES:
        route(each.method, each.path, each.endpoint, hooks.view(each))
    route("POST", "/logout", "console:logout", hooks.logout)
    route("GET", "/<path:elsewhere>", "console:nothing", hooks.view(Route("GET", "/<path:elsewhere>", _nothing)))


def _nothing(visit: Visit, elsewhere: str) -> Response:
    raise errors.NotFound("There is no such page.")


class _Idle(errors.AuthenticationFailed):
    """The session was idle for too long, and is ended."""


class ConsoleHooks:
    """What is done for every page."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.service = console.service
        self._keys = console.service.vault.derived_keys

    def static(self, digest: str, name: str) -> Response:
        """A file that pages use; its address changes with it, so that it can be kept."""
        self._count_public()
        body = self.console.renderer.static(digest, name)
        if body is None:
            raise errors.NotFound("There is no such file. Load the page again.")
        response = Response(body, content_type=MEDIA_TYPES[name])
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response

    def login_form(self) -> Response:
        """The page to log in on; who is logged in is sent on."""
        try:
            self._count_public()
            if self._visit() is not None:
                return _finished(see_other("/console"))
        except errors.AuthenticationFailed:
            pass  # a session that is over
        except errors.Refusal as refusal:
            return self._refused_login(refusal, {})
        return self._login_page()

    def login(self) -> Response:
        """Make a session by `issue_token` for who proves to be a client, and the cookie that holds it."""
        call = Call("issue_token", g.call.source, g.call.request_id)
        form: Form = {}
        try:
            form = self._login_form_of(call)
            self._prove(call, form)
            self.service.rate_limits.hit(RateClass.MANAGE, identity(call.caller, call.source))
            client_id = call.known_caller.client_id
            with self.console.admission.working(client_id):
                made = execute_operation(self.service, OPERATIONS["issue_token"], call, lambda: TokenRequest(), {})
        except errors.Refusal as refusal:
            return self._refused_login(refusal, form)
        response = see_other("/console")
        return self._kept(response, ConsoleSession.of(made.access_token, self.service.clock()))

    def _login_form_of(self, call: Call) -> Form:
        """The form of a log-in, counted as one. Raises Refusal."""
        self.service.rate_limits.hit(RateClass.AUTHENTICATE, identity(None, call.source))
        require_own_origin(request.headers, self.service.settings.public_url)
        body = read_form_of(self.console, call, request.environ["wsgi.input"], g.body_length)
        return form_of(request.mimetype, body)

    def _prove(self, call: Call, form: Form) -> None:
        """Set the caller of a log-in; one that is refused leaves an audit entry, as over REST. Raises Refusal."""
        try:
            call.caller = g.call.caller = self._proven(call, form)
        except errors.Refusal as refusal:
            if not isinstance(refusal, errors.RateLimited):
                self.service.record(call, refusal)
            raise

    def _proven(self, call: Call, form: Form) -> Caller:
        passkey = text(form, "passkey")
        if passkey:
            return token_endpoint.proven_by_passkey(self.service, TokenRequest(passkey=passkey), call)
        presented = Credentials(
            text(form, "client_id")[:_LONGEST_FIELD],
            text(form, "client_secret")[:_LONGEST_FIELD],
            totp_code=text(form, "code")[:_LONGEST_FIELD] or None,
            recovery_code=text(form, "recovery_code")[:_LONGEST_FIELD] or None,
        )
        if presented.totp_code is None and presented.recovery_code is None:
            raise errors.MfaRequired("Give the six digits that your authenticator app shows, or a recovery code.")
        with self.console.admission.slow() if presented.is_passphrase else nullcontext():
            return self.service.authenticate(presented, call.source)

    def logout(self) -> Response:
        """End the session, on every worker, and have the browser forget the cookie."""
        visit = None
        try:
            self._count_public()
            require_own_origin(request.headers, self.service.settings.public_url)
            visit = self._visit()
            if visit is None:
                return self._login_page()  # a form of another site comes without the cookie, and must not remove it
            self._read_form(visit)
            visit.run("end_session")
        except errors.AuthenticationFailed:
            pass  # it is over anyway
        except errors.Refusal as refusal:
            return self._refusal_page(visit, refusal)
        return self._login_page(notice="You are logged out.", forget=True)

    def view(self, route: Route) -> Callable[..., Response]:
        """The Flask view of a page for who is logged in."""

        def serve(**path: str) -> Response:
            visit = None
            try:
                visit = self._visit()
                if visit is None:
                    return self._to_login(route)
                return self._kept(self._served(route, visit, path), visit.session)
            except errors.AuthenticationFailed as over:
                self._count_public()
                g.outcome = over.problem
                if route.method == "POST":  # as over REST; a page that is only looked at again is no attempt
                    self.service.record(g.call, over)
                notice = over.detail if isinstance(over, _Idle) else _OVER
                return self._login_page(notice=notice, forget=True, status=401 if route.method == "POST" else 200)
            except Exception as error:  # noqa: BLE001  # every failure has its page
                refusal = problems.refusal_of(error, g.call.request_id, self.service.metrics)
                return self._refusal_page(visit, refusal)

        serve.__name__ = route.endpoint
        return serve

    def _served(self, route: Route, visit: Visit, path: dict[str, str]) -> Response:
        """The answer of a page; a form that was refused is shown again with what was sent and the refusal.

        Where a rule covers what was to be done, the browser is sent to the call that waits for approval.
        """
        if route.again is None:
            return route.function(visit, **path)
        self._read_form(visit)
        try:
            return route.function(visit, **path)
        except errors.AuthenticationFailed:
            raise
        except errors.ApprovalPending as pending:
            g.outcome = pending.problem
            return to_waiting_call(visit, pending)
        except errors.Refusal as refusal:
            g.outcome = refusal.problem
            return route.again(visit, refusal=refusal, **path)

    def _read_form(self, visit: Visit) -> None:
        """Read the form, which a page of this session must have sent. Raises Refusal."""
        require_own_origin(request.headers, self.service.settings.public_url)
        body = read_form_of(self.console, visit.call, request.environ["wsgi.input"], g.body_length)
        form = form_of(request.mimetype, body)
        require_csrf_token(form, visit.session.csrf)
        visit.form = form

    def _visit(self) -> Visit | None:
        """The visit under the session in the cookie; None without one. Raises AuthenticationFailed, Unavailable.

        A session that was idle for too long is ended, for good and everywhere.
        """
        held = session.opened(request.cookies.get(COOKIE, ""), self._keys)
        if held is None:
            return None
        call: Call = g.call
        call.caller = self.service.authenticator.session(held.token)
        visit = Visit(self.console, call, held, request.args, path=request.path)
        if held.is_idle(self.service.clock(), self.service.settings.console_idle):
            visit.run("end_session")
            minutes = int(self.service.settings.console_idle.total_seconds() // 60)
            raise _Idle(_IDLE.format(minutes="a minute" if minutes == 1 else f"{minutes} minutes"))
        held.used_at = self.service.clock().timestamp()
        return visit

    def _to_login(self, route: Route) -> Response:
        self._count_public()
        if route.method == "POST":
            return self._login_page(notice=_OVER, status=401)
        return _finished(see_other(_LOGIN))

    def _refused_login(self, refusal: errors.Refusal, form: Form) -> Response:
        g.outcome = refusal.problem
        response = self._login_page(refusal.status, error=refusal.detail, client_id=form.get("client_id", [""])[0])
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
        return response

    def _login_page(
        self, status: int = 200, notice: str = "", error: str = "", client_id: str = "", *, forget: bool = False
    ) -> Response:
        body = self.console.renderer.render("login.html", notice=notice, error=error, client_id=client_id)
        response = Response(body, status, content_type="text/html; charset=utf-8")
        if forget:
            response.headers.add("Set-Cookie", session.set_cookie(""))
        return _finished(response)

    def _refusal_page(self, visit: Visit | None, refusal: errors.Refusal) -> Response:
        g.outcome = refusal.problem
        if visit is None:
            return self._login_page(refusal.status, error=refusal.detail)
        return _finished(visit.render("refused.html", refusal, title=refusal.title, request_id=g.call.request_id))

    def _kept(self, response: Response, held: ConsoleSession) -> Response:
        """The answer with the cookie that says when the session was last used."""
        response.headers.add("Set-Cookie", session.set_cookie(session.sealed(held, self._keys)))
        return _finished(response)

    def _count_public(self) -> None:
        self.service.rate_limits.hit(RateClass.PUBLIC, identity(None, g.call.source))


def _finished(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    for name in ("Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy"):
        response.headers[name] = "same-origin"
    return response
