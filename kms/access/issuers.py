"""Issuers of tokens that are trusted to say who a program is (OpenID Connect), and as which client it comes.

A role says which claims a token must have, and the client as which whoever presents it acts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kms.access import jwks, sessions
from kms.access.verification_key import VerificationKey
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.records import stored_in


@stored_in(tables.issuers)
@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. `jwks` is its JWK set, as it was given or last fetched from `jwks_uri`."""

    issuer_id: str
    issuer: str
    audience: str
    jwks: str
    jwks_uri: str
    fetched_at: datetime | None
    created_at: datetime


@stored_in(tables.issuer_roles)
@dataclass(frozen=True, slots=True)
class IssuerRole:
    """Tokens of an issuer that have these `claims` stand for the client, at most within `scope`."""

    role: str
    issuer_id: str
    claims: dict[str, Any]
    client_id: str
    scope: frozenset[str]
    token_lifetime: timedelta | None
    created_at: datetime


names.bears(IssuerRole, lambda role: names.of_issuer_role(role.role))
names.bears(Issuer, lambda issuer: names.of_issuer(issuer.issuer_id), but=("jwks", "fetched_at"))


def credential_of(role: str) -> str:
    """What sessions have as their credential that came by a role."""
    return f"issuer-role:{role}"


def keys_for(issuer: Issuer | None, kid: str | None) -> list[VerificationKey]:
    """The keys of an issuer by which a token may be signed that names `kid`, or names none."""
    known = jwks.read(issuer.jwks) if issuer is not None and issuer.jwks else {}
    if kid is None:
        return list(known.values())
    return [known[kid]] if kid in known else []


def end_role(change: Change, role: IssuerRole) -> None:
    """Take a role away, and end what came by it."""
    sessions.end_made_with(change, credential_of(role.role), role.client_id)
    change.delete(role)


def end_issuer(change: Change, issuer: Issuer) -> None:
    """Take an issuer away with its roles, and end what came by them."""
    for role in change.matching(IssuerRole, issuer_id=issuer.issuer_id):
        end_role(change, role)
    change.delete(issuer)
