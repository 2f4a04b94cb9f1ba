"""Recovery of a client whose person lost what proves them: new credentials, and nothing of before lets anybody in.

Only for the host (`client recover`): whoever can unseal the vault could read everything in it anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kms.access import access_keys, clients, lockout
from kms.access.access_keys import AccessKey
from kms.access.clients import Enrolment
from kms.access.issuers import IssuerRole
from kms.access.model import Client, ClientStatus, Token
from kms.access.passkeys import Passkey
from kms.access.public_keys import PublicKey
from kms.notices import events, outbox
from kms.vault.change import Change
from kms.vault.transaction import Snapshot


@dataclass(frozen=True)
class Recovery:
    """What is done beside new credentials: what else lets somebody in as the client is removed, unless it is kept."""

    keep_passkeys: bool = False
    keep_programs: bool = False
    enable: bool = False


@dataclass(frozen=True)
class WaysIn:
    """What lets somebody in as a client, beside its secret with a second factor.

    `public_keys` and `issuer_roles` are for programs. Certificates of the client CA are not known to the vault.
    """

    passkeys: list[Passkey]
    public_keys: list[PublicKey]
    issuer_roles: list[IssuerRole]
    access_keys: list[AccessKey]
    sessions: int


def ways_in(snapshot: Snapshot, client_id: str, now: datetime) -> WaysIn:
    """What lets somebody in as that client now. Raises IntegrityFailure."""
    return WaysIn(
        passkeys=snapshot.matching(Passkey, client_id=client_id, order_by="created_at"),
        public_keys=snapshot.matching(PublicKey, client_id=client_id, order_by="created_at"),
        issuer_roles=snapshot.matching(IssuerRole, client_id=client_id, order_by="created_at"),
        access_keys=access_keys.in_force(snapshot, client_id, now),
        sessions=sum(token.expires_at > now for token in snapshot.matching(Token, client_id=client_id)),
    )


def recover(change: Change, client: Client, how: Recovery, node: str, now: datetime) -> Enrolment:
    """Give the client new credentials, end its sessions and access keys, and tell who subscribed to that.

    Its keys, grants and groups stay. Every lock in force is lifted (see `lockout.lift_all`). `node` is what this
    host is called. Raises IntegrityFailure.
    """
    found = ways_in(change, client.client_id, now)
    made = clients.renew_credentials(change, client, ClientStatus.ENABLED if how.enable else client.status)
    if not how.keep_passkeys:
        change.delete(*found.passkeys)
    if not how.keep_programs:
        change.delete(*found.public_keys, *found.issuer_roles)
    lockout.lift_all(change, now)
    outbox.emit(change, events.client_recovered(made.client, node, now))
    return made
