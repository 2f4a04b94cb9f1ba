"""Clients, what proves them, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kms.access import scope
from kms.access.scope import Scope
from kms.encryption_context import context_of
from kms.enums import TextEnum
from kms.vault import names, tables
from kms.vault.memory import Standing
from kms.vault.records import stored_in

SECRET = "secret"  # noqa: S105  # a kind of credential
"""The credential of whoever proved a client's secret and a second factor."""

PASSKEY = "passkey:"
"""How the credential begins of who proved a passkey of a client."""


def is_of_person(credential: str) -> bool:
    """Whether a person proves a client by this credential, and not a program."""
    return credential == SECRET or credential.startswith(PASSKEY)


EVERY_OWNER = "*"
"""The owner in a grant that denies, where it is about everybody's keys."""


class Role(TextEnum):
    """What a client is to the service. Owning keys is for users and administrators."""

    ADMIN = "admin"
    USER = "user"
    AUDITOR = "auditor"


class ClientStatus(TextEnum):
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
    """A session. Only a hash of its token is stored; `session_id` identifies it in lists and for ending it.

    `credential` is the credential that opened it (see `Caller`), and `subject` the `sub` of a platform token.
    `parent` is the token hash of the session from which it was made, None for one that was opened by logging in.
    """

    token_hash: bytes
    client_id: str
    issued_at: datetime
    expires_at: datetime
    session_id: str = ""
    scope: frozenset[str] = frozenset()
    credential: str = SECRET
    subject: str = ""
    parent: bytes | None = None
    second_factor_at: datetime | None = None


@stored_in(tables.used_assertions)
@dataclass(frozen=True, slots=True)
class UsedAssertion:
    """That an assertion (RFC 7523) was taken once, until it is over anyway."""

    assertion_hash: bytes
    expires_at: datetime


class Effect(TextEnum):
    """What a grant does. What denies outweighs everything that allows."""

    ALLOW = "allow"
    DENY = "deny"


class ContextRule(TextEnum):
    """What a grant requires of a message's encryption context: nothing, to equal the grant's, or to contain it."""

    NONE = "none"
    EQUALS = "equals"
    SUBSET = "subset"


@stored_in(tables.grants)
@dataclass(frozen=True, slots=True)
class Grant:
    """A grant: the owner of keys lets a client, role or group use them; or, with `deny`, an administrator forbids it.

    `subject` is `client:NAME`, `role:NAME` or `group:NAME`; `key_pattern` is a key id, or its beginning and `*`. Only
    keys of `owner` are covered (`EVERY_OWNER`: of every client). It is in force from `not_before` to `not_after`, for
    callers from the networks in `source` (empty: from anywhere), and only within `second_factor_within` after a
    person gave a second factor. `context_rule` and `context` limit it to messages with such an encryption context.
    The client in `retired_by` may end the grant. `name` is that of AWS's CreateGrant, and `words` are its operations.
    """

    grant_id: str
    owner: str
    subject: str
    permission: str
    key_pattern: str
    created_at: datetime
    more_permissions: frozenset[str] = frozenset()
    context_rule: ContextRule = ContextRule.NONE
    context: dict[str, str] = field(default_factory=dict)
    retired_by: str = ""
    name: str = ""
    words: frozenset[str] = frozenset()
    effect: Effect = Effect.ALLOW
    source: frozenset[str] = frozenset()
    not_before: datetime | None = None
    not_after: datetime | None = None
    second_factor_within: timedelta | None = None

    @property
    def permissions(self) -> frozenset[str]:
        """Everything that it permits."""
        return self.more_permissions | {self.permission}

    def admits(self, associated_data: bytes | None) -> bool:
        """Whether it is for what is bound to `associated_data`; None stands for whatever there is."""
        if self.context_rule is ContextRule.NONE:
            return True
        given = context_of(associated_data) if associated_data is not None else None
        if given is None:
            return False
        if self.context_rule is ContextRule.EQUALS:
            return given == self.context
        return self.context.items() <= given.items()

    def covers(self, owner: str, key_id: str) -> bool:
        """Whether this grant is about the key `key_id` of `owner`."""
        return self.owner in (owner, EVERY_OWNER) and scope.matches(self.key_pattern, key_id)


names.bears(Client, lambda client: names.of_client(client.client_id), but=("last_totp_step", "created_at"))
names.bears(Token, lambda token: names.of_session(token.token_hash))
names.bears(Grant, lambda grant: grant.subject, when_added=True)


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who is asking, once that is proven: with a session, an access key, or neither.

    `credential` says what proved it: `secret`, `passkey:ID`, `key:KID`, `certificate:THUMBPRINT`, `issuer-role:ROLE`
    or `access-key:ID`; `subject` whom a platform's token named, and `issuer_role` by which role it came;
    `second_factor_at` when a person gave a second factor. With a `scope` it may do nothing else. A session of it
    lives no longer than `token_lifetime`, where there is one, and making it uses up what it `consumes`.

    `standing` says whether that is still so, resting on the names `rests_on`; None where nobody can say. `proven_by`
    is what was stored of the secret and of the second factor of a caller without a session. Two of them are equal
    only where they are the same object.
    """

    client_id: str
    roles: frozenset[Role]
    grants: tuple[Grant, ...]
    token: Token | None = None
    access_key_id: str | None = None
    valid_from: datetime = _LONG_AGO
    expires_at: datetime | None = None
    rests_on: tuple[str, ...] = ()
    standing: Standing | None = None
    proven_by: tuple[str, bytes] | None = field(default=None, repr=False)
    groups: frozenset[str] = frozenset()
    credential: str = SECRET
    subject: str = ""
    issuer_role: str = ""
    scope: Scope | None = None
    second_factor_at: datetime | None = None
    token_lifetime: timedelta | None = None
    consumes: UsedAssertion | None = None
