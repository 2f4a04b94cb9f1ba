"""Aliases in the AWS dialect, of the region that is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kms.api.aws import specs
from kms.api.aws.faults import Fault, Violation, violated
from kms.api.aws.names import ALIAS
from kms.api.aws.request import AwsRequest, action, seconds
from kms.api.aws.shapes import AliasName, Input, ItemLimit, KeyName, Marker, truncated
from kms.errors import AlreadyExists
from kms.keys.model import Key
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.aliases import ListAliasesRequest, SetAliasRequest

_NAME = re.compile(r"alias/[a-zA-Z0-9/_-]+")
_LONGEST = len(ALIAS) + 200  # so that a region fits before it
_PREFIX = (
    f'Alias must start with the prefix "{ALIAS}". Please see '
    "https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html"
)


class SetAliasInput(Input, kw_only=True):
    """CreateAlias and UpdateAlias."""

    alias_name: AliasName
    target_key_id: KeyName


class DeleteAliasInput(Input, kw_only=True):
    """DeleteAlias."""

    alias_name: AliasName


class ListAliasesInput(Input, kw_only=True):
    """ListAliases."""

    key_id: KeyName | None = None
    limit: ItemLimit = 50
    marker: Marker | None = None


@action("CreateAlias", SetAliasInput)
def create_alias(aws: AwsRequest, given: SetAliasInput) -> None:
    """Give a key another name."""
    try:
        _set(aws, given, exists=False)
    except AlreadyExists:
        arn = aws.names.alias_arn(given.alias_name)
        raise Fault(
            "AlreadyExistsException", f"An alias with the name {arn} already exists", problem="already-exists"
        ) from None


@action("UpdateAlias", SetAliasInput)
def update_alias(aws: AwsRequest, given: SetAliasInput) -> None:
    """Give the name to another key of the same type and usage."""
    _stored(aws, given.alias_name)
    if _kind(aws.key(given.alias_name)) != _kind(_target(aws, given)):
        raise Fault("ValidationException", "The alias can only go to a key of the same type and the same key usage.")
    with aws.alias_not_found(given.alias_name):
        _set(aws, given, exists=True)


@action("DeleteAlias", DeleteAliasInput)
def delete_alias(aws: AwsRequest, given: DeleteAliasInput) -> None:
    """Take a name back; the key stays."""
    with aws.alias_not_found(given.alias_name):
        aws.run("delete_alias", EmptyRequest(), alias=_stored(aws, given.alias_name))


@action("ListAliases", ListAliasesInput)
def list_aliases(aws: AwsRequest, given: ListAliasesInput) -> Mapping[str, Any]:
    """List the aliases of this region, or of one key."""
    aws.require_marker(given.marker)
    key = aws.key_without_alias(given.key_id) if given.key_id is not None else None
    found: list[tuple[str, dict[str, Any]]] = []
    cursor = given.marker
    while len(found) <= given.limit:
        page = aws.run("list_aliases", ListAliasesRequest(limit=1000, cursor=cursor))
        for each in page.items:
            shown = aws.names.shown_alias(each.alias)
            if shown is not None and (key is None or key.key_id == each.key_id):
                entry = {
                    "AliasName": shown,
                    "AliasArn": aws.names.alias_arn(shown),
                    "TargetKeyId": each.key_id,
                    "CreationDate": seconds(each.created_at),
                    "LastUpdatedDate": seconds(each.updated_at),
                }
                found.append((each.alias, entry))
        cursor = page.next_cursor
        if cursor is None:
            break
    listed = found[: given.limit]
    more = listed[-1][0] if len(found) > len(listed) else None
    return {"Aliases": [entry for _, entry in listed], **truncated(more)}


def _set(aws: AwsRequest, given: SetAliasInput, *, exists: bool) -> None:
    key = _target(aws, given)
    aws.require_no_deletion(key)
    request = SetAliasRequest(key_id=key.key_id, exists=exists)
    aws.run("set_alias", request, alias=_stored(aws, given.alias_name))


def _target(aws: AwsRequest, given: SetAliasInput) -> Key:
    if ALIAS in given.target_key_id:
        raise Fault("ValidationException", "Aliases must refer to keys. Not aliases")
    return aws.key(given.target_key_id)


def _kind(key: Key) -> tuple[str, bool]:
    """What all keys that an alias goes through have in common."""
    return specs.usage_of(key), specs.spec_of(key.type) == specs.SYMMETRIC


def _stored(aws: AwsRequest, alias: str) -> str:
    """The name under which the vault keeps an alias. Raises Fault for a name that AWS would not take."""
    if not alias.startswith(ALIAS):
        raise Fault("ValidationException", _PREFIX)
    if alias.startswith(f"{ALIAS}aws/"):
        raise Fault("NotAuthorizedException", "", problem="permission-denied")
    if len(alias) > _LONGEST:
        constraint = f"Member must have length less than or equal to {_LONGEST}"
        raise violated([Violation("aliasName", f"'{alias}'", constraint)])
    if _NAME.fullmatch(alias) is None:
        raise Fault("ValidationException", f"{alias} contains invalid characters for an alias")
    return aws.names.stored_alias(alias)
