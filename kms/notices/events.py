"""Each event, with what is told about it: never a secret, nothing that was encrypted, no ciphertext."""

from __future__ import annotations

from datetime import datetime

from kms.access.model import Client
from kms.approvals.model import Approval
from kms.clock import rfc3339
from kms.keys.model import Key, KeyVersion
from kms.notices.model import Event
from kms.notices.outbox import Occurrence
from kms.revocation.model import Revocation


def key_expiring(key: Key, version: KeyVersion, days: int, now: datetime) -> Occurrence:
    """The latest version of a key stops protecting within so many days."""
    return Occurrence(
        Event.KEY_EXPIRING,
        now,
        (key.uid, version.version, days),
        {**_key(key), "version": version.version, "expires_at": rfc3339(version.expires_at), "days": days},
        key,
    )


def key_rotated(key: Key, version: KeyVersion, now: datetime) -> Occurrence:
    """A key has a new latest version."""
    return Occurrence(
        Event.KEY_ROTATED,
        now,
        (key.uid, version.version),
        {**_key(key), "version": version.version, "expires_at": rfc3339(version.expires_at)},
        key,
    )


def key_revoked(key: Key, made: Revocation) -> Occurrence:
    """There is a new entry for a key in the revocation list: revoked, on hold, or the hold lifted."""
    told = {
        **_key(key),
        "up_to_version": made.up_to_version,
        "reason": str(made.reason),
        "revoked_at": rfc3339(made.revoked_at),
    }
    if made.compromised_at is not None:
        told["compromised_at"] = rfc3339(made.compromised_at)
    return Occurrence(Event.KEY_REVOKED, made.revoked_at, (made.serial,), told, key)


def key_used_after_compromise(key: Key, version: int, client_id: str, operation: str, now: datetime) -> Occurrence:
    """Somebody was refused the use of a version that was revoked for compromise. Told once an hour for a key."""
    told = {**_key(key), "version": version, "client_id": client_id, "operation": operation}
    return Occurrence(Event.KEY_USED_AFTER_COMPROMISE, now, (key.uid, hour_of(now)), told, key)


def login_locked(client_id: str, source: str, until: datetime, now: datetime) -> Occurrence:
    """Failed log-ins have locked a client out, from a place or from everywhere. Told once an hour for a client."""
    told = {"client_id": client_id, "source": source, "locked_until": rfc3339(until)}
    return Occurrence(Event.LOGIN_LOCKED, now, (client_id, hour_of(now)), told)


def client_recovered(client: Client, node: str, now: datetime) -> Occurrence:
    """Somebody on a host gave a client new credentials, without any of the old ones."""
    told = {"client_id": client.client_id, "roles": sorted(client.roles), "status": client.status, "node": node}
    return Occurrence(Event.CLIENT_RECOVERED, now, (client.client_id, now.isoformat()), told)


def approval_pending(waiting: Approval, rules: list[str]) -> Occurrence:
    """A call waits for the approval of others."""
    told: dict[str, object] = {
        "approval_id": waiting.approval_id,
        "operation": waiting.operation,
        "requester": waiting.requester,
        "rules": rules,
        "expires_at": rfc3339(waiting.expires_at),
    }
    if waiting.key_id:
        told["key_id"] = waiting.key_id
    return Occurrence(Event.APPROVAL_PENDING, waiting.created_at, (waiting.approval_id,), told)


def approval_rule_lifted(rule: str, node: str, how: str, now: datetime) -> Occurrence:
    """Somebody on a host took an approval rule out of force, without the approvals that it asks for."""
    told = {"rule": rule, "how": how, "node": node}
    return Occurrence(Event.APPROVAL_RULE_LIFTED, now, (rule, now.isoformat()), told)


def vault_integrity(node: str, reason: str, now: datetime) -> Occurrence:
    """A node uses no keys any more, because the database is not what the service wrote."""
    return Occurrence(Event.VAULT_INTEGRITY, now, (node, reason, hour_of(now)), {"node": node, "reason": reason})


def audit_stalled(node: str, reason: str, now: datetime) -> Occurrence:
    """A node refuses everything, because it cannot write the audit log."""
    return Occurrence(Event.AUDIT_STALLED, now, (node, hour_of(now)), {"node": node, "reason": reason})


def hour_of(now: datetime) -> int:
    """The hour in which `now` is, counted from 1970."""
    return int(now.timestamp()) // 3600


def _key(key: Key) -> dict[str, str | int]:
    return {"key_id": key.key_id, "owner": key.owner}
