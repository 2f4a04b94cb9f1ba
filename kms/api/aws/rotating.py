"""Rotation of keys in the AWS dialect."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import Meta

from kms.access.ratelimit import RateClass
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action, seconds
from kms.api.aws.shapes import ItemLimit, KeyInput, Marker, truncated
from kms.errors import Conflict, KeyStateConflict
from kms.keys.model import Key
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.manage import ListVersionsRequest, UpdateKeyRequest


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
    aws.require_enabled(key)
    request = UpdateKeyRequest(rotation_period=timedelta(days=given.rotation_period_in_days))
    try:
        aws.run("update_key", request, key_id=key.key_id)
    except Conflict:  # its material comes from elsewhere
        raise aws.wrong_origin(key) from None


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
    view = aws.run("get_key", EmptyRequest(), key_id=key.key_id)
    status: dict[str, Any] = {
        "KeyId": aws.names.key_arn(key.key_id),
        "KeyRotationEnabled": view.rotation_period is not None and view.deletion_at is None,
    }
    if status["KeyRotationEnabled"] and view.next_rotation_at is not None:
        status["RotationPeriodInDays"] = max(1, view.rotation_period // timedelta(days=1))
        status["NextRotationDate"] = seconds(view.next_rotation_at)
    return status


@action("RotateKeyOnDemand", KeyInput, RateClass.GENERATE)
def rotate_key_on_demand(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Make the next version now; older ones still decrypt."""
    key = _rotatable(aws, given)
    try:
        aws.run("rotate_key_version", EmptyRequest(), key_id=key.key_id)
    except KeyStateConflict:
        raise aws.disabled(key) from None
    return {"KeyId": aws.names.key_arn(key.key_id)}


@action("ListKeyRotations", ListKeyRotationsInput)
def list_key_rotations(aws: AwsRequest, given: ListKeyRotationsInput) -> Mapping[str, Any]:
    """List when a key rotated, the newest first."""
    key = aws.key_without_alias(given.key_id)
    if specs.spec_of(key.type) != specs.SYMMETRIC:
        raise _not_rotatable()
    aws.require_marker(given.marker, numeric=True)
    cursor = int(given.marker) if given.marker else None
    page = aws.run("list_versions", ListVersionsRequest(limit=given.limit, cursor=cursor), key_id=key.key_id)
    with_first = given.include_key_material == "ALL_KEY_MATERIAL"
    found = [
        {
            "KeyId": aws.names.key_arn(key.key_id),
            "RotationDate": seconds(each.created_at),
            "RotationType": "ON_DEMAND",
            **aws.material(key, each.version),
            **({"KeyMaterialState": _material(each.version, key)} if with_first else {}),
        }
        for each in page.items
        if with_first or each.version > 1
    ]
    return {"Rotations": found, **truncated(page.next_cursor)}


def _material(version: int, key: Key) -> str:
    return "CURRENT" if version == key.latest_version else "NON_CURRENT"


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
