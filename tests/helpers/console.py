"""A person at the console, in this process."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

import pyotp
from flask import Flask
from flask.testing import FlaskClient

from helpers.support import World
from kms.access.model import Caller, Role
from kms.api.console import session
from kms.api.console.session import COOKIE, ConsoleSession

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


def _new_client(app: Flask) -> FlaskClient:
    return app.test_client()


@dataclass
class Browser:
    """One browser, with a jar of its own."""

    world: World
    http: FlaskClient
    client_id: str = ""
    page: Any = None
    sent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World) -> Browser:
        """A browser in which nobody is logged in."""
        return cls(world, _new_client(world.http.application))

    @classmethod
    def as_client(cls, world: World, client_id: str, *roles: Role, fresh: bool = True) -> Browser:
        """A browser in which that client is logged in, without spending a TOTP code."""
        browser = cls.of(world)
        browser.client_id = client_id
        now = world.service.clock()
        caller = Caller(client_id, frozenset(roles), (), second_factor_at=now if fresh else None)
        with world.service.vault.change() as change:
            token, _ = world.service.authenticator.issue(change, caller)
        browser.hold(ConsoleSession.of(token, now))
        return browser

    def hold(self, held: ConsoleSession) -> None:
        """Put the cookie of a session into the jar."""
        value = session.sealed(held, self.world.service.vault.derived_keys)
        self.http.set_cookie(COOKIE, value, secure=True, httponly=True, samesite="Strict", path="/")

    @property
    def cookie(self) -> str:
        """The value of the cookie; empty without one."""
        found = self.http.get_cookie(COOKIE)
        return found.value if found is not None else ""

    @property
    def held(self) -> ConsoleSession:
        """What is in the cookie."""
        opened = session.opened(self.cookie, self.world.service.vault.derived_keys)
        assert opened is not None
        return opened

    def get(self, path: str, **headers: str) -> Any:
        """Look at a page of the console."""
        self.page = self.http.get(f"/console{path}", headers=headers)
        return self.page

    def post(self, path: str, fields: Any = None, *, csrf: str | None = "", headers: Any = None) -> Any:
        """Send a form, with what the session's forms carry unless another `csrf` is given (None: without)."""
        fields = dict(fields or {})
        if csrf is not None:
            fields["csrf"] = csrf or (self.held.csrf if self.cookie else "")
        sent = SAME_ORIGIN if headers is None else headers
        self.page = self.http.post(f"/console{path}", data=fields, headers=sent)
        return self.page

    def log_in(self, client_id: str, secret: str, **fields: str) -> Any:
        """Send the form of a log-in."""
        self.client_id = client_id
        return self.post("/login", {"client_id": client_id, "client_secret": secret, **fields}, csrf=None)

    def code(self, totp_secret: str) -> str:
        """The six digits of now, by the service's clock."""
        return pyotp.TOTP(totp_secret).at(self.world.service.clock())

    @property
    def text(self) -> str:
        """What the page says, without its markup."""
        body = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", self.page.text, flags=re.DOTALL)
        return re.sub(r"\s+", " ", html.unescape(body)).strip()
