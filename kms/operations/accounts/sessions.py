"""Sessions: issue a token for credentials, exchange it for a narrower one, list sessions and end them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import access_keys, clients, issuers, passkeys, policy, public_keys, sessions
from kms.access.access_keys import AccessKey
from kms.access.issuers import IssuerRole
from kms.access.model import Client, RecoveryCode, Token
from kms.access.passkeys import Passkey
from kms.access.policy import Permission
from kms.access.public_keys import PublicKey
from kms.access.ratelimit import RateClass
from kms.access.webauthn import AuthenticationResponse
from kms.approvals.deciding import end_calls_of
from kms.errors import NotFound
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault import tables

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
PASSKEY = "urn:kms:params:oauth:grant-type:passkey"
_MOST_SESSIONS_SHOWN = 1000

Jwt = Annotated[str, msgspec.Meta(max_length=16_384)]


class TokenRequest(Request):
    """A token request of OAuth 2.0 (RFC 6749, section 3.2), as a form or as JSON.

    `grant_type` says how the client proves itself. `client_credentials`: by client secret and second factor in the
    headers; by `client_assertion`, a JWT signed with a key of the client (RFC 7523); or by the TLS client
    certificate of the connection, for `client_id` (RFC 8705). `…:jwt-bearer`: by `assertion`, a token of a platform,
    which the issuer role `role` accepts. `…:token-exchange` (RFC 8693): by the token of a session, in the headers or
    in `subject_token`; the new session can be narrower than that one. `urn:kms:…:passkey`: by `passkey`, what the
    browser gave for the options of `POST /auth/passkey/options`; in a form it is JSON text.

    `scope` limits the session to a list of `PERMISSION@KEY-PATTERN`, separated by spaces; `expires_in` is in seconds.
    """

    grant_type: Literal[
        "client_credentials",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:kms:params:oauth:grant-type:passkey",
    ] = "client_credentials"
    client_id: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    client_assertion_type: Literal["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"] | None = None
    client_assertion: Jwt | None = None
    assertion: Jwt | None = None
    role: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    passkey: AuthenticationResponse | Annotated[str, msgspec.Meta(max_length=16_384)] | None = None
    subject_token: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    subject_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    requested_token_type: Literal["urn:ietf:params:oauth:token-type:access_token"] | None = None
    scope: Annotated[str, msgspec.Meta(max_length=8192)] = ""
    expires_in: Annotated[int, msgspec.Meta(ge=1, le=315_360_000)] | None = None

    @property
    def words(self) -> frozenset[str]:
        """The members of `scope`, split at white space."""
        return frozenset(self.scope.split())

    @property
    def lifetime(self) -> timedelta | None:
        """The lifetime asked for; None if the request leaves it to the service."""
        return timedelta(seconds=self.expires_in) if self.expires_in is not None else None


class TokenAnswer(Answer):
    """The token answer of RFC 6749, section 5.1. `expires_in` is in seconds; `session_id` names the session.

    The session is listed and ended by that id.
    """

    access_token: str
    token_type: str
    expires_in: int
    session_id: str
    scope: str | UnsetType = UNSET
    issued_token_type: str | UnsetType = UNSET


class LoggedOut(Answer):
    """Confirms that the session has ended; `message` is for people."""

    message: str


class SessionView(Answer):
    """A session without its token. `credential` opened it; `subject` is the `sub` of the platform token, if any."""

    session_id: str
    client_id: str
    credential: str
    issued_at: datetime
    expires_at: datetime
    scope: str | UnsetType = UNSET
    subject: str | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    second_factor_at: datetime | UnsetType = UNSET


class SessionList(Answer):
    """Sessions that have not ended, the newest first, at most a thousand."""

    items: list[SessionView]
    next_cursor: str | None


class CredentialView(Answer):
    """A credential of a client. `credential` is its kind and name, written as in sessions and in the audit log."""

    credential: str
    created_at: datetime
    expires_at: datetime | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    remaining: int | UnsetType = UNSET


class CredentialList(Answer):
    """The credentials of a client; `remaining` is how many recovery codes are left."""

    items: list[CredentialView]
    next_cursor: str | None


class Ended(Answer):
    """How many sessions and access keys were ended; `credentials` is how many other credentials were deleted."""

    sessions: int
    access_keys: int
    credentials: int


@operation(
    "POST",
    "/auth/token",
    permission=Permission.SESSIONS_MANAGE,
    rate_class=RateClass.MANAGE,
    request=TokenRequest,
    is_token_endpoint=True,
)
def issue_token(service: Service, call: Call, request: TokenRequest) -> TokenAnswer:
    """Log in: issue a session token for valid credentials. Its expiry is set now and cannot be extended."""
    caller = call.known_caller
    call.credential, call.subject = caller.credential, caller.subject or None
    with service.change(call) as change:
        token, record = service.authenticator.issue(change, call.known_caller, request.words, request.lifetime)
        call.target = record.session_id
    lifetime = record.expires_at - record.issued_at
    return TokenAnswer(
        access_token=token,
        token_type="Bearer",  # noqa: S106
        expires_in=int(lifetime.total_seconds()),
        session_id=record.session_id,
        scope=_shown_scope(record.scope),
        issued_token_type=ACCESS_TOKEN if request.grant_type == TOKEN_EXCHANGE else UNSET,
    )


@operation("POST", "/auth/logout", permission=Permission.SESSIONS_MANAGE)
def end_session(service: Service, call: Call, request: EmptyRequest) -> LoggedOut:
    """Log out: end this session and those made from it; no worker accepts them once this has answered."""
    token = call.known_caller.token
    if token is not None:
        with service.change(call) as change:
            found = change.find(Token, token.token_hash)
            if found is not None:
                sessions.end(change, found)
    return LoggedOut(message="Logged out.")


@operation("GET", "/api/v1/clients/<client_id>/sessions", permission=Permission.SESSIONS_MANAGE)
def list_sessions(service: Service, call: Call, request: EmptyRequest, client_id: str) -> SessionList:
    """List the sessions of a client: your own, or as administrator or auditor those of any client."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_READ)
    column = tables.tokens.c
    with service.vault.read() as snapshot:
        call.target = clients.get(snapshot, client_id).client_id
        own = column.client_id == client_id
        found = snapshot.select(Token, own, order_by=column.issued_at.desc(), limit=_MOST_SESSIONS_SHOWN)
    now = service.clock()
    return SessionList(items=[_view(each) for each in found if each.expires_at > now], next_cursor=None)


