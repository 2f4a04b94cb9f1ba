"""Rotation of keys in the AWS dialect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta

from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.importing import expiration_of, is_external
from kms.api.aws.request import AwsRequest, action, seconds
from kms.api.aws.shapes import ItemLimit, KeyInput, Marker, truncated
from kms.keys.model import ExternalMaterial, Key, ShownState
from kms.operations.keys.manage import ListVersionsRequest, UpdateKeyRequest
from kms.operations.keys.state_changes import RotateKeyVersionRequest
from kms.operations.keys.views import VersionView


class EnableKeyRotationInput(KeyInput, kw_only=True):
    """EnableKeyRotation."""

    rotation_period_in_days: Annotated[int, Meta(ge=90, le=2560)] = 365


class ListKeyRotationsInput(KeyInput, kw_only=True):
    """ListKeyRotations."""

    include_key_material: Literal["ALL_KEY_MATERIAL", "ROTATIONS_ONLY"] = "ROTATIONS_ONLY"
    limit: ItemLimit = 100
    marker: Marker | None = None


@action("EnableKeyRotation", EnableKeyRotationInput)
def enable_key_rotation(aws: AwsRequest, given: EnableKeyRotationInput) -> None:
    """Make new versions by schedule."""
    key = _rotatable(aws, given)
    if is_external(aws.view(key)):
        raise aws.wrong_origin(key)
    aws.require_enabled(key)
    request = UpdateKeyRequest(rotation_period=timedelta(days=given.rotation_period_in_days))
    aws.run("update_key", request, key_id=key.key_id)


@action("DisableKeyRotation", KeyInput)
def disable_key_rotation(aws: AwsRequest, given: KeyInput) -> None:
    """Make no more versions by schedule."""
    key = _rotatable(aws, given)
    aws.require_enabled(key)
    aws.run("update_key", UpdateKeyRequest(rotation_period=None), key_id=key.key_id)


@action("GetKeyRotationStatus", KeyInput)
def get_key_rotation_status(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Say whether and when a key rotates by schedule."""
    key = aws.key_without_alias(given.key_id)
    if specs.spec_of(key.type) != specs.SYMMETRIC:
        raise _not_rotatable()
    view = aws.view(key)
    status: dict[str, Any] = {"KeyId": aws.names.key_arn(key.key_id), "KeyRotationEnabled": False}
    if view.rotation_period is not None and view.deletion_at is None:
        status["KeyRotationEnabled"] = True
        if view.next_rotation_at is not None:
            status["RotationPeriodInDays"] = max(1, view.rotation_period // timedelta(days=1))
            status["NextRotationDate"] = seconds(view.next_rotation_at)
    return status


@action("RotateKeyOnDemand", KeyInput, RateClass.GENERATE)
def rotate_key_on_demand(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Make the next version now; older ones still decrypt."""
    key = _rotatable(aws, given)
    view = aws.view_with_material(key)
    arn = aws.names.key_arn(key.key_id)
    if view.state is ShownState.SUSPENDED:
        raise aws.disabled(key)
    if is_external(view) and view.pending_rotation is UNSET:
        raise Fault(
            "KMSInvalidStateException",
            f"No available key material pending rotation for the key: {arn}.",
            problem="key-state",
        )
    aws.run("rotate_key_version", RotateKeyVersionRequest(keep_schedule=True), key_id=key.key_id)
    return {"KeyId": arn}


@action("ListKeyRotations", ListKeyRotationsInput)
def list_key_rotations(aws: AwsRequest, given: ListKeyRotationsInput) -> Mapping[str, Any]:
    """List when a key rotated, the newest first."""
    key = aws.key_without_alias(given.key_id)
    if specs.spec_of(key.type) != specs.SYMMETRIC:
        raise _not_rotatable()
    aws.require_marker(given.marker, numeric=True)
    with_all = given.include_key_material == "ALL_KEY_MATERIAL"
    view = aws.view(key)
    found: list[VersionView] = []
    if with_all and given.marker is None and view.pending_rotation is not UNSET:
        found.append(view.pending_rotation)
    more = len(found) == given.limit
    if not more:
        request = ListVersionsRequest(limit=given.limit - len(found), cursor=given.marker)
        page = aws.run("list_versions", request, key_id=key.key_id)
        found += [each for each in page.items if with_all or each.version > 1]
        # The first version is the last of all, and no rotation made it.
        more = page.next_cursor is not None and (with_all or int(page.next_cursor) > _FIRST + 1)
    marker = str(found[-1].version) if more else None
    return {"Rotations": [_entry(aws, key, each, view.latest_version) for each in found], **truncated(marker)}


_FIRST = 1


def _entry(aws: AwsRequest, key: Key, version: VersionView, latest: int) -> dict[str, Any]:
    """One material of a key. The first one, and one that waits for its rotation, were not rotated to."""
    entry: dict[str, Any] = {
        "KeyId": aws.names.key_arn(key.key_id),
        "KeyMaterialState": "CURRENT",
        **aws.material(key, version.version),
    }
    if version.version != latest:
        entry["KeyMaterialState"] = "NON_CURRENT" if version.version < latest else "PENDING_ROTATION"
    if _FIRST < version.version <= latest:
        entry |= {"RotationDate": seconds(version.created_at), "RotationType": "ON_DEMAND"}
    if version.external_material is not UNSET:
        is_here = version.external_material is ExternalMaterial.PRESENT
        entry |= {"ImportState": "IMPORTED" if is_here else "PENDING_IMPORT", **expiration_of(version)}
    return entry


def _rotatable(aws: AwsRequest, given: KeyInput) -> Key:
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    aws.require_primary(key)
    if specs.spec_of(key.type) != specs.SYMMETRIC:
        raise _not_rotatable()
    return key


def _not_rotatable() -> Fault:
    """The fault of what is no symmetric encryption key; those alone rotate."""
    return Fault("UnsupportedOperationException", "", problem="operation-not-supported")
