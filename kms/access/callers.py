"""Builds callers from the current state of the vault: client, roles, groups, grants, and the credential used."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kms.access import groups, scope, sessions
from kms.access.access_keys import AccessKey
from kms.access.issuers import IssuerRole
from kms.access.model import PASSKEY, Caller, Client, ClientStatus, Grant, Token
from kms.access.passkeys import Passkey
from kms.access.public_keys import CERTIFICATE, KEY, EndedCertificate, PublicKey
from kms.access.scope import Scope
from kms.access.step_up import CLOCKS_DIFFER_BY
from kms.errors import AuthenticationFailed
from kms.vault import names
from kms.vault.memory import Memory, Names
from kms.vault.transaction import Snapshot

FAILED = "The credentials are not valid. A code works once; wait for the next one before trying again."
OVER = (
    "This session is over, or its token is not one of this service. "
    "Get a new one: `python -m kms login`, or POST /auth/token with client id and secret (Basic) and X-TOTP."
)
_NOTHING = Scope(())


def of(snapshot: Snapshot, client: Client) -> Caller:
    """The caller that a client is, whatever proved it."""
    member_of = groups.of_client(snapshot, client.client_id)
    subjects = [
        names.of_client(client.client_id),
        *(names.of_role(role) for role in sorted(client.roles)),
        *(names.of_group(group) for group in sorted(member_of)),
    ]
    held = [grant for subject in subjects for grant in snapshot.matching(Grant, subject=subject)]
    return Caller(client.client_id, client.roles, tuple(held), groups=member_of)


def enabled(snapshot: Snapshot, client_id: str) -> Caller:
    """The caller that a client is. Raises AuthenticationFailed unless there is one and it is enabled."""
    client = snapshot.find(Client, client_id)
    if client is None or client.status is not ClientStatus.ENABLED:
        raise AuthenticationFailed(FAILED)
    return of(snapshot, client)


def by_token(caller: Caller, token: Token) -> Caller:
    """`caller` within a session."""
    return replace(
        caller,
        token=token,
        valid_from=token.issued_at - CLOCKS_DIFFER_BY,
        expires_at=token.expires_at,
        credential=token.credential,
        subject=token.subject,
        issuer_role=_role_in(token.credential),
        scope=scope.of(token.scope),
        second_factor_at=token.second_factor_at,
    )


def by_access_key(caller: Caller, key: AccessKey) -> Caller:
    """`caller` who proves requests with an access key; with one that needs a second factor it may do nothing."""
    return replace(
        caller,
        access_key_id=key.access_key_id,
        valid_from=key.created_at - CLOCKS_DIFFER_BY,
        expires_at=key.expires_at,
        credential=sessions.credential_of(key),
        subject=key.subject,
        issuer_role=_role_in(key.credential),
        scope=_NOTHING if key.needs_second_factor else scope.of(key.scope),
        second_factor_at=key.second_factor_at,
    )


def again(snapshot: Snapshot, caller: Caller) -> Caller:
    """`caller` read anew. Raises AuthenticationFailed where what proved it is gone."""
    now = enabled(snapshot, caller.client_id)
    if caller.token is not None:
        token = snapshot.find(Token, caller.token.token_hash)
        if token is None:
            raise AuthenticationFailed(OVER)
        return by_token(now, token)
    if caller.access_key_id is not None:
        key = snapshot.find(AccessKey, caller.access_key_id)
        if key is None:
            raise AuthenticationFailed(OVER)
        return by_access_key(now, key)
    if not _is_proven_still(snapshot, caller):
        raise AuthenticationFailed(FAILED)
    return replace(caller, roles=now.roles, grants=now.grants, groups=now.groups, standing=None)


def standing(memory: Memory, caller: Caller, epoch: int) -> Caller:
    """`caller`, read after `epoch`, with what it rests on."""
    rests_on: Names = (
        names.of_client(caller.client_id),
        *map(names.of_role, caller.roles),
        *map(names.of_group, caller.groups),
    )
    if caller.token is not None:
        rests_on += (names.of_session(caller.token.token_hash),)
    elif caller.access_key_id is not None:
        rests_on += (names.of_access_key(caller.access_key_id),)
    elif caller.issuer_role:
        rests_on += (names.of_issuer_role(caller.issuer_role),)
    elif caller.credential.startswith(KEY):
        rests_on += (names.of_public_key(caller.client_id, caller.credential.removeprefix(KEY)),)
    elif caller.credential.startswith(PASSKEY):
        rests_on += (names.of_passkey(caller.credential.removeprefix(PASSKEY)),)
    elif caller.credential.startswith(CERTIFICATE):
        rests_on += (names.of_certificate(caller.client_id, caller.credential.removeprefix(CERTIFICATE)),)
    return replace(caller, rests_on=rests_on, standing=memory.standing(epoch, rests_on))


def require_in_time(caller: Caller, now: datetime) -> None:
    """Raise AuthenticationFailed unless the session or access key of `caller` is valid at `now`.

    One that was issued after `now` is refused: the clock was ahead when it was issued, so its expiry is too late.
    """
    if caller.expires_at is not None and not caller.valid_from <= now < caller.expires_at:
        raise AuthenticationFailed(OVER)


def _is_proven_still(snapshot: Snapshot, caller: Caller) -> bool:
    """Whether the credential of a caller without a session is still there."""
    kind, _, name = caller.credential.partition(":")
    if kind == "key":
        return snapshot.find(PublicKey, caller.client_id, name) is not None
    if kind == "passkey":
        passkey = snapshot.find(Passkey, name)
        return passkey is not None and passkey.client_id == caller.client_id
    if kind == "issuer-role":
        role = snapshot.find(IssuerRole, name)
        return role is not None and role.client_id == caller.client_id
    if kind == "certificate":
        return snapshot.find(EndedCertificate, caller.client_id, name) is None
    client = snapshot.find(Client, caller.client_id)
    return client is not None and (client.secret_hash, client.totp_secret) == caller.proven_by


def _role_in(credential: str) -> str:
    kind, _, name = credential.partition(":")
    return name if kind == "issuer-role" else ""
