"""The life of a key over REST: rotate, suspend, resume, revoke, trim, destroy, delete (SP 800-57, section 7)."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime, timedelta

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.crypto.registry import key_type
from kms.errors import Conflict, KeyStateConflict, NotFound, ValidationFailed
from kms.keys.ids import RELEASED
from kms.keys.lifecycle import effective_state, move
from kms.keys.model import Alias, Key, KeyState, KeyVersion, RevocationReason
from kms.operations.core.declare import EmptyRequest, Request, operation
from kms.operations.core.key_access import VersionNumber, authorized_key, authorized_key_cached
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.operations.keys import key_factory
from kms.operations.keys.views import KeyView, shown
from kms.revocation import revoke as revocation
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.rows import LastUse, MessageCount

_SHORTEST_WAIT, _USUAL_WAIT, _LONGEST_WAIT = timedelta(days=1), timedelta(days=30), timedelta(days=365)


class RevokeKeyRequest(Request):
    """The `reason` (a name from RFC 5280), and when the key was compromised, if that is known."""

    reason: RevocationReason = RevocationReason.KEY_COMPROMISE
    compromised_at: Moment | None = None


class RotateKeyVersionRequest(Request):
    """`keep_schedule` leaves the date of the next automatic rotation as it is; else it is counted from now."""

    keep_schedule: bool = False


class DeleteKeyRequest(Request):
    """`waiting_period` is how long the deletion can still be cancelled: ISO 8601, from P1D to P365D.

    With `release_name` the key's id, and the alias if the request named the key by one, can be given to another key
    at once. Until it is gone, the deleted key then has an id that begins with `deleted-`; its `former_key_id` is the
    id that it had before.
    """

    waiting_period: timedelta = _USUAL_WAIT
    release_name: bool = False


class TrimKeyRequest(Request):
    """`oldest_version` is the number of the oldest version to keep."""

    oldest_version: VersionNumber


@operation(
    "POST",
    "/api/v1/keys/<key_id>/rotate",
    permission=Permission.KEYS_ROTATE,
    rate_class=RateClass.GENERATE,
    request=RotateKeyVersionRequest,
    slow=True,
    example={},
)
def rotate_key_version(service: Service, call: Call, request: RotateKeyVersionRequest, key_id: str) -> KeyView:
    """Make the next version of a key; the version before can then only decrypt and verify.

    If imported material waits for the rotation, the next version is made of that.
    """
    material = next_material(service, call, key_id)
    with service.change(call) as change:
        key, _ = rotate(service, call, change, key_id, material, keep_schedule=request.keep_schedule)
        return shown(service, change, key)


@operation("POST", "/api/v1/keys/<key_id>/suspend", permission=Permission.KEYS_REVOKE, example={})
def suspend_key(service: Service, call: Call, request: EmptyRequest, key_id: str) -> KeyView:
    """Suspend a key: every use of it is refused until it is resumed."""
    with service.change(call) as change:
        return shown(service, change, revoke(service, call, change, key_id, RevocationReason.CERTIFICATE_HOLD))


@operation("POST", "/api/v1/keys/<key_id>/resume", permission=Permission.KEYS_REVOKE, example={})
def resume_key(service: Service, call: Call, request: EmptyRequest, key_id: str) -> KeyView:
    """Resume a suspended key."""
    with service.change(call) as change:
        return shown(service, change, revoke(service, call, change, key_id, RevocationReason.REMOVE_FROM_CRL))


@operation(
    "POST",
    "/api/v1/keys/<key_id>/revoke",
    permission=Permission.KEYS_REVOKE,
    request=RevokeKeyRequest,
    example={"reason": "superseded"},
)
def revoke_key_versions(service: Service, call: Call, request: RevokeKeyRequest, key_id: str) -> KeyView:
    """Revoke every version of a key; every worker on every node knows it once this has answered."""
    with service.change(call) as change:
        key = revoke(service, call, change, key_id, request.reason, request.compromised_at)
        return shown(service, change, key)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/trim",
    permission=Permission.KEYS_DELETE,
    request=TrimKeyRequest,
    example={"oldest_version": 2},
)
def trim_key(service: Service, call: Call, request: TrimKeyRequest, key_id: str) -> KeyView:
    """Delete the versions before `oldest_version`, with their material, permanently."""
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_DELETE, key_id)
        oldest = request.oldest_version
        if not key.oldest_version <= oldest <= key.latest_version:
            raise ValidationFailed(f"oldest_version: from {key.oldest_version} to {key.latest_version}.")
        column = tables.key_versions.c
        change.delete(*change.select(KeyVersion, column.key_uid == key.uid, column.version < oldest))
        _forget_counts(change, key, below=oldest)
        after = replace(
            key,
            oldest_version=oldest,
            min_process_version=max(key.min_process_version, oldest),
            min_protect_version=max(key.min_protect_version, oldest),
        )
        return shown(service, change, change.replace(key, after))


@operation(
    "POST",
    "/api/v1/keys/<key_id>/versions/<int:version>/destroy",
    permission=Permission.KEYS_DELETE,
    example={},
)
def destroy_version(service: Service, call: Call, request: EmptyRequest, key_id: str, version: int) -> KeyView:
    """Erase the key material of one version permanently; its metadata stays."""
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_DELETE, key_id)
        found = change.find(KeyVersion, key.uid, version) if version <= key.latest_version else None
        if found is None:
            raise NotFound(f"{key.key_id} has no version {version}.")
        call.version = version
        now = service.clock()
        if effective_state(found, now) is not KeyState.DESTROYED:
            change.replace(found, move(found, KeyState.DESTROYED, now, found.revocation_reason))
        return shown(service, change, key)


@operation(
    "DELETE",
    "/api/v1/keys/<key_id>",
    permission=Permission.KEYS_DELETE,
    request=DeleteKeyRequest,
    example={"waiting_period": "P7D"},
)
def delete_key(service: Service, call: Call, request: DeleteKeyRequest, key_id: str) -> KeyView:
    """Refuse every use of a key from now on, and delete it with all its versions after a waiting period."""
    if not _SHORTEST_WAIT <= request.waiting_period <= _LONGEST_WAIT:
        raise ValidationFailed("waiting_period: from P1D to P365D.")
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_DELETE, key_id)
        deletion_at = service.clock() + request.waiting_period
        if key.deletion_at is not None:
            if not request.release_name or key.former_id:
                raise KeyStateConflict(f"{key.key_id} is to be deleted already; cancel that to choose another time.")
            deletion_at = key.deletion_at
        after = replace(key, deletion_at=deletion_at)
        if request.release_name:
            after = released(after)
            call.target = after.key_id
            if key_id != key.key_id and (alias := change.find(Alias, key_id)) is not None:
                change.delete(alias)
        change.replace(key, after)
        revocation.publish_under_its_id(change, after)
        return shown(service, change, after)


@operation("POST", "/api/v1/keys/<key_id>/cancel-deletion", permission=Permission.KEYS_DELETE, example={})
def cancel_deletion(service: Service, call: Call, request: EmptyRequest, key_id: str) -> KeyView:
    """Cancel the deletion of a key. It gets its former id back, unless another key or alias has that by now."""
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_DELETE, key_id)
        if key.deletion_at is None:
            raise KeyStateConflict(f"{key.key_id} is not to be deleted.")
        after = replace(key, deletion_at=None)
        if key.former_id and change.key_by_id(key.former_id) is None and change.find(Alias, key.former_id) is None:
            call.target = key.former_id
            after = replace(after, key_id=key.former_id, former_id="")
        change.replace(key, after)
        revocation.publish_under_its_id(change, after)
        return shown(service, change, after)


def released(key: Key) -> Key:
    """`key` under an id that nobody could take before, so that its own is free."""
    return replace(key, key_id=f"{RELEASED}{secrets.token_hex(16)}", former_id=key.former_id or key.key_id)


def remove(change: Change, key: Key) -> None:
    """Delete `key` with all its versions and aliases; what the revocation list and the audit log say stays."""
    change.delete(*change.versions(key))
    _forget_counts(change, key)
    change.delete(*change.select(LastUse, tables.last_uses.c.key_uid == key.uid))
    change.delete(*change.select(Alias, tables.aliases.c.key_uid == key.uid), key)


def revoke(
    service: Service,
    call: Call,
    change: Change,
    key_id: str,
    reason: RevocationReason,
    compromised_at: datetime | None = None,
) -> Key:
    """Revoke, suspend or resume a key, by `reason`, and return the changed key.

    Raises NotFound, PermissionDenied, KeyStateConflict, and ValidationFailed for a wrong `compromised_at`.
    """
    now = service.clock()
    key = authorized_key(service, change, call, Permission.KEYS_REVOKE, key_id)
    if compromised_at is not None and not min(key.created_at, now) <= compromised_at <= now:
        raise ValidationFailed("compromised_at: must lie between the creation of the key and now.")
    return revocation.revoke(change, key, reason, now, compromised_at)


def next_material(service: Service, call: Call, key_id: str) -> tuple[KeyType, KeyMaterial]:
    """The type of a key, and fresh material for its next version. May take seconds, so call it before the change."""
    kind = key_type(authorized_key_cached(service, call, Permission.KEYS_ROTATE, key_id).type)
    return kind, service.generated(kind)


def rotate(
    service: Service,
    call: Call,
    change: Change,
    key_id: str,
    made: tuple[KeyType, KeyMaterial],
    *,
    keep_schedule: bool = False,
) -> tuple[Key, KeyVersion]:
    """Make the next version of a key, of imported material that waits for it, or else of `made`.

    `made` is what `next_material` gave. Returns the changed key and the new version.
    """
    kind, material = made
    key = authorized_key(service, change, call, Permission.KEYS_ROTATE, key_id)
    if key.type != kind.name:
        raise Conflict("The key was generated anew at the same moment. Try again.")
    now, periods = service.clock(), service.cryptoperiods
    pending = key_factory.pending_rotation(change, key, now)
    if pending is not None:
        key_factory.require_not_revoked(change, key)
        after, version = key_factory.rotate_to(change, periods, key, pending, now, keep_schedule=keep_schedule)
    else:
        key_factory.require_rotatable(change, key)
        after, version = key_factory.next_version(
            change, periods, key, kind, material, now, keep_schedule=keep_schedule
        )
    call.version = version.version
    return after, version


def _forget_counts(change: Change, key: Key, below: int | None = None) -> None:
    column = tables.message_counts.c
    criteria = [column.key_uid == key.uid] + ([column.version < below] if below is not None else [])
    change.delete(*change.select(MessageCount, *criteria))
