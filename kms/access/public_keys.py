"""The public keys by which programs prove themselves (RFC 7523, section 2.2): the private half never travels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kms.access import sessions
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


KEY = "key:"
"""How the credential begins of what a public key has proven."""

names.bears(PublicKey, lambda key: names.of_public_key(key.client_id, key.kid))


def credential_of(kid: str) -> str:
    """What sessions have as their credential that a public key has proven."""
    return KEY + kid


def end(change: Change, key: PublicKey) -> None:
    """Take a public key away, and end what was proven with it."""
    sessions.end_made_with(change, credential_of(key.kid), key.client_id)
    change.delete(key)
