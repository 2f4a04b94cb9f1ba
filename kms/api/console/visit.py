"""One request of a person who is logged in, and the operations that its page carries out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import quote

from flask import Response

from kms.access import policy, step_up
from kms.access.lockout import network_of
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.access.ratelimit import identity
from kms.api import requests
from kms.api.admission import Admission
from kms.api.console.render import Renderer
from kms.api.console.requested import Form, text
from kms.api.console.session import ConsoleSession
from kms.api.cursors import Cursors
from kms.errors import AuthenticationFailed, Refusal, TooLarge, ValidationFailed
from kms.operations import OPERATIONS, Call, Request, Service, execute_operation

CONFIRMED_WITHIN = timedelta(minutes=5)
"""How long a second factor counts for what must be confirmed with one."""
_LONGEST_FORM = 64 * 1024

NULL = object()
"""Stands for a member that is null, which is another thing than one that is left out."""


@dataclass(frozen=True)
class Console:
    """What all pages share, in one worker."""

    service: Service
    admission: Admission
    cursors: Cursors
    renderer: Renderer


@dataclass
class Visit:
    """A request under a session. `form` is what was sent with it, empty where it only looks."""

    console: Console
    call: Call
    session: ConsoleSession
    query: Mapping[str, str]
    form: Form = field(default_factory=dict, repr=False)
    path: str = ""

    @property
    def service(self) -> Service:
        """The service of this worker."""
        return self.console.service

    @property
    def caller(self) -> Caller:
        """Whose session it is."""
        return self.call.known_caller

    @property
    def now(self) -> datetime:
        """The time, by the service's clock."""
        return self.service.clock()

    def may(self, permission: Permission) -> bool:
        """Whether to offer what asks for this; the operation decides."""
        return policy.has_permission(self.caller, permission)

    def may_of(self, permission: Permission, owner: str) -> bool:
        """Whether to offer this with what belongs to `owner`."""
        return policy.is_in_scope(self.caller, permission) and policy.by_role(self.caller, permission, owner)

    def run(self, operation: str, values: Mapping[str, Any] | None = None, **path: Any) -> Any:
        """Carry out an operation of the table, counted and admitted as over REST. Raises Refusal.

        `values` are the members of its request; what is None is left out, and numbers and periods may be text.
        """
        declared = OPERATIONS[operation]
        self.service.rate_limits.hit(declared.rate_class, identity(self.caller, self.call.source))
        own = Call(operation, self.call.source, self.call.request_id, self.caller, dialect="console")
        given = {name: value for name, value in (values or {}).items() if value is not None}
        given = {name: None if value is NULL else value for name, value in given.items()}
        cursors = self.console.cursors

        def read_request() -> Request:
            return cast(Request, cursors.opened(operation, requests.converted(given, declared.request)))

        try:
            with self.console.admission.for_operation(declared, self.caller.client_id):
                answer = execute_operation(self.service, declared, own, read_request, path)
        finally:
            self.call.leaf = own.leaf or self.call.leaf
        return cursors.shown(operation, answer)

    def field(self, name: str) -> str | None:
        """The value of a field of the form, None where it was left empty. Raises MalformedRequest."""
        return text(self.form, name) or None

    def days(self, name: str) -> str | None:
        """A number of days in a field, as an ISO 8601 period. Raises ValidationFailed."""
        given = self.field(name)
        if given is None:
            return None
        if not (given.isascii() and given.isdigit() and len(given) <= 5 and int(given)):
            raise ValidationFailed(f"{name}: a number of days, such as 90.")
        return f"P{int(given)}D"

    @property
    def must_confirm(self) -> bool:
        """Whether what is dangerous asks for a second factor now: the last one was longer ago than five minutes."""
        return not step_up.is_fresh(self.caller, CONFIRMED_WITHIN, self.now)

    def confirm(self) -> None:
        """Have the person confirm with the code in the form, if that `must_confirm`. Raises Refusal."""
        if not self.must_confirm:
            return
        code = self.field("code")
        if code is None:
            raise ValidationFailed("code: give the six digits that your authenticator app shows now.")
        try:
            self.run("confirm_second_factor", {"code": code})
        except AuthenticationFailed as refusal:
            raise ValidationFailed(f"code: {refusal.detail}") from None
        self.call.caller = self.service.authenticator.session(self.session.token)

    def render(self, template: str, refusal: Refusal | None = None, status: int = 200, **given: Any) -> Response:
        """A page. With a `refusal` it says so, beside the field that it is about, and has its status."""
        about, sentence = _placed(refusal, given.pop("fields", ()))
        notice, self.session.notice = self.session.notice, ""
        body = self.console.renderer.render(
            template,
            visit=self,
            caller=self.caller,
            csrf=self.session.csrf,
            must_confirm=self.must_confirm,
            idle_seconds=int(self.service.settings.console_idle.total_seconds()),
            now=self.now,
            notice=notice,
            error=sentence if not about else None,
            errors={about: sentence} if about else {},
            value=self._value,
            values=lambda name: self.form.get(name, []),
            sent=bool(self.form),
            P=Permission,
            **given,
        )
        response = Response(body, refusal.status if refusal else status, content_type="text/html; charset=utf-8")
        if refusal is not None and refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
        return response

    def go(self, path: str, notice: str = "") -> Response:
        """Send the browser to another page of the console, which says `notice` first."""
        self.session.notice = notice
        return see_other(f"/console{quote(path)}")

    def _value(self, name: str, otherwise: object = "") -> str:
        """What to show in a field: what was sent, which must not be lost, or what it is now."""
        if self.form:
            return self.form.get(name, [""])[0]
        return "" if otherwise is None else str(otherwise)


