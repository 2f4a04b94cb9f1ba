"""Keys and their life in the AWS dialect."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, field

from kms.access.ratelimit import RateClass
from kms.api.aws import policies, specs
from kms.api.aws.faults import Fault
from kms.api.aws.importing import expiration
from kms.api.aws.request import AwsRequest, action, seconds
from kms.api.aws.shapes import Description, Input, ItemLimit, KeyInput, Marker, truncated
from kms.api.aws.tagging import Tag, labels_of
from kms.api.cursors import Cursors
from kms.errors import KeyStateConflict, ValidationFailed
from kms.keys.ids import is_multi_region_key_id, new_multi_region_key_id
from kms.keys.model import ExternalMaterial, Key
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.listing import ListKeysRequest
from kms.operations.keys.manage import LONGEST_PERIOD, CreateKeyRequest
from kms.operations.keys.regions import SetRegionsRequest
from kms.operations.keys.state_changes import DeleteKeyRequest
from kms.operations.keys.views import KeyView

_SHORTEST_WINDOW, _USUAL_WINDOW, _LONGEST_WINDOW = 7, 30, 30
_WINDOW = f"PendingWindowInDays must be between {_SHORTEST_WINDOW} and {_LONGEST_WINDOW}"

KeySpec = Literal[
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "SM2", "ML_DSA_44", "ML_DSA_65",
    "ML_DSA_87", "ECC_NIST_EDWARDS25519", "ML_KEM_512", "ML_KEM_768", "ML_KEM_1024",
]  # fmt: skip
CustomerMasterKeySpec = Literal[
    "RSA_2048", "RSA_3072", "RSA_4096", "ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
    "SYMMETRIC_DEFAULT", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512", "SM2",
]  # fmt: skip
KeyUsage = Literal[
    "SIGN_VERIFY", "ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT", "ENCAPSULATE_DECAPSULATE"
]


class CreateKeyInput(Input, kw_only=True):
    """CreateKey."""

    policy: policies.Policy | None = None
    bypass_policy_lockout_safety_check: bool = False
    description: Description | None = None
    key_usage: KeyUsage | None = None
    customer_master_key_spec: CustomerMasterKeySpec | None = None
    key_spec: KeySpec | None = None
    origin: Literal["AWS_KMS", "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"] = "AWS_KMS"
    custom_key_store_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    tags: list[Tag] = field(default_factory=list)
    multi_region: bool | None = None
    xks_key_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class ListKeysInput(Input, kw_only=True):
    """ListKeys."""

    limit: ItemLimit = 100
    marker: Marker | None = None
    resource_owners: (
        Annotated[list[Literal["SELF", "OTHER_ACCOUNTS_VIA_RAM"]], Meta(min_length=1, max_length=2)] | None
    ) = None


class ScheduleKeyDeletionInput(KeyInput, kw_only=True):
    """ScheduleKeyDeletion."""

    pending_window_in_days: Annotated[int, Meta(ge=1, le=365)] = _USUAL_WINDOW


class UpdateKeyDescriptionInput(KeyInput, kw_only=True):
    """UpdateKeyDescription."""

    description: Description


@action("CreateKey", CreateKeyInput, RateClass.GENERATE)
def create_key(aws: AwsRequest, given: CreateKeyInput) -> Mapping[str, Any]:
    """Make a key."""
    if given.key_spec is not None and given.customer_master_key_spec not in (None, given.key_spec):
        raise Fault(
            "ValidationException",
            "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is "
            "deprecated.",
        )
    spec = given.key_spec or given.customer_master_key_spec or specs.SYMMETRIC
    if given.custom_key_store_id or given.xks_key_id or given.origin not in ("AWS_KMS", "EXTERNAL"):
        raise Fault("UnsupportedOperationException", f"Keys of origin {given.origin} are not made here.")
    if given.policy is not None:
        policies.require_enforceable(aws, given.policy, aws.call.known_caller.client_id, None)
    native = specs.TYPES.get(spec)
    if native is None:
        raise Fault("UnsupportedOperationException", f"KeySpec {spec} is not supported")
    possible = specs.usages_for(spec)
    usage = given.key_usage or ("ENCRYPT_DECRYPT" if spec == specs.SYMMETRIC else None)
    if usage is None:
        raise Fault(
            "ValidationException",
            "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
        )
    if usage not in possible:
        raise Fault("ValidationException", f"KeyUsage {usage} is not compatible with KeySpec {spec}")
    request = CreateKeyRequest(
        type=native,
        key_id=new_multi_region_key_id() if given.multi_region else None,
        usages=specs.USAGES[usage],
        cryptoperiod=LONGEST_PERIOD,  # AWS's keys do not expire by themselves
        labels=labels_of(given.tags),
        description=given.description or "",
        region=aws.names.region,
        policy=given.policy or "",
    )
    operation = "create_external_key" if given.origin == "EXTERNAL" else "create_key"
    return {"KeyMetadata": metadata(aws, aws.run(operation, request))}


@action("DescribeKey", KeyInput)
def describe_key(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Show a key."""
    key = aws.key_to_show(given.key_id)
    return {"KeyMetadata": metadata(aws, aws.view(key))}


