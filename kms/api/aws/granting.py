"""Grants in the AWS dialect: the owner of a key lets others use it, perhaps with some encryption contexts only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta

from kms.access.model import Role
from kms.access.policy import Permission
from kms.api.aws import specs
from kms.api.aws.faults import Fault
from kms.api.aws.request import AwsRequest, action, seconds, would_succeed
from kms.api.aws.shapes import GrantTokens, Input, ItemLimit, KeyInput, KeyName, Marker, truncated
from kms.errors import NotFound, PermissionDenied
from kms.keys.model import Key
from kms.operations.accounts.grant_views import GrantView
from kms.operations.accounts.grants import Context, CreateGrantRequest, ListGrantsRequest, require_may_give
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.views import shown

P = Permission
PERMISSIONS: dict[str, Permission] = {
    "Encrypt": P.KEYS_ENCRYPT,
    "GenerateDataKey": P.KEYS_ENCRYPT,
    "GenerateDataKeyWithoutPlaintext": P.KEYS_ENCRYPT,
    "GenerateDataKeyPair": P.KEYS_ENCRYPT,
    "GenerateDataKeyPairWithoutPlaintext": P.KEYS_ENCRYPT,
    "ReEncryptTo": P.KEYS_ENCRYPT,
    "Decrypt": P.KEYS_DECRYPT,
    "ReEncryptFrom": P.KEYS_DECRYPT,
    "Sign": P.KEYS_SIGN,
    "Verify": P.KEYS_VERIFY,
    "GenerateMac": P.KEYS_MAC,
    "VerifyMac": P.KEYS_VERIFY_MAC,
    "DeriveSharedSecret": P.KEYS_AGREE,
    "Encapsulate": P.KEYS_ENCAPSULATE,
    "Decapsulate": P.KEYS_DECAPSULATE,
    "GetPublicKey": P.KEYS_READ,
    "DescribeKey": P.KEYS_READ,
}
"""What an operation of a grant permits here; RetireGrant lets the grantee give it back."""

_NEEDS = {"ReEncryptFrom": "Decrypt", "ReEncryptTo": "Encrypt"}
_RETIRE = "RetireGrant"
_ALL = 1000

GrantOperation = Literal[
    "Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo",
    "Sign", "Verify", "GetPublicKey", "CreateGrant", "RetireGrant", "DescribeKey", "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "VerifyMac", "DeriveSharedSecret", "Encapsulate",
    "Decapsulate",
]  # fmt: skip
Principal = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[\w+=,.@:/-]+\Z")]
ServicePrincipal = Annotated[str, Meta(min_length=1, max_length=128)]
GrantId = Annotated[str, Meta(min_length=1, max_length=128)]
GrantToken = Annotated[str, Meta(min_length=1, max_length=8192)]


class Constraints(Input, kw_only=True):
    """With which encryption context a grant is good."""

    encryption_context_subset: Context | None = None
    encryption_context_equals: Context | None = None
    source_arn: str | None = None


class CreateGrantInput(KeyInput, kw_only=True):
    """CreateGrant."""

    grantee_principal: Principal | None = None
    retiring_principal: Principal | None = None
    operations: list[GrantOperation]
    constraints: Constraints | None = None
    name: Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[a-zA-Z0-9:/_-]+\Z")] | None = None
    dry_run: bool | None = None
    grantee_service_principal: ServicePrincipal | None = None
    retiring_service_principal: ServicePrincipal | None = None


class ListGrantsInput(KeyInput, kw_only=True):
    """ListGrants."""

    limit: ItemLimit = 50
    marker: Marker | None = None
    grant_id: GrantId | None = None
    grantee_principal: Principal | None = None
    grantee_service_principal: ServicePrincipal | None = None


class ListRetirableGrantsInput(Input, kw_only=True):
    """ListRetirableGrants."""

    limit: ItemLimit = 50
    marker: Marker | None = None
    retiring_principal: Principal | None = None
    retiring_service_principal: ServicePrincipal | None = None


class RetireGrantInput(Input, kw_only=True):
    """RetireGrant: by its token, or by its key's ARN and its id."""

    grant_token: GrantToken | None = None
    key_id: KeyName | None = None
    grant_id: GrantId | None = None
    dry_run: bool | None = None


class RevokeGrantInput(Input, kw_only=True):
    """RevokeGrant."""

    key_id: KeyName
    grant_id: GrantId
    dry_run: bool | None = None


