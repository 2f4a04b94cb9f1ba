"""Backup of one key with all its versions, and its restoration, here or in another installation.

A backup is sealed under a key that no caller has, so keys that are not exportable can be backed up too: it is
derived from the root key, or from `KMS_BACKUP_KEY`, which installations that restore each other's keys share.
The format is in docs/reference/formats.md.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec

from kms.access import clients, policy
from kms.access.decision import require_create, require_on_key
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.clock import rfc3339
from kms.crypto.registry import key_type
from kms.crypto.symmetric import Xaes256Gcm
from kms.errors import AlreadyExists, Conflict, DecryptionFailed, TooLarge
from kms.keys.lifecycle import effective_state, move
from kms.keys.model import Key, KeyState, KeyVersion
from kms.operations.core.approving import shown_to_approvers
from kms.operations.core.declare import Answer, EmptyRequest, FromAnswerOf, Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.keys import key_factory
from kms.operations.keys.key_factory import require_free_name
from kms.operations.keys.state_changes import remove
from kms.operations.keys.views import KeyView, shown_now
from kms.operations.transfer.external import fingerprint_of
from kms.revocation.revoke import highest_revoked, revoke_again
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.records import from_row, to_row
from kms.vault.rows import MessageCount
from kms.vault.transaction import Snapshot

_FORMAT = b"kms backup v1\x00"
_THIS = "this installation"
_ANY = "an installation with the same KMS_BACKUP_KEY"


class BackupAnswer(Answer):
    """`backup` is the key with all its versions, encrypted (base64); give it to `restore` unchanged."""

    key_id: str
    backup: bytes


class RestoreRequest(Request):
    """The member `backup` of the answer to `backup`, unchanged."""

    backup: bytes


class _Contents(msgspec.Struct):
    key: dict[str, Any]
    versions: list[dict[str, Any]]
    counts: list[tuple[int, int]]


@operation(
    "POST",
    "/api/v1/keys/<key_id>/backup",
    permission=Permission.KEYS_EXPORT,
    rate_class=RateClass.GENERATE,
    example={},
)
def backup_key(service: Service, call: Call, request: EmptyRequest, key_id: str) -> BackupAnswer:
    """Return a backup of a key with all its versions, encrypted so that only `restore` can read it."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_EXPORT, key_id)
        contents = msgspec.msgpack.encode(_contents(snapshot, key))
    sealed = _FORMAT + _cipher(service).encrypt(contents, _FORMAT)
    if len(sealed) * 4 // 3 + 100 > service.settings.max_body_bytes:
        raise TooLarge(f"{key.key_id} has too many versions to be restored in one request. Trim old ones first.")
    return BackupAnswer(key_id=key.key_id, backup=sealed)


@operation(
    "POST",
    "/api/v1/keys/restore",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=RestoreRequest,
    status=201,
    location="/api/v1/keys/{key_id}",
    example={"backup": FromAnswerOf("backup_key", "backup", "a21zIGJhY2t1cCB2MQ==")},
)
def restore_key(service: Service, call: Call, request: RestoreRequest) -> KeyView:
    """Restore a key from its backup, with its owner, its versions and their states."""
    key, contents = _opened(service, call, request)
    key_type(key.type)
    with service.change(call) as change:
        clients.get(change, key.owner)
        _make_place(service, call, change, key)
        require_free_name(change, key.key_id, key.owner)
        _insert(change, key, contents)
        revoke_again(change, key, service.clock())
        _renew_counted(service, change, key.uid)
        call.key_id = key.key_id
        if key.owner != call.known_caller.client_id:
            call.target = key.owner
    return shown_now(service, call)