@operation("DELETE", "/api/v1/clients/<client_id>/sessions/<session_id>", permission=Permission.SESSIONS_MANAGE)
def end_one_session(
    service: Service, call: Call, request: EmptyRequest, client_id: str, session_id: str
) -> SessionView:
    """End a session and those made from it; no worker accepts them once this has answered."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        clients.get(change, client_id)
        found = sessions.of_id(change, client_id, session_id)
        if found is None:
            raise NotFound("There is no such session of this client.")
        call.target = found.session_id
        sessions.end(change, found)
    return _view(found)


@operation("DELETE", "/api/v1/clients/<client_id>/sessions", permission=Permission.SESSIONS_MANAGE)
def end_every_session(service: Service, call: Call, request: EmptyRequest, client_id: str) -> Ended:
    """End every session and access key of a client; no worker accepts them once this has answered.

    Calls of the client that wait for approval end with them.
    """
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        ended, keys = sessions.end_all(change, client_id)
        end_calls_of(change, client_id, call.known_caller.client_id, service.clock())
    return Ended(sessions=ended, access_keys=keys, credentials=0)


@operation("GET", "/api/v1/clients/<client_id>/credentials", permission=Permission.SESSIONS_MANAGE)
def list_credentials(service: Service, call: Call, request: EmptyRequest, client_id: str) -> CredentialList:
    """List a client's credentials, without any secret: your own, or as administrator or auditor any client's."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_READ)
    with service.vault.read() as snapshot:
        client = clients.get(snapshot, client_id)
        codes = snapshot.matching(RecoveryCode, client_id=client_id)
        of_person = snapshot.matching(Passkey, client_id=client_id, order_by="created_at")
        keys = snapshot.matching(PublicKey, client_id=client_id, order_by="created_at")
        signing = access_keys.in_force(snapshot, client_id, service.clock())
        roles = snapshot.matching(IssuerRole, client_id=client_id, order_by="created_at")
    call.target = client_id
    found = _credentials(client, codes, of_person, keys, signing, roles, service.clock())
    return CredentialList(items=found, next_cursor=None)


@operation("DELETE", "/api/v1/clients/<client_id>/credentials", permission=Permission.SESSIONS_MANAGE)
def end_every_credential(service: Service, call: Call, request: EmptyRequest, client_id: str) -> Ended:
    """End a client's sessions and every credential except its secret, second factor and recovery codes."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        others = [
            *change.matching(Passkey, client_id=client_id),
            *change.matching(PublicKey, client_id=client_id),
            *change.matching(IssuerRole, client_id=client_id),
        ]
        change.delete(*others)
        ended, keys = sessions.end_all(change, client_id)
        end_calls_of(change, client_id, call.known_caller.client_id, service.clock())
    return Ended(sessions=ended, access_keys=keys, credentials=len(others))


def _view(token: Token) -> SessionView:
    return SessionView(
        session_id=token.session_id,
        client_id=token.client_id,
        credential=token.credential,
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        scope=_shown_scope(token.scope),
        subject=token.subject or UNSET,
        parent=sessions.id_of(token.parent) if token.parent else UNSET,
        second_factor_at=token.second_factor_at or UNSET,
    )


def _shown_scope(words: frozenset[str]) -> str | UnsetType:
    return " ".join(sorted(words)) or UNSET


def _credentials(
    client: Client,
    codes: list[RecoveryCode],
    of_person: list[Passkey],
    keys: list[PublicKey],
    signing: list[AccessKey],
    roles: list[IssuerRole],
    now: datetime,
) -> list[CredentialView]:
    made = client.created_at
    found = [CredentialView(credential="secret", created_at=made)]
    found.append(CredentialView(credential="recovery-codes", created_at=made, remaining=len(codes)))
    for passkey in of_person:
        name = passkeys.credential_of(passkey.passkey_id)
        found.append(CredentialView(credential=name, created_at=passkey.created_at))
    for key in keys:
        name = public_keys.credential_of(key.kid)
        found.append(CredentialView(credential=name, created_at=key.created_at, expires_at=key.expires_at or UNSET))
    for one in signing:
        if one.expires_at > now:
            scope = _shown_scope(one.scope)
            name = sessions.credential_of(one)
            view = CredentialView(credential=name, created_at=one.created_at, expires_at=one.expires_at, scope=scope)
            found.append(view)
    for role in roles:
        name = issuers.credential_of(role.role)
        found.append(CredentialView(credential=name, created_at=role.created_at, scope=_shown_scope(role.scope)))
    return found