@action("ListKeys", ListKeysInput)
def list_keys(aws: AwsRequest, given: ListKeysInput) -> Mapping[str, Any]:
    """List the keys of this region that the caller may see."""
    cursors = Cursors(aws.service.vault.derived_keys)
    asked = ListKeysRequest(limit=given.limit, cursor=given.marker, region=aws.names.region)
    try:
        request = cursors.opened("list_keys", asked)
    except ValidationFailed:
        raise Fault("InvalidMarkerException", "The marker is not one that a list gave.") from None
    if given.resource_owners and "SELF" not in given.resource_owners:
        return {"Keys": [], **truncated(None)}  # no other account shares keys with this one
    page = cursors.shown("list_keys", aws.run("list_keys", request))
    listed = [{"KeyId": each.key_id, "KeyArn": aws.names.key_arn(each.key_id)} for each in page.items]
    return {"Keys": listed, **truncated(page.next_cursor)}


@action("EnableKey", KeyInput)
def enable_key(aws: AwsRequest, given: KeyInput) -> None:
    """Lift the hold on a key."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    if metadata(aws, aws.view_with_material(key))["KeyState"] == "Disabled":
        try:
            aws.run("resume_key", EmptyRequest(), key_id=key.key_id)
        except KeyStateConflict as refusal:
            raise Fault("KMSInvalidStateException", refusal.detail, problem=refusal.problem) from None


@action("DisableKey", KeyInput)
def disable_key(aws: AwsRequest, given: KeyInput) -> None:
    """Put a key on hold: it is refused everything, from when this answers."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    aws.view_with_material(key)
    aws.run("suspend_key", EmptyRequest(), key_id=key.key_id)


@action("ScheduleKeyDeletion", ScheduleKeyDeletionInput)
def schedule_key_deletion(aws: AwsRequest, given: ScheduleKeyDeletionInput) -> Mapping[str, Any]:
    """Refuse a key every use, and delete it after some days."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    days = given.pending_window_in_days
    if not _SHORTEST_WINDOW <= days <= _LONGEST_WINDOW:
        raise Fault("ValidationException", _WINDOW)
    if aws.names.primary_region(key.region) != aws.names.region:
        return _replica_removed(aws, key)
    if key.replicas:
        arn = aws.names.key_arn(key.key_id)
        raise Fault("KMSInvalidStateException", f"{arn} has replicas. Delete those first.", problem="key-state")
    view = aws.run("delete_key", DeleteKeyRequest(waiting_period=timedelta(days=days)), key_id=key.key_id)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "DeletionDate": seconds(view.deletion_at),
        "KeyState": "PendingDeletion",
        "PendingWindowInDays": days,
    }


def _replica_removed(aws: AwsRequest, key: Key) -> Mapping[str, Any]:
    """A replica goes at once: it is the same key elsewhere, and can be replicated again."""
    aws.run("set_regions", SetRegionsRequest(remove=aws.names.region), key_id=key.key_id)
    return {
        "KeyId": aws.names.key_arn(key.key_id),
        "DeletionDate": seconds(aws.service.clock()),
        "KeyState": "PendingDeletion",
    }


@action("CancelKeyDeletion", KeyInput)
def cancel_key_deletion(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Keep a key that was to be deleted; as with AWS it is disabled then."""
    key = aws.key_without_alias(given.key_id)
    arn = aws.names.key_arn(key.key_id)
    if key.deletion_at is None:
        raise Fault("KMSInvalidStateException", f"{arn} is not pending deletion.", problem="key-state")
    with suppress(KeyStateConflict):  # it is not active
        aws.run("suspend_key", EmptyRequest(), key_id=key.key_id)  # first, so that it is never usable in between
    aws.run("cancel_deletion", EmptyRequest(), key_id=key.key_id)
    return {"KeyId": arn}


