"""The ways to log in of the Vault dialect: people by userpass, programs by jwt, kubernetes, approle and cert."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from kms.access.authentication import Credentials
from kms.access.model import Caller
from kms.access.ratelimit import RateClass
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import READ, WRITE, Body, Done, route
from kms.api.transit.tokens import issued
from kms.errors import AuthenticationFailed, MfaRequired
from kms.operations.accounts.sessions import TokenRequest

_LONGEST_SECRET = 1024
_SERVICE_ACCOUNT = "system:serviceaccount:"


class UserpassBody(Body, kw_only=True):
    """A client's secret and the code of its authenticator app."""

    password: str
    totp: str | None = None
    passcode: str | None = None


class JwtBody(Body, kw_only=True):
    """A platform's token, and the issuer role that takes it."""

    jwt: str
    role: str = ""


class AppRoleBody(Body, kw_only=True):
    """An access key and its secret."""

    role_id: str
    secret_id: str = ""


class CertBody(Body, kw_only=True):
    """The client that the certificate of the connection names; any where it is left out."""

    name: str = ""


@route(WRITE, "auth/userpass/login/<client_id>", UserpassBody, RateClass.AUTHENTICATE, is_public=True)
def login(transit: TransitRequest, body: UserpassBody, client_id: str) -> Done:
    """Give out a session token for a secret and a second factor."""
    code = body.totp or body.passcode
    if code is None:
        raise MfaRequired("Add totp with the code of the authenticator app.")
    presented = Credentials(client_id, body.password[:_LONGEST_SECRET], totp_code=code[:_LONGEST_SECRET])
    with transit.slow() if presented.is_passphrase else nullcontext():
        transit.call.caller = transit.service.authenticate(presented, transit.call.source)
    return issued(transit, TokenRequest(), {"username": client_id})


@route(WRITE, "auth/jwt/login", JwtBody, RateClass.AUTHENTICATE, is_public=True)
def jwt_login(transit: TransitRequest, body: JwtBody) -> Done:
    """Give out a session token for a platform's token."""
    _by_platform_token(transit, body)
    return issued(transit, TokenRequest(), {"role": body.role})


@route(WRITE, "auth/kubernetes/login", JwtBody, RateClass.AUTHENTICATE, is_public=True)
def kubernetes_login(transit: TransitRequest, body: JwtBody) -> Done:
    """Give out a session token for the token of a service account."""
    subject = _by_platform_token(transit, body).subject.rpartition(" ")[2]
    named = subject.removeprefix(_SERVICE_ACCOUNT).split(":") if subject.startswith(_SERVICE_ACCOUNT) else []
    metadata = {"role": body.role}
    if len(named) == 2:  # a namespace and a name
        metadata |= {"service_account_namespace": named[0], "service_account_name": named[1]}
    return issued(transit, TokenRequest(), metadata)


@route(WRITE, "auth/approle/login", AppRoleBody, RateClass.AUTHENTICATE, is_public=True)
def approle_login(transit: TransitRequest, body: AppRoleBody) -> Done:
    """Give out a session token for an access key, which is the `role_id`, and its secret, the `secret_id`."""
    role_id, secret_id = body.role_id[:_LONGEST_SECRET], body.secret_id[:_LONGEST_SECRET]
    _prove(transit, lambda: transit.service.programs.by_access_key(role_id, secret_id, transit.call.source))
    return issued(transit, TokenRequest(), {"role_name": role_id})


@route(WRITE, "auth/cert/login", CertBody, RateClass.AUTHENTICATE, is_public=True)
def cert_login(transit: TransitRequest, body: CertBody) -> Done:
    """Give out a session token for the certificate of the connection."""
    presented = transit.certificate
    if presented is None:
        raise Fault("client certificate must be supplied", problem="authentication-failed")
    leaf, chain = presented
    named = body.name or None
    caller = _prove(transit, lambda: transit.service.programs.by_certificate(named, leaf, chain, transit.call.source))
    return issued(transit, TokenRequest(), {"cert_name": caller.client_id, "common_name": caller.client_id})


@route(READ, "auth/approle/role/<role>/role-id")
@route(WRITE, "auth/approle/role/<role>/secret-id")
def approle_role(transit: TransitRequest, body: Body, role: str) -> Any:
    """Say where they come from: an access key is a role_id, and its secret the secret_id."""
    raise Fault("role_id and secret_id are an access key and its secret here: POST /api/v1/access-keys makes them")


def _by_platform_token(transit: TransitRequest, body: JwtBody) -> Caller:
    if not body.role:
        raise Fault("missing role")
    programs, source = transit.service.programs, transit.call.source
    return _prove(transit, lambda: programs.by_platform_token(body.jwt, body.role, source))


def _prove(transit: TransitRequest, proof: Callable[[], Caller]) -> Caller:
    """The caller that a proof gives, who goes on. As with Vault, what does not prove anybody is a bad request."""
    try:
        transit.call.caller = caller = transit.service.counted(proof)
    except AuthenticationFailed as refusal:
        raise Fault(refusal.detail, problem=refusal.problem) from None
    return caller
