"""Checks AWS key policies before they are stored: only enforceable ones that name existing clients are accepted.

A policy must also leave the owner of the key able to change it.
"""

from __future__ import annotations

from kms.access import clients, key_policy
from kms.access.issuers import IssuerRole
from kms.access.key_policy import Malformed
from kms.access.model import ClientStatus
from kms.errors import ValidationFailed
from kms.keys.ids import is_client_id
from kms.operations.core.service import Service
from kms.vault.transaction import Snapshot


def require_policy(service: Service, snapshot: Snapshot, text: str, owner: str, key_id: str | None) -> None:
    """Return if a key of `owner` may have this policy; `key_id` is None for one that has none yet.

    Raises key_policy.Malformed.
    """
    policy = key_policy.parse(text, service.settings.aws_account_id)
    policy.require_principals(lambda word: _exists(snapshot, word))
    client = clients.get(snapshot, owner)
    roles = frozenset(f"role:{role}" for role in client.roles)
    policy.require_kept_by(roles | {f"client:{owner}"}, key_id)


def require_valid_policy(service: Service, snapshot: Snapshot, text: str, owner: str, key_id: str | None) -> None:
    """As `require_policy`, for the member `policy` of a request, which may be empty. Raises ValidationFailed."""
    if text:
        try:
            require_policy(service, snapshot, text, owner, key_id)
        except Malformed as malformed:
            raise ValidationFailed(f"policy: {malformed.reason}") from None


def _exists(snapshot: Snapshot, word: str) -> bool:
    """Whether there is the client of `client:ID`, or the role of `issuer-role:NAME`."""
    kind, _, name = word.partition(":")
    if not is_client_id(name):
        return False
    if kind == "issuer-role":
        return snapshot.find(IssuerRole, name) is not None
    client = clients.find(snapshot, name)
    return client is not None and client.status is not ClientStatus.DELETED