@shown_to_approvers("restore_key")
def _about(service: Service, call: Call, request: RestoreRequest) -> dict[str, dict[str, Any]]:
    """What comes back, for those who are to approve it."""
    key, contents = _opened(service, call, request)
    call.key_id = key.key_id
    known = {
        "key_id": key.key_id,
        "owner": key.owner,
        "type": key.type,
        "versions": len(contents.versions),
        "latest_version": key.latest_version,
        "created_at": rfc3339(key.created_at),
        "exportable": key.exportable,
        "has_key_policy": bool(key.policy),
        "sealed_by": _THIS if service.settings.backup_key is None else _ANY,
        "sha256": sha256(request.backup).hexdigest(),
    }
    return {"backup": known}


def _opened(service: Service, call: Call, request: RestoreRequest) -> tuple[Key, _Contents]:
    """The key in a backup, under the id that it had, and the rest. Raises as `restore_key` does."""
    if not request.backup.startswith(_FORMAT):
        raise DecryptionFailed
    plain = _cipher(service).decrypt(request.backup[len(_FORMAT) :], _FORMAT)
    contents = msgspec.msgpack.decode(plain, type=_Contents)
    kept = from_row(Key, contents.key)
    key = replace(kept, key_id=kept.sealed_as, former_id="", deletion_at=None)
    policy.require(call.known_caller, Permission.KEYS_CREATE, key.owner)
    require_create(call.known_caller, key.owner, key.key_id, service.circumstances(call))
    return key, contents


def _make_place(service: Service, call: Call, change: Change, key: Key) -> None:
    """Remove a deleted key that gave its name back, for it comes back from its backup now.

    Raises AlreadyExists where the key is here, or something of it that the backup has not; Conflict after a
    revocation of what the backup has not; and what `require_on_key` does, for this cancels its deletion.
    """
    found = change.find(Key, key.uid)
    if found is not None and (not found.former_id or found.deletion_at is None):
        raise AlreadyExists("This key is here already, perhaps under another id.")
    if found is not None and found.latest_version > key.latest_version:
        raise AlreadyExists(f"This key is here with later versions, as {found.key_id}. Cancel its deletion instead.")
    if highest_revoked(change, key.uid) > key.latest_version:
        raise Conflict("Later versions of this key were revoked than its backup has. Restore a later backup.")
    if found is not None:
        at = replace(service.circumstances(call), action="cancel_deletion")
        require_on_key(call.known_caller, Permission.KEYS_DELETE, found, at)
        remove(change, found)


def _contents(snapshot: Snapshot, key: Key) -> _Contents:
    versions = []
    for version in snapshot.versions(key):
        row = to_row(version)
        if version.material is not None:
            row["material"] = snapshot.material(key, version)
        versions.append(row)
    counts = snapshot.select(MessageCount, tables.message_counts.c.key_uid == key.uid)
    return _Contents(to_row(key), versions, [(count.version, count.claimed) for count in counts])


def _insert(change: Change, key: Key, contents: _Contents) -> None:
    change.insert(key)
    for row in contents.versions:
        version = from_row(KeyVersion, row)
        if version.material is not None:
            row["material"] = change.seal_material(key, version.version, version.type, version.material)
        if version.fingerprint is not None:  # it is of the vault that the backup is from
            row["fingerprint"] = fingerprint_of(change, key, version.material) if version.material else None
        change.insert(from_row(KeyVersion, row))
    for number, claimed in contents.counts:
        change.insert(MessageCount(key.uid, number, claimed))


def _renew_counted(service: Service, change: Change, uid: bytes) -> None:
    """Protect with another version where messages are counted: who knows what this one protected elsewhere."""
    key = change.find(Key, uid)
    assert key is not None
    kind, now = key_type(key.type), service.clock()
    latest = change.find(KeyVersion, uid, key.latest_version)
    if kind.message_limit is None or latest is None or effective_state(latest, now) is not KeyState.ACTIVE:
        return
    if key.origin.is_renewable and latest.fingerprint is None:
        key_factory.next_version(change, service.cryptoperiods, key, kind, service.generated(kind), now)
    else:
        change.replace(latest, move(latest, KeyState.DEACTIVATED, now))


def _cipher(service: Service) -> Xaes256Gcm:
    return Xaes256Gcm(service.vault.derived_keys.backup_key(service.settings.backup_key))