@action("CreateGrant", CreateGrantInput)
def create_grant(aws: AwsRequest, given: CreateGrantInput) -> Mapping[str, Any]:
    """Let another client use a key. It is in force when this answers, so its token has no work to do."""
    key = aws.key_without_alias(given.key_id)
    _require_no_services(given.grantee_service_principal, given.retiring_service_principal)
    if given.grantee_principal is None:
        raise Fault("ValidationException", "GranteePrincipal must be specified.")
    _require_operations(key, given.operations)
    constraints = given.constraints or Constraints()
    if constraints.source_arn is not None:
        raise Fault("UnsupportedOperationException", "A grant cannot be limited to a SourceArn here.")
    retiring = _subject(aws, given.retiring_principal, key.owner) if given.retiring_principal else None
    if retiring is not None and not retiring.startswith("client:"):
        raise _no_principal()
    request = CreateGrantRequest(
        subject=_subject(aws, given.grantee_principal, key.owner),
        key_pattern=key.key_id,
        owner=key.owner,
        permissions=frozenset(PERMISSIONS[each] for each in given.operations if each != _RETIRE),
        context_equals=constraints.encryption_context_equals,
        context_subset=constraints.encryption_context_subset,
        retired_by=retiring,
        name=given.name or "",
        aws_operations=frozenset(given.operations),
    )
    with aws.service.vault.read() as snapshot:
        try:
            require_may_give(aws.service, snapshot, aws.call, request)
        except PermissionDenied:
            raise aws.denied(key.key_id) from None
        view = shown(aws.service, snapshot, key)
    aws.require_enabled(key, view)
    if given.dry_run:
        raise would_succeed()
    try:
        made: GrantView = aws.run("create_grant", request)
    except NotFound:
        raise _no_principal() from None
    return {"GrantId": made.grant_id, "GrantToken": _token(made.grant_id)}


