"""The public keys and certificates by which programs prove themselves: the private half never travels.

RFC 7523, section 2.2, for keys; RFC 8705, section 2.1, for certificates, which nobody registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kms.access import sessions
from kms.access.access_keys import AccessKey
from kms.access.model import Token
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.records import stored_in


@stored_in(tables.public_keys)
@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key of a client, as a JWK; `kid` is its thumbprint (RFC 7638, SHA-256)."""

    client_id: str
    kid: str
    jwk: dict[str, Any]
    created_at: datetime
    expires_at: datetime | None


@stored_in(tables.ended_certificates)
@dataclass(frozen=True, slots=True)
class EndedCertificate:
    """That a certificate proves a client no more; `thumbprint` is the SHA-256 of its DER in hexadecimal."""

    client_id: str
    thumbprint: str
    ended_at: datetime


KEY, CERTIFICATE = "key:", "certificate:"
"""How the credential begins of what a public key, or a certificate, has proven."""

names.bears(PublicKey, lambda key: names.of_public_key(key.client_id, key.kid))

names.bears(EndedCertificate, lambda ended: names.of_certificate(ended.client_id, ended.thumbprint), when_added=True)


def credential_of(kid: str) -> str:
    """The `credential` of sessions that were opened with the public key `kid`."""
    return KEY + kid


def end(change: Change, key: PublicKey) -> None:
    """Delete a public key, and end the sessions and access keys obtained with it."""
    sessions.end_made_with(change, credential_of(key.kid), key.client_id)
    change.delete(key)


def end_certificate(change: Change, client_id: str, thumbprint: str, now: datetime) -> None:
    """Refuse a certificate of a client from now on, and end the sessions and access keys obtained with certificates.

    The same certificate can have other thumbprints, which cannot be computed from this one. So the sessions of all
    certificates of the client end; programs with other certificates log in again.
    """
    proven = {each.credential for each in change.matching(Token, client_id=client_id)}
    proven |= {each.credential for each in change.matching(AccessKey, client_id=client_id)}
    for credential in filter(lambda each: each.startswith(CERTIFICATE), sorted(proven)):
        sessions.end_made_with(change, credential, client_id)
    if change.find(EndedCertificate, client_id, thumbprint) is None:
        change.insert(EndedCertificate(client_id, thumbprint, now))
