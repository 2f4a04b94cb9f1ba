"""Keys in several AWS regions: one key, shown in each of them by the AWS dialect."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.policy import Permission
from kms.errors import AlreadyExists, Conflict, NotFound, ValidationFailed
from kms.keys.ids import is_multi_region_key_id
from kms.keys.model import Key
from kms.operations.core.declare import Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Region
from kms.operations.keys.manage import MOST_LABELS, Description, Label, Labels
from kms.operations.keys.views import KeyView, shown

Named = Annotated[Region, msgspec.Meta(min_length=1)]


_MOST_REGIONS = 64


class SetRegionsRequest(Request):
    """Changes to the AWS regions of a key: the new `primary` one, a replica to `add`, a replica to `remove`.

    `primary` must be a region that the key has already or that is added now. Each replica has its own description
    and labels, at first none. `description`, `add_labels` and `remove_labels` change those of the added replica, or
    of the one whose region `describe` names.
    """

    primary: Named | UnsetType = UNSET
    add: Named | UnsetType = UNSET
    remove: Named | UnsetType = UNSET
    describe: Named | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    add_labels: Labels = msgspec.field(default_factory=dict)
    remove_labels: Annotated[list[Label], msgspec.Meta(max_length=MOST_LABELS)] = msgspec.field(default_factory=list)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/regions",
    permission=Permission.KEYS_UPDATE,
    request=SetRegionsRequest,
    example={"add": "eu-central-1"},
)
def set_regions(service: Service, call: Call, request: SetRegionsRequest, key_id: str) -> KeyView:
    """Change in which AWS regions a multi-region key is shown; such a key's id begins with `mrk-`."""
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_UPDATE, key_id)
        if not is_multi_region_key_id(key.key_id):
            raise Conflict(f"{key.key_id} is a key of one region; those of several have an id such as mrk-…")
        before, primary = key, key.region or service.settings.aws_region
        regions = {primary, *key.replicas}
        if request.add is not UNSET:
            if request.add in regions:
                raise AlreadyExists(f"{key.key_id} is in {request.add} already.")
            if len(regions) >= _MOST_REGIONS:
                raise Conflict(f"A key is in {_MOST_REGIONS} regions at the most.")
            regions.add(request.add)
        if request.primary is not UNSET:
            if request.primary not in regions:
                raise NotFound(f"{key.key_id} is not in {request.primary}.")
            key = _exchanged(key, primary, request.primary)
            primary = request.primary
        if request.remove is not UNSET:
            if request.remove not in regions - {primary}:
                raise NotFound(f"{key.key_id} has no replica in {request.remove}.")
            regions.remove(request.remove)
            key = _described(key, request.remove, "", {})
        replica = _replica_described(request)
        if replica is not None:
            if replica not in regions - {primary}:
                raise NotFound(f"{key.key_id} has no replica in {replica}.")
            key = _changed(key, replica, request)
        after = change.replace(before, replace(key, region=primary, replicas=frozenset(regions - {primary})))
        return shown(service, change, after)


def _replica_described(request: SetRegionsRequest) -> str | None:
    """The region of the replica whose description and labels are given, None for none. Raises ValidationFailed."""
    named = [region for region in (request.add, request.describe) if region is not UNSET]
    if len(named) > 1:
        raise ValidationFailed("describe: what is added is described; name another one for itself.")
    if not named and (request.description is not UNSET or request.add_labels or request.remove_labels):
        raise ValidationFailed("describe: name the replica that the description and the labels are of.")
    return named[0] if named else None


def _changed(key: Key, region: str, request: SetRegionsRequest) -> Key:
    """`key` with what the request says of a replica. Raises ValidationFailed."""
    description = request.description
    if description is UNSET:
        description = key.replica_descriptions.get(region, "")
    labels = {**key.replica_labels.get(region, {}), **request.add_labels}
    labels = {name: value for name, value in labels.items() if name not in request.remove_labels}
    if len(labels) > MOST_LABELS:
        raise ValidationFailed(f"labels: at most {MOST_LABELS}.")
    return _described(key, region, description, labels)


def _described(key: Key, region: str, description: str, labels: dict[str, str]) -> Key:
    """`key` with that description and those labels in a region other than its own; where there are none, without."""
    descriptions = {**key.replica_descriptions, region: description}
    of_regions = {**key.replica_labels, region: labels}
    return replace(
        key,
        replica_descriptions={name: each for name, each in descriptions.items() if each},
        replica_labels={name: each for name, each in of_regions.items() if each},
    )


def _exchanged(key: Key, before: str, primary: str) -> Key:
    """`key` after its primary region has moved: each region keeps its own description and labels."""
    if before == primary:
        return key
    description, labels = key.replica_descriptions.get(primary, ""), key.replica_labels.get(primary, {})
    moved = _described(_described(key, before, key.description, key.labels), primary, "", {})
    return replace(moved, description=description, labels=labels)
