"""Rows that are the vault's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from kms.vault import names, tables
from kms.vault.records import stored_in


@stored_in(tables.audit_outbox)
@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """The audit entry of a change."""

    sequence: int
    entry: str


@stored_in(tables.audit_log)
@dataclass(frozen=True, slots=True)
class AuditLog:
    """The tree of the audit log: its name `origin`, how many entries it has, and its root hash (RFC 6962).

    `staged` names the file of the entries that were added last. The entries of changes up to number `last_folded`
    are in the tree; they were `entries_folded`, and are not in the outbox any more.
    """

    id: int
    origin: str
    size: int
    root: bytes
    staged: str
    last_folded: int
    entries_folded: int
    folded_at: datetime


@stored_in(tables.audit_spools)
@dataclass(frozen=True, slots=True)
class FoldedSpool:
    """Up to which byte the spools of a process, the first of which is named `spool`, are in the tree."""

    node_id: str
    spool: str
    folded: int


@stored_in(tables.keyslots)
@dataclass(frozen=True, slots=True)
class Keyslot:
    """The keyset of the vault, wrapped by the seal that `seal` describes (JSON of its name and parameters)."""

    slot: str
    seal: str
    wrapped: bytes


@stored_in(tables.root_keys)
@dataclass(frozen=True, slots=True)
class NewRootKey:
    """A root key, sealed under the one before; it is here only until nothing is under that one any more."""

    number: int
    wrapped: bytes
    created_at: datetime


@stored_in(tables.message_counts)
@dataclass(frozen=True, slots=True)
class MessageCount:
    """How many messages the workers have claimed to protect with one version of a key."""

    key_uid: bytes
    version: int
    claimed: int


@stored_in(tables.last_uses)
@dataclass(frozen=True, slots=True)
class LastUse:
    """When a key was used last, by which operation and in which request."""

    key_uid: bytes
    operation: str
    used_at: datetime
    request_id: str


@stored_in(tables.mounts)
@dataclass(frozen=True, slots=True)
class Mount:
    """A further mount of the Vault dialect."""

    mount: str
    description: str
    created_at: datetime


names.bears(Mount, lambda mount: names.of_mount(mount.mount), but=("description",))


@stored_in(tables.wrapping_keys)
@dataclass(frozen=True, slots=True)
class WrappingKey:
    """A key pair of the service under which one key may come in; `material` is sealed PKCS#8."""

    wrapping_key_id: str
    owner: str
    algorithm: str
    material: bytes = field(repr=False)
    expires_at: datetime
