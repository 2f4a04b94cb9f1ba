"""Keys in several AWS regions: one key, shown in each of them by the AWS dialect."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.policy import Permission
from kms.errors import AlreadyExists, Conflict, NotFound
from kms.keys.ids import is_multi_region_key_id
from kms.operations.core.declare import Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Region
from kms.operations.keys.views import KeyView, shown

Named = Annotated[Region, msgspec.Meta(min_length=1)]


_MOST_REGIONS = 64


class SetRegionsRequest(Request):
    """The region that is `primary` from now on, which must be one of the key's, and one to `add` or to `remove`."""

    primary: Named | UnsetType = UNSET
    add: Named | UnsetType = UNSET
    remove: Named | UnsetType = UNSET


@operation(
    "POST",
    "/api/v1/keys/<key_id>/regions",
    permission=Permission.KEYS_UPDATE,
    request=SetRegionsRequest,
    example={"add": "eu-central-1"},
)
def set_regions(service: Service, call: Call, request: SetRegionsRequest, key_id: str) -> KeyView:
    """Change in which AWS regions a key is shown whose id begins with `mrk-`, as AWS's multi-region keys do."""
    with service.change(call) as change:
        key = authorized_key(change, call, Permission.KEYS_UPDATE, key_id)
        if not is_multi_region_key_id(key.key_id):
            raise Conflict(f"{key.key_id} is a key of one region; those of several have an id such as mrk-…")
        primary = key.region or service.settings.aws_region
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
            primary = request.primary
        if request.remove is not UNSET:
            if request.remove not in regions - {primary}:
                raise NotFound(f"{key.key_id} has no replica in {request.remove}.")
            regions.remove(request.remove)
        after = change.replace(key, replace(key, region=primary, replicas=frozenset(regions - {primary})))
        return shown(service, change, after)
