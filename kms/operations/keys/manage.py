"""Keys over REST: create a key, show it, list its versions, change its properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import policy
from kms.access.decision import require_create
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial
from kms.crypto.registry import key_type
from kms.errors import Refusal, ValidationFailed
from kms.keys.cryptoperiod import next_rotation
from kms.keys.ids import ClientId, KeyId
from kms.keys.model import Usage
from kms.operations.core.declare import MOST_ITEMS, Answer, EmptyRequest, Request, operation
from kms.operations.core.key_access import VersionNumber, authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, KeyTypeName, Limit, Moment, Region
from kms.operations.keys import key_factory
from kms.operations.keys.key_factory import KeySpec
from kms.operations.keys.key_policies import require_valid_policy
from kms.operations.keys.views import KeyView, VersionView, shown, version_view, view_of
from kms.vault.change import Change

Label = Annotated[str, msgspec.Meta(max_length=128)]
LabelValue = Annotated[str, msgspec.Meta(max_length=256)]
MOST_LABELS = 64
Labels = Annotated[dict[Label, LabelValue], msgspec.Meta(max_length=MOST_LABELS)]
Description = Annotated[str, msgspec.Meta(max_length=8192, pattern=r"^[^\x00]*\Z")]  # PostgreSQL keeps no NUL
PolicyText = Annotated[str, msgspec.Meta(max_length=32_768, pattern=r"^[^\x00]*\Z")]
_SHORTEST_PERIOD, LONGEST_PERIOD = timedelta(seconds=1), timedelta(days=36_500)


class CreateKeyRequest(Request):
    """The properties of the new key.

    `usages` are by default those of the type's first purpose; `owner` is by default the caller. `cryptoperiod` is
    how long a version may protect data; `rotation_period` is after how long the service makes the next version by
    itself. Both are ISO 8601 durations, such as P90D. A key that is not `exportable` can become so later only if it
    is made with `exportable_later`. `activate_at` is when the key becomes active, by default at once. `region` is
    the AWS region in which the AWS dialect shows the key, by default the one in the settings. `policy` is an AWS key
    policy (docs/reference/aws.md); if it is empty, the owner and its grants alone decide who may use the key.
    """

    type: KeyTypeName = "xaes-256-gcm"
    key_id: KeyId | None = None
    owner: ClientId | None = None
    usages: frozenset[Usage] | None = None
    exportable: bool = False
    exportable_later: bool = False
    cryptoperiod: timedelta | None = None
    rotation_period: timedelta | None = None
    activate_at: Moment | None = None
    labels: Labels = msgspec.field(default_factory=dict)
    description: Description = ""
    region: Region = ""
    policy: PolicyText = ""


class ListVersionsRequest(Request):
    """A page of versions, the newest first; `cursor` is the `next_cursor` of the page before."""

    limit: Limit = 100
    cursor: Cursor | None = None


class UpdateKeyRequest(Request):
    """The properties to change; members that are not given stay as they are.

    `rotation_period` null ends the automatic rotation. `labels` replaces all labels; `add_labels` and
    `remove_labels` change single ones. Versions below `min_process_version` can no longer be used at all; those below
    `min_protect_version` can decrypt and verify, but not encrypt or sign. `exportable` can be set to true if the key
    was made with `exportable_later`, and never back to false. `policy` is an AWS key policy (docs/reference/aws.md);
    if it is empty, the owner and its grants alone decide who may use the key.
    """

    exportable: bool | UnsetType = UNSET
    rotation_period: timedelta | UnsetType | None = UNSET
    cryptoperiod: timedelta | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    add_labels: Labels = msgspec.field(default_factory=dict)
    remove_labels: Annotated[list[Label], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    description: Description | UnsetType = UNSET
    min_protect_version: VersionNumber | UnsetType = UNSET
    min_process_version: VersionNumber | UnsetType = UNSET
    policy: PolicyText | UnsetType = UNSET


class VersionList(Answer):
    """A page of versions."""

    items: list[VersionView]
    next_cursor: str | None


def _create_batch(
    service: Service, call: Call, items: Sequence[CreateKeyRequest | Refusal]
) -> list[KeyView | Refusal]:
    """`create_key` for each of the items, in one transaction."""

    def prepared(item: CreateKeyRequest | Refusal) -> tuple[KeySpec, KeyMaterial] | Refusal:
        if isinstance(item, Refusal):
            return item
        try:
            spec = spec_of(service, call, item)
        except Refusal as refusal:
            return refusal
        return spec, service.generated(spec.type)

    def store(change: Change, own: Call, asked: tuple[KeySpec, KeyMaterial]) -> KeyView:
        return _store(service, own, change, *asked)

    return service.change_each(call, [prepared(item) for item in items], store)


@operation(
    "POST",
    "/api/v1/keys",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=CreateKeyRequest,
    status=201,
    slow=True,
    batched=True,
    batch_function=_create_batch,
    at_once=MOST_ITEMS,
    location="/api/v1/keys/{key_id}",
    example={"type": "xaes-256-gcm", "key_id": "orders", "exportable": True, "labels": {"env": "prod"}},
)
def create_key(service: Service, call: Call, request: CreateKeyRequest) -> KeyView:
    """Make a key with its first version."""
    spec = spec_of(service, call, request)
    material = service.generated(spec.type)  # before the transaction: it may take seconds
    return stored(service, call, spec, material)


@operation("GET", "/api/v1/keys/<key_id>", permission=Permission.KEYS_READ)
def get_key(service: Service, call: Call, request: EmptyRequest, key_id: str) -> KeyView:
    """Show a key and its versions."""
    with service.vault.read() as snapshot:
        return shown(service, snapshot, authorized_key(service, snapshot, call, Permission.KEYS_READ, key_id))


@operation("GET", "/api/v1/keys/<key_id>/versions", permission=Permission.KEYS_READ, request=ListVersionsRequest)
def list_versions(service: Service, call: Call, request: ListVersionsRequest, key_id: str) -> VersionList:
    """List the versions of a key."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_READ, key_id)
        below = int(request.cursor) if request.cursor is not None else None
        found = snapshot.latest_versions(key, request.limit + 1, below)[::-1]
    page = found[: request.limit]
    return VersionList(
        items=[version_view(key, each, service.clock()) for each in page],
        next_cursor=str(page[-1].version) if len(found) > len(page) else None,
    )