@action("ListGrants", ListGrantsInput)
def list_grants(aws: AwsRequest, given: ListGrantsInput) -> Mapping[str, Any]:
    """List the grants of a key: all where its policy says so, else those that the caller gave or holds."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_denial(key)
    _require_no_services(given.grantee_service_principal)
    subject = _subject(aws, given.grantee_principal, key.owner) if given.grantee_principal else None
    found = [
        grant
        for grant in _grants(aws, key)
        if _covers(grant, key) and given.grant_id in (None, grant.grant_id) and subject in (None, grant.subject)
    ]
    return _page(aws, found, given.limit, given.marker, key)


@action("ListRetirableGrants", ListRetirableGrantsInput)
def list_retirable_grants(aws: AwsRequest, given: ListRetirableGrantsInput) -> Mapping[str, Any]:
    """List the grants that a client may retire because they name it for that."""
    _require_no_services(given.retiring_service_principal)
    if given.retiring_principal is None:
        raise Fault("ValidationException", "RetiringPrincipal must be specified.")
    subject = _subject(aws, given.retiring_principal, aws.call.known_caller.client_id)
    return _page(aws, [grant for grant in _grants(aws) if grant.retired_by == subject], given.limit, given.marker)


@action("RevokeGrant", RevokeGrantInput)
def revoke_grant(aws: AwsRequest, given: RevokeGrantInput) -> None:
    """Take a grant back; it is in force nowhere when this answers."""
    key = aws.key_without_alias(given.key_id)
    aws.require_no_denial(key)
    grant = _grant(aws, given.grant_id, key)
    is_holder = grant.owner != aws.call.known_caller.client_id and Role.ADMIN not in aws.call.known_caller.roles
    if is_holder and not aws.allows(Permission.GRANTS_MANAGE, key):
        raise aws.denied(key.key_id)
    _end(aws, grant.grant_id, dry_run=given.dry_run)


@action("RetireGrant", RetireGrantInput)
def retire_grant(aws: AwsRequest, given: RetireGrantInput) -> None:
    """Give a grant back, as its grantee or the one whom it names for that."""
    by_id = given.key_id is not None and given.grant_id is not None
    if (given.grant_token is not None) == by_id or (given.key_id is None) != (given.grant_id is None):
        raise Fault("ValidationException", "Give a GrantToken, or both a KeyId and a GrantId.")
    if given.grant_token is not None:
        require_tokens([given.grant_token])
        grant = _grant(aws, given.grant_token.removeprefix(_TOKEN))
    else:
        if not str(given.key_id).startswith("arn:"):
            raise Fault("InvalidArnException", "The KeyId must be the ARN of a key.")
        grant = _grant(aws, str(given.grant_id), aws.key_without_alias(str(given.key_id)))
    _end(aws, grant.grant_id, dry_run=given.dry_run)


_TOKEN = "grant-"  # noqa: S105  # a name, and no secret


def require_tokens(tokens: GrantTokens) -> None:
    """Raise Fault for a grant token that is none of ours. They change nothing: a grant is in force at once."""
    if any(re.fullmatch(f"{_TOKEN}[0-9a-f]{{32}}", token) is None for token in tokens):
        raise Fault("InvalidGrantTokenException", "The grant token is not one that was given here.")


def _token(grant_id: str) -> str:
    return _TOKEN + grant_id


def _require_operations(key: Key, operations: list[GrantOperation]) -> None:
    """Raise Fault for operations that a grant on this key cannot permit."""
    if not set(operations) - {_RETIRE}:
        raise Fault("ValidationException", "Operations must have something in it beside RetireGrant.")
    if "CreateGrant" in operations:
        raise Fault(
            "UnsupportedOperationException", "Who holds a grant cannot pass it on here; leave out CreateGrant."
        )
    for each, needed in _NEEDS.items():
        if each in operations and needed not in operations:
            raise Fault("UnsupportedOperationException", f"{each} is granted here together with {needed} only.")
    usages = {str(usage) for usage in key.usages} | {"read"}
    wrong = sorted(each for each in operations if each != _RETIRE and _use(PERMISSIONS[each]) not in usages)
    if wrong:
        usage = specs.usage_of(key)
        raise Fault("ValidationException", f"Grants on keys for {usage} cannot permit {', '.join(wrong)}.")


def _use(permission: Permission) -> str:
    return str(permission).partition(":")[2]


def _require_no_services(*principals: str | None) -> None:
    if any(principals):
        raise Fault("UnsupportedOperationException", "There are no AWS services here that a grant could be for.")


def _subject(aws: AwsRequest, principal: str, owner: str) -> str:
    """`client:NAME` or `role:NAME` for the ARN of a user or a role; the account is the owner. Raises Fault."""
    if principal in (aws.names.account_arn, aws.names.account):
        return f"client:{owner}"
    kind, _, name = principal.removeprefix(f"arn:aws:iam::{aws.names.account}:").partition("/")
    if kind == "user" and name:
        return f"client:{name}"
    if kind == "role" and name in set(Role):
        return f"role:{name}"
    raise _no_principal()


def _no_principal() -> Fault:
    return Fault("InvalidArnException", "That principal is no client and no role of this service.")


def _grants(aws: AwsRequest, key: Key | None = None) -> list[GrantView]:
    found = aws.run("list_grants", ListGrantsRequest(key_id=key.key_id if key is not None else None)).items
    return sorted(found, key=lambda grant: str(grant.grant_id))


def _grant(aws: AwsRequest, grant_id: str, key: Key | None = None) -> GrantView:
    for grant in _grants(aws, key):
        if grant.grant_id == grant_id and (key is None or _covers(grant, key)):
            return grant
    raise _no_grant(grant_id)


def _no_grant(grant_id: str) -> Fault:
    return Fault("NotFoundException", f"Grant ID {grant_id} not found", problem="not-found")


def _covers(grant: GrantView, key: Key) -> bool:
    pattern = grant.key_pattern
    named = key.key_id.startswith(pattern[:-1]) if pattern.endswith("*") else key.key_id == pattern
    return named and grant.owner == key.owner


def _end(aws: AwsRequest, grant_id: str, *, dry_run: bool | None) -> None:
    if dry_run:
        raise would_succeed()
    try:
        aws.run("delete_grant", EmptyRequest(), grant_id=grant_id)
    except NotFound:
        raise _no_grant(grant_id) from None


def _page(
    aws: AwsRequest, grants: Iterable[GrantView], limit: int, marker: str | None, key: Key | None = None
) -> Mapping[str, Any]:
    if marker is not None and re.fullmatch("[0-9a-f]{32}", marker) is None:
        raise Fault("InvalidMarkerException", "The marker is not one that a list gave.")
    rest = [grant for grant in grants if marker is None or grant.grant_id > marker]
    shown = [_entry(aws, grant, key) for grant in rest[:limit]]
    return {"Grants": shown, **truncated(rest[limit - 1].grant_id if len(rest) > limit else None)}


def _entry(aws: AwsRequest, grant: GrantView, key: Key | None) -> dict[str, Any]:
    kind, _, name = grant.subject.partition(":")
    grantee = aws.names.client_arn(name) if kind == "client" else aws.names.role_arn(name)
    operations = grant.aws_operations
    if operations is UNSET:
        operations = sorted(each for each, permission in PERMISSIONS.items() if permission in grant.permissions)
    entry: dict[str, Any] = {
        "KeyId": aws.names.key_arn(key.key_id if key else grant.key_pattern),
        "GrantId": grant.grant_id,
        "CreationDate": seconds(grant.created_at),
        "GranteePrincipal": grantee,
        "IssuingAccount": aws.names.account_arn,
        "Operations": operations,
    }
    if grant.name is not UNSET:
        entry["Name"] = grant.name
    if grant.retired_by is not UNSET:
        entry["RetiringPrincipal"] = aws.names.client_arn(grant.retired_by.partition(":")[2])
    if grant.context_equals is not UNSET:
        entry["Constraints"] = {"EncryptionContextEquals": grant.context_equals}
    if grant.context_subset is not UNSET:
        entry["Constraints"] = {"EncryptionContextSubset": grant.context_subset}
    return entry
