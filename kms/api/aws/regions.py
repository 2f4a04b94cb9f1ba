"""Multi-region keys in the AWS dialect: one key, shown in several regions.

As it is one key, its state, policy and grants are the same in all of them: a key that is disabled in one region is
disabled everywhere. Aliases, description and tags are those of a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, field

from kms.api.aws.faults import Fault
from kms.api.aws.managing import metadata
from kms.api.aws.names import no_such_key
from kms.api.aws.policies import Policy, document_of, require_same
from kms.api.aws.request import AwsRequest, action
from kms.api.aws.shapes import Description, KeyInput
from kms.api.aws.tagging import Tag, labels_of
from kms.errors import AlreadyExists, NotFound
from kms.keys.ids import is_multi_region_key_id
from kms.keys.model import Key
from kms.operations.keys.regions import SetRegionsRequest

Region = Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^([a-z]+-){2,3}[0-9]+\Z")]


class ReplicateKeyInput(KeyInput, kw_only=True):
    """ReplicateKey."""

    replica_region: Region
    policy: Policy | None = None
    bypass_policy_lockout_safety_check: bool = False
    description: Description | None = None
    tags: list[Tag] = field(default_factory=list)


class UpdatePrimaryRegionInput(KeyInput, kw_only=True):
    """UpdatePrimaryRegion."""

    primary_region: Region


@action("ReplicateKey", ReplicateKeyInput)
def replicate_key(aws: AwsRequest, given: ReplicateKeyInput) -> Mapping[str, Any]:
    """Show a key in one more region."""
    key = _primary(aws, given.key_id)
    if given.policy is not None:
        require_same(aws, given.policy, key)
    labels = labels_of(given.tags)
    there = aws.in_region(given.replica_region)
    request = SetRegionsRequest(add=given.replica_region, add_labels=labels, description=given.description or "")
    try:
        view = aws.run("set_regions", request, key_id=key.key_id)
    except AlreadyExists:
        arn = there.names.key_arn(key.key_id)
        raise Fault("AlreadyExistsException", f"{arn} already exists.", problem="already-exists") from None
    return {
        "ReplicaKeyMetadata": metadata(there, view),
        "ReplicaPolicy": document_of(aws, key),
        "ReplicaTags": [{"TagKey": name, "TagValue": value} for name, value in sorted(labels.items())],
    }


@action("UpdatePrimaryRegion", UpdatePrimaryRegionInput)
def update_primary_region(aws: AwsRequest, given: UpdatePrimaryRegionInput) -> None:
    """Make another of a key's regions the one where it rotates and is replicated."""
    key = _primary(aws, given.key_id)
    try:
        aws.run("set_regions", SetRegionsRequest(primary=given.primary_region), key_id=key.key_id)
    except NotFound:
        raise no_such_key(aws.in_region(given.primary_region).names.key_arn(key.key_id)) from None


def _primary(aws: AwsRequest, given: str) -> Key:
    """The multi-region key of that name, which can be changed in this region. Raises Fault."""
    key = aws.key_without_alias(given)
    if not is_multi_region_key_id(key.key_id):
        raise aws.not_primary(key)
    aws.require_enabled(key)
    aws.require_primary(key)
    return key