@operation(
    "PATCH",
    "/api/v1/keys/<key_id>",
    permission=Permission.KEYS_UPDATE,
    request=UpdateKeyRequest,
    example={"rotation_period": "P90D", "description": "Orders of the web shop"},
)
def update_key(service: Service, call: Call, request: UpdateKeyRequest, key_id: str) -> KeyView:
    """Change the properties of a key: periods, labels, description, lowest usable versions, exportability, policy."""
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_UPDATE, key_id, *_actions(request))
        if request.policy is not UNSET:
            require_valid_policy(service, change, request.policy, key.owner, key.key_id)
        given = {name: value for name in request.__struct_fields__ if (value := getattr(request, name)) is not UNSET}
        labels = {**given.get("labels", key.labels), **given.pop("add_labels")}
        removed = given.pop("remove_labels")
        given["labels"] = {name: value for name, value in labels.items() if name not in removed}
        if len(given["labels"]) > MOST_LABELS:
            raise ValidationFailed(f"labels: at most {MOST_LABELS}.")
        _require_periods(given.get("cryptoperiod"), given.get("rotation_period"))
        if "rotation_period" in given:
            period = given["rotation_period"]
            if period is not None:
                key_factory.require_rotatable(change, key)
            given["next_rotation_at"] = next_rotation(service.clock(), period)
        if given.get("exportable", key.exportable) is not key.exportable and not (
            key.exportable_later and given["exportable"]
        ):
            raise ValidationFailed(f"exportable: {key.key_id} stays as it was made.")
        after = replace(key, **given)
        if not after.oldest_version <= after.min_process_version <= after.latest_version:
            raise ValidationFailed(f"min_process_version: from {key.oldest_version} to {key.latest_version}.")
        if not after.min_process_version <= after.min_protect_version <= after.latest_version:
            raise ValidationFailed(f"min_protect_version: from {after.min_process_version} to {key.latest_version}.")
        change.replace(key, after)
        return shown(service, change, after)


def _actions(request: UpdateKeyRequest) -> list[str]:
    """The AWS actions that an update consists of; the key's policy must allow each of them."""
    given = {name for name in request.__struct_fields__ if getattr(request, name) is not UNSET}
    given -= {name for name in ("add_labels", "remove_labels") if not getattr(request, name)}
    is_rotation_ended = request.rotation_period is None
    of_members = {
        "add_labels": {"TagResource"},
        "description": {"UpdateKeyDescription"},
        "exportable": {"Export"},
        "labels": {"TagResource", "UntagResource"},
        "policy": {"PutKeyPolicy"},
        "remove_labels": {"UntagResource"},
        "rotation_period": {"DisableKeyRotation" if is_rotation_ended else "EnableKeyRotation"},
    }
    return sorted(set().union(*(of_members.get(name, {"Configure"}) for name in given)))


def spec_of(service: Service, call: Call, request: CreateKeyRequest) -> KeySpec:
    """The KeySpec of the requested key, if the caller may make it. Raises PermissionDenied, ValidationFailed, …"""
    caller = call.known_caller
    owner = request.owner or caller.client_id
    policy.require(caller, Permission.KEYS_CREATE, owner)
    require_create(caller, owner, request.key_id, service.circumstances(call))
    if request.policy:
        with service.vault.read() as snapshot:
            require_valid_policy(service, snapshot, request.policy, owner, request.key_id)
    _require_periods(request.cryptoperiod, request.rotation_period)
    return KeySpec(
        type=key_type(request.type),
        owner=owner,
        key_id=request.key_id,
        usages=request.usages,
        exportable=request.exportable,
        exportable_later=request.exportable_later,
        cryptoperiod=request.cryptoperiod,
        rotation_period=request.rotation_period,
        activate_at=_activation(request.activate_at, service.clock()),
        labels=request.labels,
        description=request.description,
        region=request.region,
        policy=request.policy,
    )


def stored(service: Service, call: Call, spec: KeySpec, material: KeyMaterial) -> KeyView:
    """Store a new key with its first version, and return its view."""
    with service.change(call) as change:
        return _store(service, call, change, spec, material)


def _store(service: Service, call: Call, change: Change, spec: KeySpec, material: KeyMaterial) -> KeyView:
    now = service.clock()
    key, version = key_factory.new_key(change, service.cryptoperiods, spec, material, now)
    call.key_id, call.version = key.key_id, version.version
    if call.target is None and spec.owner != call.known_caller.client_id:
        call.target = spec.owner
    return view_of(key, [version], [], now)


def _activation(asked: datetime | None, now: datetime) -> datetime | None:
    if asked is not None and not now - timedelta(minutes=5) <= asked <= now + LONGEST_PERIOD:
        raise ValidationFailed("activate_at: must lie in the future, and within a century.")
    return asked


def _require_periods(cryptoperiod: timedelta | None, rotation_period: timedelta | None) -> None:
    for member, period in (("cryptoperiod", cryptoperiod), ("rotation_period", rotation_period)):
        if period is not None and not _SHORTEST_PERIOD <= period <= LONGEST_PERIOD:
            raise ValidationFailed(f"{member}: from a second to a century, such as P90D or PT1H.")
