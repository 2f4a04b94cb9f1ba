"""Issuers of tokens that are trusted to say who a program is (OpenID Connect), and as which client it comes.

A role says which claims a token must have, and the client as which whoever presents it acts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import structlog

from kms.access import jwks, sessions
from kms.access.jwt import Header
from kms.access.verification_key import VerificationKey
from kms.errors import Refusal, Unavailable
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.records import stored_in
from kms.vault.store import Vault

Fetch = Callable[[str], bytes]
"""Gets what is at a URL, as `jwks_fetch.fetch` does."""

_AT_MOST_EVERY = timedelta(minutes=1)


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
    """The `credential` of sessions that were opened through the issuer role `role`."""
    return f"issuer-role:{role}"


def keys_for(issuer: Issuer | None, header: Header) -> list[VerificationKey]:
    """The key of an issuer by which a token is signed, as its header has it; none where there is none such."""
    key = jwks.find(keys_of(issuer), header) if issuer is not None else None
    return [key] if key is not None else []


def keys_of(issuer: Issuer) -> jwks.Keys:
    """The keys of an issuer by what tokens call them."""
    return _read(issuer.jwks)


@lru_cache(maxsize=256)
def _read(text: str) -> jwks.Keys:
    return jwks.given(msgspec.json.decode(text))


def stored(keys: jwks.Keys) -> str:
    """Keys as they are kept."""
    return msgspec.json.encode(jwks.canonical(keys)).decode()


def refresh(vault: Vault, issuer_id: str, now: datetime, fetch: Fetch) -> None:
    """Fetch the keys of an issuer again, unless that was tried a minute ago; on a failure keep those that it has.

    Raises Unavailable where the vault cannot be reached.
    """
    with vault.change() as change:
        issuer = change.find(Issuer, issuer_id)
        if issuer is None or not issuer.jwks_uri or is_fresh(issuer, now):
            return
        change.replace(issuer, replace(issuer, fetched_at=now))
    try:
        served = stored(served_keys(fetch(issuer.jwks_uri)))
    except Refusal as refusal:
        structlog.get_logger().warning("the keys of an issuer stay as they were", reason=refusal.detail)
        return
    with vault.change() as change:
        now_there = change.find(Issuer, issuer_id)
        if now_there is not None and now_there.jwks_uri == issuer.jwks_uri and now_there.jwks != served:
            change.replace(now_there, replace(now_there, jwks=served))


def served_keys(document: bytes) -> jwks.Keys:
    """The keys in what an issuer serves, one at least. Raises Unavailable."""
    keys = jwks.served(document)
    if not keys:
        raise Unavailable("The issuer serves no key that verifies signatures.", retry_after=60)
    return keys


def is_fresh(issuer: Issuer, now: datetime) -> bool:
    """Whether the keys of an issuer were fetched less than a minute ago, or that was tried."""
    return issuer.fetched_at is not None and timedelta() <= now - issuer.fetched_at < _AT_MOST_EVERY


def end_role(change: Change, role: IssuerRole) -> None:
    """Delete an issuer role, and end the sessions and access keys obtained through it."""
    sessions.end_made_with(change, credential_of(role.role), role.client_id)
    change.delete(role)


def end_issuer(change: Change, issuer: Issuer) -> None:
    """Delete an issuer with its roles, and end the sessions and access keys obtained through them."""
    for role in change.matching(IssuerRole, issuer_id=issuer.issuer_id):
        end_role(change, role)
    change.delete(issuer)
