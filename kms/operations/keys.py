"""Keys over REST: list, detail, settings, rotate, suspend, resume, revoke."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, and_, false, or_, select

from kms.access import policy
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.pkcs8 import public_pem
from kms.crypto.registry import key_type
from kms.errors import Conflict, ValidationFailed
from kms.keys.ids import ClientId, KeyId, is_session_key_id
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyState, KeyVersion, RevocationReason, Usage
from kms.operations import provision
from kms.operations.service import Call, Service
from kms.operations.table import Answer, Nothing, Request, operation
from kms.revocation import revoke as revocation
from kms.vault import tables
from kms.vault.store import Change, Snapshot

Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Labels = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=128)], Annotated[str, msgspec.Meta(max_length=256)]],
    msgspec.Meta(max_length=64),
]
_SHORTEST_ROTATION, _LONGEST_ROTATION = timedelta(seconds=1), timedelta(days=36_500)


class ListKeysRequest(Request):
    """A page of keys in the order of their ids; `cursor` is the `next_cursor` of the page before."""

    limit: Limit = 100
    cursor: KeyId | None = None
    owner: ClientId | None = None


class UpdateKeyRequest(Request):
    """Members that are not given stay as they are; `rotation_period` null ends the rotation by schedule."""

    rotation_period: timedelta | UnsetType | None = UNSET
    labels: Labels | UnsetType = UNSET


class RevokeKeyRequest(Request):
    """Why (RFC 5280 reason names), and since when the key is known to be compromised."""

    reason: RevocationReason = RevocationReason.KEY_COMPROMISE
    compromised_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class VersionView(Answer):
    """One version; `public_key` is PEM. After `expires_at` it no longer protects, after `process_until` nothing."""

    version: int
    type: str
    state: KeyState
    created_at: datetime
    expires_at: datetime
    process_until: datetime
    revocation_reason: RevocationReason | UnsetType = UNSET
    public_key: str | UnsetType = UNSET


class KeySummary(Answer):
    """A key without its versions. `state` and `expires_at` are those of the latest version."""

    key_id: str
    type: str
    owner: str
    state: KeyState
    usages: list[Usage]
    exportable: bool
    latest_version: int
    created_at: datetime
    expires_at: datetime
    rotation_period: timedelta | None
    next_rotation_at: datetime | None
    labels: dict[str, str]


class KeyView(KeySummary):
    """A key with its versions, the oldest first."""

    versions: list[VersionView]


class KeyList(Answer):
    """A page of keys."""

    items: list[KeySummary]
    next_cursor: str | None


@operation("GET", "/api/v1/keys", permission=Permission.KEYS_READ, request=ListKeysRequest)
def list_keys(service: Service, call: Call, request: ListKeysRequest) -> KeyList:
    """List the keys that the caller may see."""
    keys = tables.keys.c
    criteria = [_visible_to(call.known_caller)]
    if request.owner is not None:
        criteria.append(keys.owner == request.owner)
    if request.cursor is not None:
        criteria.append(keys.key_id > request.cursor)
    with service.vault.read() as snapshot:
        found = snapshot.select(Key, *criteria, order_by=keys.key_id, limit=request.limit + 1)
        page = found[: request.limit]
        latest = _latest_versions(snapshot, page)
    now = service.clock()
    return KeyList(
        items=[KeySummary(**_summary(key, latest[key.uid], now)) for key in page],
        next_cursor=page[-1].key_id if len(found) > len(page) else None,
    )


@operation("GET", "/api/v1/keys/<key_id>", permission=Permission.KEYS_READ)
def get_key(service: Service, call: Call, request: Nothing, key_id: str) -> KeyView:
    """Show a key and its versions."""
    with service.vault.read() as snapshot:
        key = authorised(snapshot, call, Permission.KEYS_READ, key_id)
        return _view(service, snapshot, key)


@operation("PATCH", "/api/v1/keys/<key_id>", permission=Permission.KEYS_UPDATE, request=UpdateKeyRequest)
def update_key(service: Service, call: Call, request: UpdateKeyRequest, key_id: str) -> KeyView:
    """Change the rotation period or the labels of a key."""
    with service.change(call) as change:
        key = authorised(change, call, Permission.KEYS_UPDATE, key_id)
        after = key
        if request.rotation_period is not UNSET:
            period = request.rotation_period
            if period is not None and not _SHORTEST_ROTATION <= period <= _LONGEST_ROTATION:
                raise ValidationFailed("rotation_period: from a second to a century, such as P90D or PT1H.")
            if period is not None:
                _require_rotatable_by_us(key)
            after = replace(
                after, rotation_period=period, next_rotation_at=service.clock() + period if period else None
            )
        if request.labels is not UNSET:
            after = replace(after, labels=request.labels)
        change.replace(key, after)
        change.outdates = True
        return _view(service, change, after)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/rotate",
    permission=Permission.KEYS_ROTATE,
    rate_class=RateClass.GENERATE,
    slow=True,
)
def rotate_key_version(service: Service, call: Call, request: Nothing, key_id: str) -> KeyView:
    """Make the next version of a key."""
    rotate(service, call, key_id)
    return _shown(service, key_id)


@operation("POST", "/api/v1/keys/<key_id>/suspend", permission=Permission.KEYS_REVOKE)
def suspend_key(service: Service, call: Call, request: Nothing, key_id: str) -> KeyView:
    """Put a key on hold: it is refused everything until it is resumed."""
    revoke(service, call, key_id, RevocationReason.CERTIFICATE_HOLD)
    return _shown(service, key_id)


@operation("POST", "/api/v1/keys/<key_id>/resume", permission=Permission.KEYS_REVOKE)
def resume_key(service: Service, call: Call, request: Nothing, key_id: str) -> KeyView:
    """Lift the hold on a key."""
    revoke(service, call, key_id, RevocationReason.REMOVE_FROM_CRL)
    return _shown(service, key_id)


@operation("POST", "/api/v1/keys/<key_id>/revoke", permission=Permission.KEYS_REVOKE, request=RevokeKeyRequest)
def revoke_key_versions(service: Service, call: Call, request: RevokeKeyRequest, key_id: str) -> KeyView:
    """Revoke every version of a key."""
    revoke(service, call, key_id, request.reason, request.compromised_at)
    return _shown(service, key_id)


def revoke(
    service: Service,
    call: Call,
    key_id: str,
    reason: RevocationReason,
    compromised_at: datetime | None = None,
) -> None:
    """Revoke, hold or resume. Raises NotFound, PermissionDenied, KeyStateConflict, ValidationFailed."""
    now = service.clock()
    with service.change(call) as change:
        key = authorised(change, call, Permission.KEYS_REVOKE, key_id)
        if compromised_at is not None and not key.created_at <= compromised_at <= now:
            raise ValidationFailed("compromised_at: must lie between the creation of the key and now.")
        revocation.revoke(change, key, reason, now, compromised_at)


def rotate(service: Service, call: Call, key_id: str) -> tuple[Key, KeyVersion]:
    """Make the next version of a key and give it back."""
    with service.vault.read() as snapshot:
        seen = authorised(snapshot, call, Permission.KEYS_ROTATE, key_id)
    _require_rotatable_by_us(seen)
    kind = key_type(seen.type)
    material = kind.generate()  # before the transaction: it may take seconds
    with service.change(call) as change:
        key = authorised(change, call, Permission.KEYS_ROTATE, key_id)
        if key.type != seen.type:
            raise Conflict("The key was generated anew at the same moment. Try again.")
        provision.require_rotatable(change, key)
        made = provision.next_version(change, service.cryptoperiods, key, kind, material, service.clock())
        call.version = made[1].version
    return made


def authorised(snapshot: Snapshot | Change, call: Call, permission: Permission, key_id: str) -> Key:
    """The key of that id, if the caller may do this with it. Raises NotFound or PermissionDenied."""
    key = snapshot.key_by_id(key_id)
    if key is None:
        raise policy.no_such_key(key_id)
    policy.require_on_key(call.known_caller, permission, key.owner, key_id)
    call.key_id = key_id
    return key


def _require_rotatable_by_us(key: Key) -> None:
    if is_session_key_id(key.key_id):
        raise Conflict("A session key comes from an exchange with a peer; complete a new one instead.")


def _visible_to(caller: Caller) -> ColumnElement[bool]:
    keys = tables.keys.c
    if any(Permission.KEYS_READ in policy.ANY[role] for role in caller.roles):
        return keys.uid.is_not(None)
    granted = (
        and_(
            keys.owner == grant.owner,
            keys.key_id.startswith(grant.key_pattern[:-1], autoescape=True)
            if grant.key_pattern.endswith("*")
            else keys.key_id == grant.key_pattern,
        )
        for grant in caller.grants
    )
    return or_(keys.owner == caller.client_id, *granted, false())


def _latest_versions(snapshot: Snapshot, keys: Iterable[Key]) -> dict[bytes, KeyVersion]:
    versions = tables.key_versions.c
    newest = select(tables.keys.c.latest_version).where(tables.keys.c.uid == versions.key_uid).scalar_subquery()
    uids = [key.uid for key in keys]
    found = snapshot.select(KeyVersion, versions.key_uid.in_(uids), versions.version == newest)
    return {version.key_uid: version for version in found}


def _shown(service: Service, key_id: str) -> KeyView:
    with service.vault.read() as snapshot:
        key = snapshot.key_by_id(key_id)
        assert key is not None
        return _view(service, snapshot, key)


def _view(service: Service, snapshot: Snapshot, key: Key) -> KeyView:
    now = service.clock()
    versions = snapshot.versions(key)
    return KeyView(**_summary(key, versions[-1], now), versions=[_version_view(each, now) for each in versions])


def _summary(key: Key, latest: KeyVersion, now: datetime) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "type": key.type,
        "owner": key.owner,
        "state": effective_state(latest, now),
        "usages": sorted(key.usages),
        "exportable": key.exportable,
        "latest_version": key.latest_version,
        "created_at": key.created_at,
        "expires_at": latest.expires_at,
        "rotation_period": key.rotation_period,
        "next_rotation_at": key.next_rotation_at,
        "labels": key.labels,
    }


def _version_view(version: KeyVersion, now: datetime) -> VersionView:
    return VersionView(
        version=version.version,
        type=version.type,
        state=effective_state(version, now),
        created_at=version.created_at,
        expires_at=version.expires_at,
        process_until=version.process_until,
        revocation_reason=version.revocation_reason or UNSET,
        public_key=public_pem(version.public_key) if version.public_key else UNSET,
    )
