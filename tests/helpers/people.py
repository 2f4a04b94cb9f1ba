"""People: clients who log in with a secret and the code of an app, or with a passkey."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyotp

from helpers.authenticator import Authenticator
from helpers.support import Api, World
from helpers.tokens import TOKEN_EXCHANGE, new_key, public_jwk
from kms.access.model import Role

PASSKEY_GRANT = "urn:kms:params:oauth:grant-type:passkey"


@dataclass
class Person:
    """A client whose person has just logged in, and the authenticator app."""

    world: World
    client_id: str
    secret: str
    app: pyotp.TOTP
    api: Api

    @classmethod
    def of(cls, world: World, client_id: str, *roles: Role) -> Person:
        """A new client, whose person logs in."""
        made = world.enrol(client_id, *roles)
        person = cls(world, client_id, made.client_secret, pyotp.TOTP(made.totp_secret), Api(world.http, {}, ""))
        person.api = session(world, person.login(), client_id)
        return person

    @property
    def code(self) -> str:
        """What the app shows now."""
        return self.app.at(self.world.service.clock())

    @property
    def path(self) -> str:
        """Where its passkeys are."""
        return f"/api/v1/clients/{self.client_id}/passkeys"

    def login(self, code: str | None = None, **form: str) -> Any:
        """The answer to a log-in with the code that the app shows, or another."""
        headers = {"X-TOTP": self.code if code is None else code}
        return self.world.http.post("/auth/token", data=form, auth=(self.client_id, self.secret), headers=headers)

    def add_key(self, api: Api | None = None) -> Any:
        """The answer to something that asks for a fresh second factor."""
        body = {"jwk": public_jwk(new_key())}
        return (api or self.api).post(f"/api/v1/clients/{self.client_id}/public-keys", body)

    def creation(self) -> dict[str, Any]:
        """The options for a new passkey."""
        answer = self.api.post(f"{self.path}/options", {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json)

    def add(self, authenticator: Authenticator, options: dict[str, Any] | None = None) -> Any:
        """The answer to adding the passkey that the authenticator makes."""
        made = authenticator.create(self.creation() if options is None else options)
        return self.api.post(self.path, {"name": "laptop", "response": made})

    def with_passkey(self, **options: Any) -> Authenticator:
        """An authenticator with a passkey of this client."""
        made = Authenticator(**options)
        answer = self.add(made)
        assert answer.status_code == 201, answer.text
        return made


def session(world: World, answer: Any, client_id: str) -> Api:
    """The session that a log-in gave."""
    assert answer.status_code == 200, answer.text
    return Api(world.http, {"Authorization": f"Bearer {answer.json['access_token']}"}, client_id)


def child_of(world: World, api: Api, **form: str) -> Api:
    """A session that another one makes of itself."""
    answer = world.http.post("/auth/token", data={"grant_type": TOKEN_EXCHANGE, **form}, headers=api.headers)
    return session(world, answer, api.client_id)


def request_options(world: World) -> dict[str, Any]:
    """The options for logging in with a passkey."""
    answer = world.http.post("/auth/passkey/options")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def by_passkey(world: World, response: Any, **form: str) -> Any:
    """The answer to a log-in with what an authenticator has signed."""
    data = {"grant_type": PASSKEY_GRANT, "passkey": json.dumps(response), **form}
    return world.http.post("/auth/token", data=data)
