"""Clients, what proves them, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kms.vault import tables
from kms.vault.records import stored_in
from kms.words import Word


class Role(Word):
    """What a client is to the service. Owning keys is for users and administrators."""

    ADMIN = "admin"
    USER = "user"
    AUDITOR = "auditor"


class ClientStatus(Word):
    """A deleted client keeps its name, so that nobody else is ever given it and the keys that it owns."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


@stored_in(tables.clients)
@dataclass(frozen=True, slots=True)
class Client:
    """One client. `totp_secret` is sealed; `last_totp_step` is the last 30-second step that was accepted."""

    client_id: str
    roles: frozenset[Role]
    status: ClientStatus
    secret_hash: str = field(repr=False)
    totp_secret: bytes = field(repr=False)
    last_totp_step: int
    created_at: datetime


@stored_in(tables.recovery_codes)
@dataclass(frozen=True, slots=True)
class RecoveryCode:
    """A code that replaces the second factor once."""

    client_id: str
    code_hash: bytes


@stored_in(tables.tokens)
@dataclass(frozen=True, slots=True)
class Token:
    """A session. The token itself is known only to its bearer."""

    token_hash: bytes
    client_id: str
    issued_at: datetime
    expires_at: datetime


@stored_in(tables.grants)
@dataclass(frozen=True, slots=True)
class Grant:
    """The owner of keys lets another client or a role use them.

    `subject` is `client:NAME` or `role:NAME`; `key_pattern` a key id, or the beginning of one and `*`. It
    reaches only keys of `owner`.
    """

    grant_id: str
    owner: str
    subject: str
    permission: str
    key_pattern: str
    created_at: datetime

    def covers(self, owner: str, key_id: str) -> bool:
        """Whether this grant is about the key `key_id` of `owner`."""
        if owner != self.owner:
            return False
        if self.key_pattern.endswith("*"):
            return key_id.startswith(self.key_pattern[:-1])
        return key_id == self.key_pattern


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who is asking, once that is proven, as it was at an epoch: with a session, an access key, or neither.

    Two of them are equal only where they are the same object.
    """

    client_id: str
    roles: frozenset[Role]
    grants: tuple[Grant, ...]
    token: Token | None = None
    access_key_id: str | None = None
    epoch: int = 0
