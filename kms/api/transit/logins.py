"""Logins and a caller's own token in the Vault dialect."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from kms.access.authentication import Credentials
from kms.access.model import Token
from kms.access.ratelimit import RateClass
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import READ, WRITE, Body, Done, route
from kms.errors import MfaRequired
from kms.operations.accounts.sessions import TokenRequest
from kms.operations.core.declare import EmptyRequest

_POLICIES = ["default"]


class LoginBody(Body, kw_only=True):
    """A client's secret and the code of its authenticator app."""

    password: str
    totp: str | None = None
    passcode: str | None = None


class TokenBody(Body, kw_only=True):
    """Which token."""

    token: str = ""


@route(WRITE, "auth/userpass/login/<client_id>", LoginBody, RateClass.AUTHENTICATE, is_public=True)
def login(transit: TransitRequest, body: LoginBody, client_id: str) -> Done:
    """Give out a session token for a secret and a second factor."""
    service, call = transit.service, transit.call
    code = body.totp or body.passcode
    if code is None:
        raise MfaRequired("Add totp with the code of the authenticator app.")
    presented = Credentials(client_id, body.password[:1024], totp_code=code[:1024])
    with transit.slow() if presented.is_passphrase else nullcontext():
        call.caller = service.authenticate(presented, call.source)
    answer = transit.run("issue_token", TokenRequest())
    issued = service.authenticator.session(answer.access_token)
    assert issued.token is not None
    auth = {
        "client_token": answer.access_token,
        "accessor": _accessor(issued.token),
        "policies": _POLICIES,
        "token_policies": _POLICIES,
        "identity_policies": [],
        "metadata": {"username": client_id},
        "lease_duration": answer.expires_in,
        "renewable": False,
        "entity_id": client_id,
        "token_type": "service",
        "orphan": True,
        "mfa_requirement": None,
        "num_uses": 0,
    }
    return Done(auth=auth)


@route(READ, "auth/token/lookup-self")
def lookup_self(transit: TransitRequest, body: Body) -> Any:
    """Show what the token is."""
    token = transit.call.known_caller.token
    assert token is not None  # there is no other way in
    lifetime = int((token.expires_at - token.issued_at).total_seconds())
    left = int((token.expires_at - transit.service.clock()).total_seconds())
    return {
        "accessor": _accessor(token),
        "creation_time": int(token.issued_at.timestamp()),
        "creation_ttl": lifetime,
        "display_name": f"userpass-{token.client_id}",
        "entity_id": token.client_id,
        "expire_time": _rfc3339(token.expires_at),
        "explicit_max_ttl": lifetime,
        "id": transit.token,
        "identity_policies": [],
        "issue_time": _rfc3339(token.issued_at),
        "meta": {"username": token.client_id},
        "num_uses": 0,
        "orphan": True,
        "path": f"auth/userpass/login/{token.client_id}",
        "policies": _POLICIES,
        "renewable": False,
        "ttl": max(left, 0),
        "type": "service",
    }


@route(WRITE, "auth/token/lookup", TokenBody)
def lookup(transit: TransitRequest, body: TokenBody) -> Any:
    """Show what the token is, which must be the one that asks."""
    _require_own(transit, body)
    return lookup_self(transit, Body())


@route(WRITE, "auth/token/renew-self")
@route(WRITE, "auth/token/renew", TokenBody)
def renew(transit: TransitRequest, body: Body) -> Any:
    """Refuse: the end of a token is fixed when it is issued."""
    _require_own(transit, body)
    raise Fault("lease is not renewable")


@route(WRITE, "auth/token/revoke-self")
def revoke_self(transit: TransitRequest, body: Body) -> Done:
    """End the session, on every worker, before this answers."""
    transit.run("end_session", EmptyRequest())
    return Done(status=204)


def _require_own(transit: TransitRequest, body: Body) -> None:
    if isinstance(body, TokenBody) and body.token not in ("", transit.token):
        raise Fault("permission denied", status=403, problem="permission-denied")


def _accessor(token: Token) -> str:
    """A name of the token that opens nothing."""
    return sha256(token.token_hash).hexdigest()[:24]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
