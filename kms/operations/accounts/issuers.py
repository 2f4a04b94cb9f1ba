"""Issuers of platform tokens (JWTs), and the issuer roles that accept them, over REST; for administrators."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import clients, issuers, jwks, sessions, step_up
from kms.access.claims import bound_claims
from kms.access.issuers import Issuer, IssuerRole
from kms.access.model import Role
from kms.access.policy import Permission
from kms.approvals.deciding import end_calls_made_with
from kms.errors import AlreadyExists, NotFound, ValidationFailed
from kms.keys.ids import ClientId
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=1)
_Words = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[!-~]+\Z")]
Url = Annotated[str, msgspec.Meta(max_length=1024)]
BoundClaim = str | bool | int | float | list[str]


class IssuerKeysRequest(Request):
    """The public keys of an issuer: either `jwks`, a JWK set, or `jwks_uri`, the URL from which it is fetched."""

    jwks: dict[str, Any] | None = None
    jwks_uri: Url | None = None


class AddIssuerRequest(IssuerKeysRequest, kw_only=True):
    """`issuer` and `audience` must be exactly what the claims `iss` and `aud` of its tokens say.

    Its public keys are given as `jwks`, a JWK set, or fetched from `jwks_uri`. The setting `KMS_JWKS_HOSTS` must
    list the host of that URL.
    """

    issuer: _Words
    audience: _Words


class IssuerView(Answer):
    """A trusted issuer; `kids` are the ids of its public keys."""

    issuer_id: str
    issuer: str
    audience: str
    kids: list[str]
    created_at: datetime
    jwks_uri: str | UnsetType = UNSET
    fetched_at: datetime | UnsetType = UNSET


class IssuerList(Answer):
    """Every issuer."""

    items: list[IssuerView]
    next_cursor: str | None


class AddIssuerRoleRequest(Request):
    """A program whose token comes from `issuer` and matches all of `claims` can log in as the client `client_id`.

    `issuer` is the `iss` of the tokens, or an `issuer_id`. A `*` in a pattern stands for any characters except `:`
    and `/`; docs/how-to/let-a-program-in.md has the rules. `scope`, if given, limits what the sessions may do, and
    `token_lifetime` (ISO 8601, from PT1M to P1D) how long they last.
    """

    role: ClientId
    issuer: _Words
    claims: dict[str, BoundClaim]
    client_id: ClientId
    scope: Annotated[str, msgspec.Meta(max_length=8192)] = ""
    token_lifetime: timedelta | None = None


class IssuerRoleView(Answer):
    """An issuer role."""

    role: str
    issuer_id: str
    claims: Mapping[str, Any]
    client_id: str
    created_at: datetime
    scope: str | UnsetType = UNSET
    token_lifetime: timedelta | UnsetType = UNSET


class IssuerRoleList(Answer):
    """Every issuer role."""

    items: list[IssuerRoleView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/issuers",
    permission=Permission.CLIENTS_MANAGE,
    request=AddIssuerRequest,
    status=201,
    checked_upfront=True,
    slow=True,
)
def add_issuer(service: Service, call: Call, request: AddIssuerRequest) -> IssuerView:
    """Trust the tokens of an issuer, for the issuer roles that name it. Its public keys are read now."""
    issuer_id, now = secrets.token_hex(12), service.clock()
    made = _with_keys(service, request, Issuer(issuer_id, request.issuer, request.audience, "", "", None, now))
    with service.change(call) as change:
        for each in change.matching(Issuer, issuer=request.issuer):
            if each.audience == request.audience:
                raise AlreadyExists(f"This issuer is trusted for that audience already: {each.issuer_id}.")
        change.insert(made)
        call.target = made.issuer_id
    return _issuer_view(made)


@operation("GET", "/api/v1/issuers", permission=Permission.CLIENTS_READ, checked_upfront=True)
def list_issuers(service: Service, call: Call, request: EmptyRequest) -> IssuerList:
    """List the trusted issuers."""
    with service.vault.read() as snapshot:
        found = snapshot.matching(Issuer, order_by="created_at")
    return IssuerList(items=[_issuer_view(each) for each in found], next_cursor=None)


@operation(
    "PATCH",
    "/api/v1/issuers/<issuer_id>",
    permission=Permission.CLIENTS_MANAGE,
    request=IssuerKeysRequest,
    checked_upfront=True,
    slow=True,
)
def update_issuer(service: Service, call: Call, request: IssuerKeysRequest, issuer_id: str) -> IssuerView:
    """Replace the public keys of an issuer. Its roles and their sessions stay."""
    with service.vault.read() as snapshot:
        after = _with_keys(service, request, _issuer_of_id(snapshot, issuer_id))
    with service.change(call) as change:
        before = _issuer_of_id(change, issuer_id)
        call.target = issuer_id
        for role in change.matching(IssuerRole, issuer_id=issuer_id):
            step_up.require_to_let_in(call.known_caller, role.client_id, service.clock())
        change.replace(before, after)
    return _issuer_view(after)


@operation("DELETE", "/api/v1/issuers/<issuer_id>", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def delete_issuer(service: Service, call: Call, request: EmptyRequest, issuer_id: str) -> IssuerView:
    """Stop trusting an issuer. Its roles, and the sessions opened through them, end on every worker."""
    with service.change(call) as change:
        found = _issuer_of_id(change, issuer_id)
        call.target = issuer_id
        for role in change.matching(IssuerRole, issuer_id=issuer_id):
            _end_role(service, call, change, role)
        issuers.end_issuer(change, found)
    return _issuer_view(found)


@operation(
    "POST",
    "/api/v1/issuer-roles",
    permission=Permission.CLIENTS_MANAGE,
    request=AddIssuerRoleRequest,
    status=201,
    checked_upfront=True,
)
def add_issuer_role(service: Service, call: Call, request: AddIssuerRoleRequest) -> IssuerRoleView:
    """Let programs with a matching token of an issuer log in as a client."""
    if request.role in set(Role):
        raise ValidationFailed("role: admin, user and auditor are roles of clients; choose another name.")
    bound_claims(request.claims)
    if request.token_lifetime is not None and not _SHORTEST <= request.token_lifetime <= _LONGEST:
        raise ValidationFailed("token_lifetime: from PT1M to P1D.")
    step_up.require_to_let_in(call.known_caller, request.client_id, service.clock())
    words = sessions.scope_words(request.scope)
    with service.change(call) as change:
        issuer = _issuer_named(change, request.issuer)
        clients.get(change, request.client_id)
        if change.find(IssuerRole, request.role) is not None:
            raise AlreadyExists(f"There is an issuer role {request.role} already.")
        made = IssuerRole(
            role=request.role,
            issuer_id=issuer.issuer_id,
            claims=dict(request.claims),
            client_id=request.client_id,
            scope=words,
            token_lifetime=request.token_lifetime,
            created_at=service.clock(),
        )
        change.insert(made)
        call.target = made.role
    return _role_view(made)


@operation("GET", "/api/v1/issuer-roles", permission=Permission.CLIENTS_READ, checked_upfront=True)
def list_issuer_roles(service: Service, call: Call, request: EmptyRequest) -> IssuerRoleList:
    """List the issuer roles."""
    with service.vault.read() as snapshot:
        found = snapshot.matching(IssuerRole, order_by="role")
    return IssuerRoleList(items=[_role_view(each) for each in found], next_cursor=None)


@operation("DELETE", "/api/v1/issuer-roles/<role>", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def delete_issuer_role(service: Service, call: Call, request: EmptyRequest, role: str) -> IssuerRoleView:
    """Delete an issuer role; the sessions and access keys obtained through it end on every worker."""
    with service.change(call) as change:
        found = {each.role: each for each in change.matching(IssuerRole)}
        if role not in found:
            raise NotFound("There is no such issuer role.")
        call.target = role
        _end_role(service, call, change, found[role])
    return _role_view(found[role])


def _end_role(service: Service, call: Call, change: Change, role: IssuerRole) -> None:
    """End a role, and all that rests on it."""
    issuers.end_role(change, role)
    by, credential = call.known_caller.client_id, issuers.credential_of(role.role)
    end_calls_made_with(change, credential, role.client_id, by, service.clock())


def _with_keys(service: Service, request: IssuerKeysRequest, issuer: Issuer) -> Issuer:
    """`issuer` with the keys that a request gives, or names a place for. Raises ValidationFailed, Unavailable."""
    if (request.jwks is None) == (request.jwks_uri is None):
        raise ValidationFailed("jwks, jwks_uri: give one of them.")
    if request.jwks_uri is None:
        keys = issuers.stored(jwks.given(request.jwks or {}))
        return replace(issuer, jwks=keys, jwks_uri="", fetched_at=None)
    keys = issuers.stored(issuers.served_keys(service.fetch_jwks(request.jwks_uri)))
    return replace(issuer, jwks=keys, jwks_uri=request.jwks_uri, fetched_at=service.clock())


def _issuer_of_id(snapshot: Snapshot, issuer_id: str) -> Issuer:
    """Raises NotFound."""
    found = {each.issuer_id: each for each in snapshot.matching(Issuer)}
    if issuer_id not in found:
        raise NotFound("There is no such issuer.")
    return found[issuer_id]


def _issuer_named(snapshot: Snapshot, name: str) -> Issuer:
    """The issuer of that id or `iss`. Raises NotFound, and ValidationFailed where there are several."""
    found = [each for each in snapshot.matching(Issuer) if name in (each.issuer_id, each.issuer)]
    if not found:
        raise NotFound("There is no such issuer. POST /api/v1/issuers first.")
    if len(found) > 1:
        ids = ", ".join(each.issuer_id for each in found)
        raise ValidationFailed(f"issuer: trusted for several audiences; give an issuer_id of {ids}.")
    return found[0]


def _issuer_view(issuer: Issuer) -> IssuerView:
    return IssuerView(
        issuer_id=issuer.issuer_id,
        issuer=issuer.issuer,
        audience=issuer.audience,
        kids=sorted(issuers.keys_of(issuer)),
        created_at=issuer.created_at,
        jwks_uri=issuer.jwks_uri or UNSET,
        fetched_at=issuer.fetched_at or UNSET,
    )


def _role_view(role: IssuerRole) -> IssuerRoleView:
    return IssuerRoleView(
        role=role.role,
        issuer_id=role.issuer_id,
        claims=role.claims,
        client_id=role.client_id,
        created_at=role.created_at,
        scope=" ".join(sorted(role.scope)) or UNSET,
        token_lifetime=role.token_lifetime or UNSET,
    )
