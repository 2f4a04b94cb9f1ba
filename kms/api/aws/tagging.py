"""Tags in the AWS dialect: the labels of a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action
from kms.api.aws.shapes import Input, ItemLimit, KeyInput, Marker, truncated
from kms.keys.model import Key


class Tag(Input, kw_only=True):
    """A label."""

    tag_key: Annotated[str, Meta(min_length=1, max_length=128)]
    tag_value: Annotated[str, Meta(max_length=256)]


class TagResourceInput(KeyInput, kw_only=True):
    """TagResource."""

    tags: list[Tag]


class UntagResourceInput(KeyInput, kw_only=True):
    """UntagResource."""

    tag_keys: list[Annotated[str, Meta(min_length=1, max_length=128)]]


class ListResourceTagsInput(KeyInput, kw_only=True):
    """ListResourceTags."""

    limit: ItemLimit = 50
    marker: Marker | None = None


@action("TagResource", TagResourceInput)
def tag_resource(aws: AwsRequest, given: TagResourceInput) -> None:
    """Add labels to a key, or change them."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    added = labels_of(given.tags)
    with aws.service.vault.read() as snapshot:  # tags outdate nothing, so those in memory may be old
        now = snapshot.find(Key, key.uid)
    _few({**(aws.names.described(now)[1] if now else {}), **added})
    aws.describe(key, add_labels=added)


@action("UntagResource", UntagResourceInput)
def untag_resource(aws: AwsRequest, given: UntagResourceInput) -> None:
    """Take labels from a key."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_deletion(key)
    aws.describe(key, remove_labels=given.tag_keys)


@action("ListResourceTags", ListResourceTagsInput)
def list_resource_tags(aws: AwsRequest, given: ListResourceTagsInput) -> Mapping[str, Any]:
    """List the labels of a key."""
    _, labels = aws.names.described(aws.view(aws.key_without_alias(given.key_id)))
    if given.marker is not None and given.marker not in labels:
        raise Fault("InvalidMarkerException", "The marker is not one that a list gave.")
    names = sorted(name for name in labels if given.marker is None or name > given.marker)
    shown = names[: given.limit]
    tags = [{"TagKey": name, "TagValue": labels[name]} for name in shown]
    return {"Tags": tags, **truncated(shown[-1] if len(names) > len(shown) else None)}


def labels_of(tags: list[Tag]) -> dict[str, str]:
    """Tags as labels. Raises Fault."""
    if any(tag.tag_key.lower().startswith("aws:") for tag in tags):
        raise Fault("TagException", "Tags beginning with aws: are reserved")
    labels = {tag.tag_key: tag.tag_value for tag in tags}
    if len(labels) < len(tags):
        raise Fault("TagException", "Duplicate tag keys")
    return _few(labels)


def _few(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > 50:
        raise Fault("TagException", "Too many tags")
    return labels
