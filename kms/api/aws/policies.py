"""Key policies in the AWS dialect: what ownership gives every key, in whatever words, and nothing else.

A document that says anything else is refused as malformed, so that nobody believes in what is not enforced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action
from kms.api.aws.shapes import ItemLimit, KeyInput, Marker, truncated
from kms.keys.model import Key
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.manage import UpdateKeyRequest

_NAME = "default"
_LONGEST = 32_768
Policy = Annotated[str, Meta(min_length=1, max_length=131_072, pattern=r"^[\t\n\r -\xff]+\Z")]
PolicyName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^\w+\Z")]


class GetKeyPolicyInput(KeyInput, kw_only=True):
    """GetKeyPolicy."""

    policy_name: PolicyName = _NAME


class PutKeyPolicyInput(GetKeyPolicyInput, kw_only=True):
    """PutKeyPolicy."""

    policy: Policy
    bypass_policy_lockout_safety_check: bool = False


class ListKeyPoliciesInput(KeyInput, kw_only=True):
    """ListKeyPolicies."""

    limit: ItemLimit = 100
    marker: Marker | None = None


class _Statement(msgspec.Struct, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    sid: str = ""
    effect: Literal["Allow"]
    principal: dict[Literal["AWS"], str | list[str]]
    action: str | list[str]
    resource: str | list[str] = "*"


class _Document(msgspec.Struct, rename="pascal", forbid_unknown_fields=True, kw_only=True):
    version: Literal["2012-10-17", "2008-10-17"] = "2008-10-17"
    id: str = ""
    statement: list[_Statement] | _Statement


@action("GetKeyPolicy", GetKeyPolicyInput)
def get_key_policy(aws: AwsRequest, given: GetKeyPolicyInput) -> Mapping[str, Any]:
    """Show the policy that the owner of the key has by owning it."""
    _require_default(given.policy_name)
    key = aws.key_without_alias(given.key_id)
    aws.run("get_key", EmptyRequest(), key_id=key.key_id)
    return {"Policy": document_of(aws, key), "PolicyName": _NAME}


@action("PutKeyPolicy", PutKeyPolicyInput)
def put_key_policy(aws: AwsRequest, given: PutKeyPolicyInput) -> None:
    """Keep a policy that says what ownership says; refuse every other."""
    _require_default(given.policy_name)
    key = aws.key_without_alias(given.key_id)
    require_ownership(aws, given.policy, key.owner)
    aws.run("update_key", UpdateKeyRequest(policy=given.policy), key_id=key.key_id)


@action("ListKeyPolicies", ListKeyPoliciesInput)
def list_key_policies(aws: AwsRequest, given: ListKeyPoliciesInput) -> Mapping[str, Any]:
    """List the one policy that each key has."""
    key: Key = aws.key_without_alias(given.key_id)
    aws.run("get_key", EmptyRequest(), key_id=key.key_id)
    return {"PolicyNames": [_NAME], **truncated(None)}


def document_of(aws: AwsRequest, key: Key) -> str:
    """The policy of a key, as it was put, or as AWS's own first one is."""
    if key.policy:
        return key.policy
    statement = _Statement(
        sid="The owner may do everything",
        effect="Allow",
        principal={"AWS": aws.names.client_arn(key.owner)},
        action="kms:*",
    )
    document = _Document(version="2012-10-17", id="key-default-1", statement=[statement])
    return msgspec.json.encode(document).decode()


def require_ownership(aws: AwsRequest, policy: str, owner: str) -> None:
    """Raise Fault unless `policy` lets `owner`, or the account as a whole, do everything, and nobody else."""
    if len(policy) > _LONGEST:
        raise Fault("LimitExceededException", f"A key policy has at most {_LONGEST} characters.")
    try:
        document = msgspec.json.decode(policy, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(str(error).partition(" - at")[0]) from None
    statements = document.statement if isinstance(document.statement, list) else [document.statement]
    mine = {aws.names.client_arn(owner), aws.names.account_arn, aws.names.account}
    for statement in statements:
        principals = _batch(statement.principal.get("AWS", []))
        if not principals or not set(principals) <= mine:
            raise _malformed("the owner of a key is its only principal; grant its use to others instead")
        if _batch(statement.action) != ["kms:*"] or _batch(statement.resource) != ["*"]:
            raise _malformed('Action must be "kms:*" and Resource "*"')
    if not statements:
        raise _malformed("it has no statement")


def _batch(given: str | list[str]) -> list[str]:
    return given if isinstance(given, list) else [given]


def _require_default(name: str) -> None:
    if name != _NAME:
        raise Fault("NotFoundException", "No such policy exists", problem="not-found")


def _malformed(why: str) -> Fault:
    return Fault("MalformedPolicyDocumentException", f"This policy cannot be enforced here: {why}.")