@action("UpdateKeyDescription", UpdateKeyDescriptionInput)
def update_key_description(aws: AwsRequest, given: UpdateKeyDescriptionInput) -> None:
    """Say what a key is for."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    aws.describe(key, description=given.description)


@action("GetKeyLastUsage", KeyInput)
def get_key_last_usage(aws: AwsRequest, given: KeyInput) -> Mapping[str, Any]:
    """Say when and by which operation a key was used last; uses of the last five minutes may be missing."""
    key = aws.key_without_alias(given.key_id)
    last = aws.run("get_last_use", EmptyRequest(), key_id=key.key_id)
    found: dict[str, Any] = {
        "KeyId": aws.names.key_arn(key.key_id),
        "KeyLastUsage": {},
        "TrackingStartDate": seconds(last.tracked_since),
        "KeyCreationDate": seconds(key.created_at),
    }
    if last.used_at is not UNSET:
        found["KeyLastUsage"] = {
            "Operation": specs.LAST_USES[last.operation],
            "Timestamp": seconds(last.used_at),
            "CloudTrailEventId": last.request_id,
            "KmsRequestId": last.request_id,
        }
    return found


def metadata(aws: AwsRequest, view: KeyView) -> dict[str, Any]:
    """KeyMetadata."""
    spec = specs.spec_of(view.type)
    state = "Enabled" if view.state in ("active", "pre-activation") else "Disabled"
    if view.pending_import:
        state = "PendingImport"
    found: dict[str, Any] = {
        "AWSAccountId": aws.names.account,
        "KeyId": view.key_id,
        "Arn": aws.names.key_arn(view.key_id),
        "CreationDate": seconds(view.created_at),
        "Enabled": state == "Enabled" and view.deletion_at is None,
        "Description": aws.names.described(view)[0],
        "KeyUsage": specs.usage_of(view),
        "KeyState": "PendingDeletion" if view.deletion_at is not None else state,
        "Origin": "EXTERNAL" if view.origin == "imported" else "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": spec,
        "KeySpec": spec,
        "MultiRegion": is_multi_region_key_id(view.key_id),
        **specs.algorithms(view),
        **expiration(view),
    }
    if view.versions[-1].external_material is not ExternalMaterial.AWAITED:
        key = aws.service.key_cache.key(view.key_id)
        found |= aws.material(key, view.latest_version, "CurrentKeyMaterialId")
    if found["MultiRegion"]:
        primary = aws.names.primary_region(view.region)
        regions = [
            {"Arn": aws.in_region(each).names.key_arn(view.key_id), "Region": each}
            for each in (primary, *view.replicas)
        ]
        found["MultiRegionConfiguration"] = {
            "MultiRegionKeyType": "PRIMARY" if primary == aws.names.region else "REPLICA",
            "PrimaryKey": regions[0],
            "ReplicaKeys": regions[1:],
        }
    if view.deletion_at is not None:
        found["DeletionDate"] = seconds(view.deletion_at)
    return found
