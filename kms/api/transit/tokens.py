"""Tokens of the Vault dialect: what one is, children of one, and their end.

Vault's policies are the words of a scope here. A token cannot be renewed: its end is fixed when it is issued.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import field

from kms.access import credentials, policy, sessions
from kms.access.model import SECRET, Token
from kms.access.policy import Permission
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import LIST, READ, WRITE, Body, Done, route
from kms.api.transit.units import seconds
from kms.errors import AuthenticationFailed
from kms.operations.accounts.sessions import TokenRequest
from kms.operations.core.declare import EmptyRequest
from kms.vault import tables

_DEFAULT = "default"
_WAYS = {
    "secret": ("auth/userpass/login/{client}", "userpass-{client}"),
    "passkey": ("auth/userpass/login/{client}", "userpass-{client}"),
    "key": ("auth/token", "token-{client}"),
    "issuer-role": ("auth/jwt/login", "jwt-{name}"),
    "access-key": ("auth/approle/login", "approle"),
    "certificate": ("auth/cert/login", "cert-{client}"),
}
"""By the kind of credential: where Vault would have it come from, and what it would call it."""


class TokenBody(Body, kw_only=True):
    """Which token."""

    token: str = ""


class AccessorBody(Body, kw_only=True):
    """The accessor of a token: its public id."""

    accessor: str = ""


class CreateBody(Body, kw_only=True):
    """A child of the token that asks; `policies` are words of a scope."""

    policies: list[str] = field(default_factory=list)
    ttl: str | int = ""
    lease: str | int = ""
    explicit_max_ttl: str | int = ""
    period: str | int = ""
    num_uses: int = 0
    no_parent: bool = False
    no_default_policy: bool = False
    renewable: bool = False
    display_name: str = ""
    meta: dict[str, str] = field(default_factory=dict)
    type: str = ""
    id: str = ""
    entity_alias: str = ""


def issued(transit: TransitRequest, request: TokenRequest, metadata: Mapping[str, str]) -> Done:
    """Issue a session token to the caller, and tell of it as Vault does."""
    answer = transit.run("issue_token", request)
    token = transit.service.authenticator.session(answer.access_token).token
    assert token is not None
    auth = {
        "client_token": answer.access_token,
        "accessor": token.session_id,
        "policies": _policies(token),
        "token_policies": _policies(token),
        "identity_policies": [],
        "metadata": dict(metadata) or None,
        "lease_duration": answer.expires_in,
        "renewable": False,
        "entity_id": token.client_id,
        "token_type": "service",
        "orphan": token.parent is None,
        "mfa_requirement": None,
        "num_uses": 0,
    }
    return Done(auth=auth)


@route(WRITE, "auth/token/create", CreateBody)
def create_child(transit: TransitRequest, body: CreateBody) -> Done:
    """Make a narrower token of this one, which ends with it."""
    _require_enforced(body)
    words = frozenset(body.policies) - {_DEFAULT}
    spans = {"ttl": body.ttl or body.lease, "explicit_max_ttl": body.explicit_max_ttl}
    given = [seconds(span, member) for member, span in spans.items() if span != ""]
    caller = transit.call.known_caller
    longest = transit.service.authenticator.lifetimes.longest(caller, sessions.narrowed_scope(caller, words))
    lifetime = min([*(each for each in given if each > 0), int(longest.total_seconds())])
    request = TokenRequest(
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        scope=" ".join(sorted(words)),
        expires_in=lifetime,
    )
    return issued(transit, request, body.meta)


@route(WRITE, "auth/token/create-orphan")
@route(WRITE, "auth/token/create/<role>")
@route(WRITE, "auth/token/revoke-orphan")
def other_children(transit: TransitRequest, body: Body, role: str = "") -> Any:
    """Refuse: a token's children end with it, and there are no roles of tokens."""
    raise Fault("a token's children end with it here, and there are no roles of tokens: use auth/token/create")


@route(READ, "auth/token/lookup-self")
def lookup_self(transit: TransitRequest, body: Body) -> Any:
    """Show what the token is."""
    token = transit.call.known_caller.token
    assert token is not None  # there is no other way in
    return _shown(transit, token, transit.token)


@route(WRITE, "auth/token/lookup", TokenBody)
def lookup(transit: TransitRequest, body: TokenBody) -> Any:
    """Show what a token is: the one that asks, or another of the client's."""
    if body.token in ("", transit.token):
        return lookup_self(transit, Body())
    return _shown(transit, _token(transit, body.token, Permission.CLIENTS_READ), body.token)


@route(WRITE, "auth/token/lookup-accessor", AccessorBody)
def lookup_accessor(transit: TransitRequest, body: AccessorBody) -> Any:
    """Show what a token of the client's is; not the token itself."""
    return _shown(transit, _of_accessor(transit, body.accessor, Permission.CLIENTS_READ), "")


@route(LIST, "auth/token/accessors/?")
def accessors(transit: TransitRequest, body: Body) -> Any:
    """List the accessors of every token, for administrators and auditors."""
    policy.require(transit.call.known_caller, Permission.CLIENTS_READ)
    with transit.service.vault.read() as snapshot:
        found = snapshot.select(Token, order_by=tables.tokens.c.issued_at.desc(), limit=_MOST_LISTED)
    now = transit.service.clock()
    return {"keys": [each.session_id for each in found if each.expires_at > now]}