def _placed(refusal: Refusal | None, fields: tuple[str, ...]) -> tuple[str, str]:
    """The field that a refusal is about, where it names one of `fields`, and its sentence."""
    if refusal is None:
        return "", ""
    path, colon, sentence = refusal.detail.partition(": ")
    member = path.partition("[")[0]  # of a list, whose items have no fields of their own
    if colon and member in {*fields, "code"}:
        plain = _plain(sentence)
        return member, plain[:1].upper() + plain[1:]
    return "", refusal.detail


_IN_PLAIN_WORDS = (
    (r"Expected `str` matching regex .*", "This is not of the form that is described above."),
    (r"Expected `str` of length >= (\d+).*", r"At least \1 characters."),
    (r"Expected `str` of length <= (\d+).*", r"At most \1 characters."),
    (r"Expected `array` of length >= 1\b.*", "Choose one at least."),
    (r"Expected `array` of length <= (\d+).*", r"At most \1."),
    (r"Expected `object` of length <= (\d+).*", r"At most \1."),
    (r"Expected `int` >= (\d+).*", r"A number, at least \1."),
    (r"Expected `int`.*", "A number."),
    (r"Expected .*|Invalid .*", "This cannot be read."),
    (r"this member is needed and is not there\.", "This is needed."),
)


def _plain(sentence: str) -> str:
    """A sentence for programs as one for a person, whose field it stands beside."""
    for pattern, words in _IN_PLAIN_WORDS:
        if found := re.fullmatch(pattern, sentence):
            return found.expand(words)
    return sentence


def read_form_of(console: Console, call: Call, stream: Any, length: int | None) -> bytes:
    """The body of a request whose sender is proven, or not yet. Raises Refusal."""
    limit = _LONGEST_FORM
    if length is not None and length > limit:
        raise TooLarge(f"At most {limit} bytes are taken in a form.")
    if call.caller is not None:
        return requests.read_admitted(console.admission, call.caller.client_id, stream, length, limit)
    return requests.read_unproven(console.admission, network_of(call.source), stream, length, limit)


def see_other(path: str) -> Response:
    """Send the browser to a path of this service, to look at it."""
    return Response("", 303, {"Location": path}, content_type="text/plain; charset=utf-8")
