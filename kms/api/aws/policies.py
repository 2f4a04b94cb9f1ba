"""Key policies in the AWS dialect. One that cannot be enforced is refused as malformed: nobody is to rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from kms.access import key_policy
from kms.access.key_policy import Malformed
from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action
from kms.api.aws.shapes import ItemLimit, KeyInput, Marker, truncated
from kms.keys.model import Key
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.key_policies import require_policy
from kms.operations.keys.manage import UpdateKeyRequest

_NAME = "default"
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


@action("GetKeyPolicy", GetKeyPolicyInput)
def get_key_policy(aws: AwsRequest, given: GetKeyPolicyInput) -> Mapping[str, Any]:
    """Show the policy of a key: as it was put, or what owning it says."""
    _require_default(given.policy_name)
    key = aws.key_without_alias(given.key_id)
    aws.run("get_key", EmptyRequest(), key_id=key.key_id)
    return {"Policy": document_of(aws, key), "PolicyName": _NAME}


@action("PutKeyPolicy", PutKeyPolicyInput)
def put_key_policy(aws: AwsRequest, given: PutKeyPolicyInput) -> None:
    """Keep a policy that can be enforced, byte for byte; one that would lock its owner out is refused, always."""
    _require_default(given.policy_name)
    key = aws.key_without_alias(given.key_id)
    require_enforceable(aws, given.policy, key.owner, key.key_id)
    aws.run("update_key", UpdateKeyRequest(policy=given.policy), key_id=key.key_id)


@action("ListKeyPolicies", ListKeyPoliciesInput)
def list_key_policies(aws: AwsRequest, given: ListKeyPoliciesInput) -> Mapping[str, Any]:
    """List the one policy that each key has."""
    key: Key = aws.key_without_alias(given.key_id)
    aws.run("get_key", EmptyRequest(), key_id=key.key_id)
    return {"PolicyNames": [_NAME], **truncated(None)}


def document_of(aws: AwsRequest, key: Key) -> str:
    """The policy of a key, as it was put, or as AWS's own first one is."""
    return key.policy or _default(aws, aws.names.client_arn(key.owner))


def _default(aws: AwsRequest, principal: str) -> str:
    statement = {
        "Sid": "The owner may do everything",
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": "kms:*",
        "Resource": "*",
    }
    document = {"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}
    return msgspec.json.encode(document).decode()


def require_enforceable(aws: AwsRequest, text: str, owner: str, key_id: str | None) -> None:
    """Raise Fault unless a key of `owner` may have this policy."""
    if len(text) > key_policy.LONGEST:
        raise Fault("LimitExceededException", f"A key policy has at most {key_policy.LONGEST} characters.")
    try:
        with aws.service.vault.read() as snapshot:
            require_policy(aws.service, snapshot, text, owner, key_id)
    except Malformed as malformed:
        raise Fault("MalformedPolicyDocumentException", malformed.reason) from None


def require_same(aws: AwsRequest, text: str, key: Key) -> None:
    """Raise Fault unless a replica is to have the policy that its key has: it is one key."""
    require_enforceable(aws, text, key.owner, key.key_id)
    if _meaning(text) not in (_meaning(document_of(aws, key)), _meaning(_default(aws, aws.names.account_arn))):
        raise Fault("UnsupportedOperationException", "A replica has the policy of its primary key here.")


def _meaning(text: str) -> object:
    return msgspec.json.decode(text)


def _require_default(name: str) -> None:
    if name != _NAME:
        raise Fault("NotFoundException", "No such policy exists", problem="not-found")
