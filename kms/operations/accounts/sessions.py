"""Sessions: a token for what proves a client, narrower ones of it, and the end of one or all."""

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
    """OAuth 2.0 (RFC 6749, section 3.2), as a form or as JSON.

    `client_credentials`: the headers have a secret and a second factor, or `client_assertion` is a JWT that a key of
    the client has signed (RFC 7523), or the connection has a certificate for `client_id` (RFC 8705). `…:jwt-bearer`:
    `assertion` is a token of a platform, and `role` the issuer role that takes it. `…:token-exchange` (RFC 8693): a
    narrower session of the one whose token the headers or `subject_token` have. `urn:kms:…:passkey`: `passkey` is
    what the browser gave for the options of `POST /auth/passkey/options`, in a form as text.

    `scope` narrows the session to words `PERMISSION@KEY-PATTERN`, separated by spaces; `expires_in` is in seconds.
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
        """The words of the scope."""
        return frozenset(self.scope.split())

    @property
    def lifetime(self) -> timedelta | None:
        """How long the session is to live; None for as long as it may."""
        return timedelta(seconds=self.expires_in) if self.expires_in is not None else None


class TokenAnswer(Answer):
    """RFC 6749, section 5.1; `expires_in` in seconds. By `session_id` the session is listed and ended."""

    access_token: str
    token_type: str
    expires_in: int
    session_id: str
    scope: str | UnsetType = UNSET
    issued_token_type: str | UnsetType = UNSET


class LoggedOut(Answer):
    """A sentence."""

    message: str


class SessionView(Answer):
    """A session without its token. `credential` is what proved it, `subject` whom a platform's token named."""

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
    """Sessions that are not over, the newest first, a thousand at the most."""

    items: list[SessionView]
    next_cursor: str | None


class CredentialView(Answer):
    """Something that proves a client; `credential` is its kind and name, as sessions and the audit log have it."""

    credential: str
    created_at: datetime
    expires_at: datetime | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    remaining: int | UnsetType = UNSET


class CredentialList(Answer):
    """What proves a client: secret, recovery codes (`remaining`), passkeys, public and access keys, issuer roles."""

    items: list[CredentialView]
    next_cursor: str | None


class Ended(Answer):
    """How many sessions and access keys were ended, and of all credentials how many others."""

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
    """Give out a session token for what proves the client; its expiry is fixed now."""
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
    """End the session of the token that this call carries, and its children, on every worker, before this answers."""
    token = call.known_caller.token
    if token is not None:
        with service.change(call) as change:
            found = change.find(Token, token.token_hash)
            if found is not None:
                sessions.end(change, found)
    return LoggedOut(message="Logged out.")


@operation("GET", "/api/v1/clients/<client_id>/sessions", permission=Permission.SESSIONS_MANAGE)
def list_sessions(service: Service, call: Call, request: EmptyRequest, client_id: str) -> SessionList:
    """List the sessions of a client: one's own, or as administrator or auditor anybody's."""
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
    """End a session and those that it made of itself, on every worker, before this answers."""
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
    """End every session and every access key of a client, on every worker, before this answers."""
    policy.require_over(call.known_caller, client_id, Permission.CLIENTS_MANAGE)
    with service.change(call) as change:
        call.target = clients.get(change, client_id).client_id
        ended, keys = sessions.end_all(change, client_id)
    return Ended(sessions=ended, access_keys=keys, credentials=0)


@operation("GET", "/api/v1/clients/<client_id>/credentials", permission=Permission.SESSIONS_MANAGE)
def list_credentials(service: Service, call: Call, request: EmptyRequest, client_id: str) -> CredentialList:
    """List what proves a client, without any secret: one's own, or as administrator or auditor anybody's."""
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
    """End all that proves a client but secret, second factor and recovery codes, with every session."""
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