@route(WRITE, "auth/token/renew-self")
@route(WRITE, "auth/token/renew", TokenBody)
@route(WRITE, "auth/token/renew-accessor", AccessorBody)
def renew(transit: TransitRequest, body: Body) -> Any:
    """Refuse: the end of a token is fixed when it is issued."""
    if isinstance(body, TokenBody) and body.token not in ("", transit.token):
        _token(transit, body.token, Permission.CLIENTS_READ)
    raise Fault("lease is not renewable")


@route(WRITE, "auth/token/revoke-self")
def revoke_self(transit: TransitRequest, body: Body) -> Done:
    """End the token and its children, on every worker, before this answers."""
    transit.run("end_session", EmptyRequest())
    return Done(status=204)


@route(WRITE, "auth/token/revoke", TokenBody)
def revoke(transit: TransitRequest, body: TokenBody) -> Done:
    """End a token of the client's and its children."""
    return _end(transit, _token(transit, body.token, Permission.CLIENTS_MANAGE))


@route(WRITE, "auth/token/revoke-accessor", AccessorBody)
def revoke_accessor(transit: TransitRequest, body: AccessorBody) -> Done:
    """End a token of the client and its children, by its accessor."""
    return _end(transit, _of_accessor(transit, body.accessor, Permission.CLIENTS_MANAGE))


_MOST_LISTED = 10_000


def _require_enforced(body: CreateBody) -> None:
    """Raise Fault for what would narrow the child, or widen it, and is not enforced here."""
    refused = {
        "id": body.id != "",
        "no_parent": body.no_parent,
        "num_uses": body.num_uses != 0,
        "period": body.period not in ("", "0", 0),
        "entity_alias": body.entity_alias != "",
        "type": body.type not in ("", "service"),
    }
    if wrong := sorted(name for name, is_wrong in refused.items() if is_wrong):
        raise Fault(f"not supported here: {', '.join(wrong)}")


def _end(transit: TransitRequest, token: Token) -> Done:
    transit.run("end_one_session", EmptyRequest(), client_id=token.client_id, session_id=token.session_id)
    return Done(status=204)


def _token(transit: TransitRequest, text: str, permission: Permission) -> Token:
    """The session behind a token, which is the client's own, or anybody's with the permission. Raises Fault."""
    service = transit.service
    try:
        found = service.authenticator.session(text[:_LONGEST_TOKEN]).token
    except AuthenticationFailed:
        raise _bad_token() from None
    assert found is not None
    return _allowed(transit, found, permission)


def _of_accessor(transit: TransitRequest, accessor: str, permission: Permission) -> Token:
    with transit.service.vault.read() as snapshot:
        found = snapshot.matching(Token, session_id=accessor, limit=1) if _is_accessor(accessor) else []
    if not found or found[0].expires_at <= transit.service.clock():
        raise Fault("invalid accessor", status=403, problem="permission-denied")
    return _allowed(transit, found[0], permission, "invalid accessor")


def _allowed(transit: TransitRequest, token: Token, permission: Permission, otherwise: str = "bad token") -> Token:
    """`token`, if the caller may see or end it; as if there were none otherwise. Raises Fault."""
    caller = transit.call.known_caller
    own = token.client_id == caller.client_id
    asked = caller.token
    is_child = own and asked is not None and asked.token_hash in (token.parent, token.token_hash)
    if is_child or policy.has_permission(caller, Permission.SESSIONS_MANAGE if own else permission):
        return token
    raise Fault(otherwise, status=403, problem="permission-denied")


def _is_accessor(text: str) -> bool:
    return len(text) == len(sessions.id_of(b"")) and text.isalnum() and text.isascii()


def _bad_token() -> Fault:
    return Fault("bad token", status=403, problem="permission-denied")


_LONGEST_TOKEN = len(credentials.new_token())


def _shown(transit: TransitRequest, token: Token, itself: str) -> dict[str, Any]:
    lifetime = int((token.expires_at - token.issued_at).total_seconds())
    left = int((token.expires_at - transit.service.clock()).total_seconds())
    kind, _, name = token.credential.partition(":")
    path, display_name = (each.format(client=token.client_id, name=name) for each in _WAYS.get(kind, _WAYS[SECRET]))
    return {
        "accessor": token.session_id,
        "creation_time": int(token.issued_at.timestamp()),
        "creation_ttl": lifetime,
        "display_name": display_name if token.parent is None else "token",
        "entity_id": token.client_id,
        "expire_time": _rfc3339(token.expires_at),
        "explicit_max_ttl": lifetime,
        "id": itself,
        "identity_policies": [],
        "issue_time": _rfc3339(token.issued_at),
        "meta": {"username": token.client_id},
        "num_uses": 0,
        "orphan": token.parent is None,
        "path": path if token.parent is None else "auth/token/create",
        "policies": _policies(token),
        "renewable": False,
        "ttl": max(left, 0),
        "type": "service",
    }


def _policies(token: Token) -> list[str]:
    return sorted(token.scope) or [_DEFAULT]


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
