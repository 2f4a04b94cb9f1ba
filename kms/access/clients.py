"""Clients over their life: made, disabled, given new credentials, deleted but never forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import or_

from kms.access import credentials, groups, sessions, totp
from kms.access.issuers import IssuerRole
from kms.access.model import Client, ClientStatus, Grant, RecoveryCode, Role
from kms.access.passkeys import Passkey
from kms.access.public_keys import EndedCertificate, PublicKey
from kms.errors import AlreadyExists, Conflict, NotFound
from kms.keys.ids import is_client_id
from kms.notices import outbox
from kms.vault import sealed_columns
from kms.vault.change import Change
from kms.vault.tables import clients, grants
from kms.vault.transaction import Snapshot


@dataclass(frozen=True)
class Enrolment:
    """What a new client is told, once."""

    client: Client
    client_secret: str = field(repr=False)
    totp_secret: str = field(repr=False)
    recovery_codes: list[str] = field(repr=False)

    @property
    def totp_uri(self) -> str:
        """For authenticator apps."""
        return totp.provisioning_uri(self.totp_secret, self.client.client_id)


@dataclass(frozen=True)
class SecondFactor:
    """A new second factor, told once."""

    totp_secret: str = field(repr=False)
    totp_uri: str = field(repr=False)
    recovery_codes: list[str] = field(repr=False)


def create(change: Change, client_id: str, roles: frozenset[Role], now: datetime) -> Enrolment:
    """Make a client with a secret, a TOTP secret and recovery codes. Raises AlreadyExists."""
    if change.find(Client, client_id) is not None:
        raise AlreadyExists(f"The client id {client_id} is or was in use; choose another.")
    secret = credentials.new_client_secret()
    totp_secret = totp.new_secret()
    client = Client(
        client_id=client_id,
        roles=roles,
        status=ClientStatus.ENABLED,
        secret_hash=credentials.hash_secret(change.derived_keys, client_id, secret),
        totp_secret=_sealed_totp(change, client_id, totp_secret),
        last_totp_step=0,
        created_at=now,
    )
    change.insert(client)
    return Enrolment(client, secret, totp_secret, _new_recovery_codes(change, client_id))


def find(snapshot: Snapshot, client_id: str) -> Client | None:
    """The client of that id, also a deleted one; None for what is no client id at all."""
    return snapshot.find(Client, client_id) if is_client_id(client_id) else None


def get(snapshot: Snapshot, client_id: str) -> Client:
    """The client of that id. Raises NotFound, also for deleted ones."""
    client = find(snapshot, client_id)
    if client is None or client.status is ClientStatus.DELETED:
        raise NotFound(f"There is no client {client_id}.")
    return client


def set_status(change: Change, client: Client, status: ClientStatus) -> Client:
    """Enable, disable or delete; the latter two end the client's sessions. Raises Conflict for the last admin."""
    if client.status is status:
        return client
    if status is not ClientStatus.ENABLED:
        _require_another_admin(change, client)
        sessions.end_all(change, client.client_id)
    if status is ClientStatus.DELETED:
        own = or_(grants.c.owner == client.client_id, grants.c.subject == f"client:{client.client_id}")
        change.delete(*change.select(Grant, own), *_recovery_codes(change, client.client_id))
        change.delete(*change.matching(PublicKey, client_id=client.client_id))
        change.delete(*change.matching(Passkey, client_id=client.client_id))
        change.delete(*change.matching(EndedCertificate, client_id=client.client_id))
        change.delete(*change.matching(IssuerRole, client_id=client.client_id))
        groups.forget_client(change, client.client_id)
        outbox.forget_client(change, client.client_id)
        return change.replace(client, replace(client, status=status, secret_hash="", totp_secret=b""))
    return change.replace(client, replace(client, status=status))


def rotate_secret(change: Change, client: Client, passphrase: str | None) -> str | None:
    """Give the client a new secret, or the passphrase that it chose; its sessions end. Gives a new secret back."""
    secret = passphrase or credentials.new_client_secret()
    hashed = credentials.hash_secret(change.derived_keys, client.client_id, secret)
    change.replace(client, replace(client, secret_hash=hashed))
    sessions.end_all(change, client.client_id)
    return None if passphrase else secret


def reset_second_factor(change: Change, client: Client) -> SecondFactor:
    """Give the client a new TOTP secret and new recovery codes; its sessions end."""
    secret = totp.new_secret()
    sealed = _sealed_totp(change, client.client_id, secret)
    change.replace(client, replace(client, totp_secret=sealed, last_totp_step=0))  # of the new one none is used
    change.delete(*_recovery_codes(change, client.client_id))
    sessions.end_all(change, client.client_id)
    codes = _new_recovery_codes(change, client.client_id)
    return SecondFactor(secret, totp.provisioning_uri(secret, client.client_id), codes)


def _sealed_totp(change: Change, client_id: str, secret: str) -> bytes:
    return change.derived_keys.seal(secret.encode(), sealed_columns.totp_secret(client_id))


def _new_recovery_codes(change: Change, client_id: str) -> list[str]:
    codes = credentials.new_recovery_codes()
    for code in codes:
        change.insert(RecoveryCode(client_id, credentials.recovery_code_hash(change.derived_keys, client_id, code)))
    return codes


def _recovery_codes(change: Change, client_id: str) -> list[RecoveryCode]:
    return change.matching(RecoveryCode, client_id=client_id)


def _require_another_admin(change: Change, client: Client) -> None:
    if Role.ADMIN not in client.roles:
        return
    enabled = change.select(Client, clients.c.status == ClientStatus.ENABLED)
    if not any(Role.ADMIN in other.roles for other in enabled if other.client_id != client.client_id):
        raise Conflict(f"{client.client_id} is the last administrator. Make another one first.")
