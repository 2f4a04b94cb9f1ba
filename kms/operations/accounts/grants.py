"""Grants: the owner of keys lets other clients use them. Nobody can grant the use of keys of others."""

from __future__ import annotations

import re
import secrets
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from sqlalchemy import or_

from kms.access import addresses, clients, groups, policy
from kms.access.model import EVERY_OWNER, Caller, ContextRule, Effect, Grant, Role
from kms.access.policy import Permission
from kms.errors import NotFound, PermissionDenied, ValidationFailed
from kms.keys.ids import CLIENT_ID_PATTERN, KEY_ID_PATTERN, ClientId
from kms.operations.accounts.grant_views import GrantView, grant_view
from kms.operations.accounts.granters import (
    AskedGrant,
    is_denied,
    is_in_scope,
    lets_handle,
    on_key,
    require_granter,
    require_in_scope,
)
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

KeyPattern = Annotated[str, msgspec.Meta(pattern=rf"^({KEY_ID_PATTERN}|(?:{KEY_ID_PATTERN})?\*)\Z")]
Context = Annotated[dict[str, str], msgspec.Meta(max_length=8)]
Network = Annotated[str, msgspec.Meta(max_length=64)]
_RETIRE = "RetireGrant"
_A_DAY = timedelta(days=1)
AwsWord = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,64}\Z")]


class Conditions(Request):
    """When a grant is in force; all conditions that are given must be met.

    `source`: only for requests from these networks. `not_before`, `not_after`: only in this time.
    `second_factor_within`: only if a person gave a second factor at most this long before the request (ISO 8601).
    """

    source: Annotated[list[Network], msgspec.Meta(min_length=1, max_length=50)] | None = None
    not_before: Moment | None = None
    not_after: Moment | None = None
    second_factor_within: timedelta | None = None


class CreateGrantRequest(Request):
    """`subject` is `client:NAME`, `role:NAME` or `group:NAME`; `key_pattern` is a key id, or its beginning and `*`.

    The grant allows the subject what `permission` and `permissions` name together. With `effect` `deny`, which only
    administrators can use, it forbids them, whatever else allows them. `owner` is the client whose keys the grant
    covers. Its default is the caller, or every client if the grant denies. An administrator who grants
    `keys:recover` names the owner. The grant is in force while all `conditions` are met.

    `context_equals` and `context_subset` limit it to messages whose associated data is an encryption context
    (docs/reference/aws.md): one that is equal, or one that has at least these members. The client in `retired_by`
    may end the grant. If there is a grant with the same `name` and members already, it is answered again and no
    second one is made. `aws_operations` are only shown again, but if `RetireGrant` is among them the subject may end
    the grant, too.
    """

    subject: Annotated[
        str, msgspec.Meta(pattern=rf"^((client|group):{CLIENT_ID_PATTERN}|role:(admin|user|auditor))\Z")
    ]
    key_pattern: KeyPattern
    permission: Permission | None = None
    permissions: frozenset[Permission] = frozenset()
    owner: ClientId | None = None
    effect: Effect = Effect.ALLOW
    conditions: Conditions | None = None
    context_equals: Context | None = None
    context_subset: Context | None = None
    retired_by: Annotated[str, msgspec.Meta(pattern=rf"^client:{CLIENT_ID_PATTERN}\Z")] | None = None
    name: Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[a-zA-Z0-9:/_-]*\Z")] = ""
    aws_operations: frozenset[AwsWord] = frozenset()


class ListGrantsRequest(Request):
    """`key_id` limits the list to grants on that key, and adds those of others that the key's policy lets you see."""

    key_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None


class GrantList(Answer):
    """The grants that the caller gave, that it holds, and that it may end as their `retired_by`; the oldest first."""

    items: list[GrantView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/grants",
    permission=Permission.GRANTS_MANAGE,
    request=CreateGrantRequest,
    status=201,
    checked_upfront=True,
)
def create_grant(service: Service, call: Call, request: CreateGrantRequest) -> GrantView:
    """Let a client, a role or a group use your keys; administrators can also deny, or grant recovery."""
    caller = call.known_caller
    owner = owner_of(request, caller)
    permissions = _permissions(request)
    require_in_scope(caller, request.key_pattern, permissions if request.effect is Effect.ALLOW else ())
    if request.effect is Effect.DENY:
        _require_deniable(caller, permissions, request)
    else:
        _require_grantable(caller, permissions)
    grant = grant_of(request, owner, service.clock())
    with service.change(call) as change:
        require_may_give(service, change, call, request)
        for subject in filter(None, (request.subject, request.retired_by)):
            kind, _, name = subject.partition(":")
            if kind == "client":
                clients.get(change, name)
            if kind == "group":
                groups.get(change, name)
        if owner != EVERY_OWNER:
            clients.get(change, owner)
        call.target = request.subject
        same = _same(change, grant) if grant.name else None
        if same is None:
            change.insert(grant)
        else:
            call.abandoned = True
    return grant_view(same or grant)


def require_may_give(service: Service, snapshot: Snapshot, call: Call, request: CreateGrantRequest) -> None:
    """Return if the caller may grant the requested permissions, apart from those that only administrators grant.

    Raises PermissionDenied or NotFound if it may not.
    """
    permissions = _permissions(request) - policy.GRANTED_BY_ADMINISTRATORS
    if request.effect is Effect.ALLOW and permissions:
        require_granter(service, snapshot, call, _asked(request, permissions, owner_of(request, call.known_caller)))


def _permissions(request: CreateGrantRequest) -> frozenset[Permission]:
    return request.permissions | ({request.permission} if request.permission else set())


def owner_of(request: CreateGrantRequest, caller: Caller) -> str:
    """The id of the client whose keys the requested grant covers, or `EVERY_OWNER`."""
    return request.owner or (EVERY_OWNER if request.effect is Effect.DENY else caller.client_id)


def grant_of(request: CreateGrantRequest, owner: str, now: datetime) -> Grant:
    """The grant that a request is for, on keys of `owner`. Raises ValidationFailed."""
    permissions = _permissions(request)
    conditions = _conditions(request)
    rule, context = _context(request, permissions)
    if not permissions:
        raise ValidationFailed("permission, permissions: give one at least.")
    first, *more = sorted(permissions)
    return Grant(
        grant_id=secrets.token_hex(16),
        owner=owner,
        subject=request.subject,
        permission=first,
        key_pattern=request.key_pattern,
        created_at=now,
        more_permissions=frozenset(more),
        context_rule=rule,
        context=context,
        retired_by=request.retired_by or "",
        name=request.name,
        words=request.aws_operations,
        effect=request.effect,
        source=frozenset(conditions.source or ()),
        not_before=conditions.not_before,
        not_after=conditions.not_after,
        second_factor_within=conditions.second_factor_within,
    )


@operation(
    "GET", "/api/v1/grants", permission=Permission.GRANTS_MANAGE, request=ListGrantsRequest, checked_upfront=True
)
def list_grants(service: Service, call: Call, request: ListGrantsRequest) -> GrantList:
    """List the grants that the caller gave, holds or may retire; administrators also see all that deny."""
    caller = call.known_caller
    me = names.of_client(caller.client_id)
    subjects = [me, *map(names.of_role, caller.roles), *map(names.of_group, caller.groups)]
    column = tables.grants.c
    own = [column.owner == caller.client_id, column.subject.in_(subjects), column.retired_by == me]
    if Role.ADMIN in caller.roles:
        own.append(column.effect == Effect.DENY)
    with service.vault.read() as snapshot:
        found = snapshot.select(Grant, or_(*own), order_by=column.created_at)
        if request.key_id is not None:
            found = on_key(service, snapshot, call, found, request.key_id)
        if not call.action:  # in the dialect of AWS it is one key's that are listed, and others that are ended
            found = [grant for grant in found if not is_denied(service, snapshot, call, grant)]
    return GrantList(items=[grant_view(grant) for grant in found if is_in_scope(caller, grant)], next_cursor=None)


@operation("DELETE", "/api/v1/grants/<grant_id>", permission=Permission.GRANTS_MANAGE, checked_upfront=True)
def delete_grant(service: Service, call: Call, request: EmptyRequest, grant_id: str) -> GrantView:
    """Delete a grant: one that you gave, one that you may retire, or as administrator any grant.

    A key's policy can deny this to a client, and can allow it to others for grants on that key alone.
    """
    caller = call.known_caller
    with service.change(call) as change:
        grant = change.find(Grant, grant_id) if re.fullmatch("[0-9a-f]{32}", grant_id) else None
        if grant is None or not (may_take_back(caller, grant) or lets_handle(service, change, call, grant)):
            raise NotFound("There is no such grant.")
        call.target = grant.subject
        if is_denied(service, change, call, grant):
            raise PermissionDenied("The policy of its key keeps you from ending this grant.")
        change.delete(grant)
    return grant_view(grant)


def may_take_back(caller: Caller, grant: Grant) -> bool:
    """Whether `caller` gave the grant, may retire it, or is an administrator, and its session's scope allows it."""
    if not is_in_scope(caller, grant):
        return False
    if grant.effect is Effect.DENY:
        return Role.ADMIN in caller.roles
    me = names.of_client(caller.client_id)
    retires = me == grant.retired_by or (me == grant.subject and _RETIRE in grant.words)
    return retires or caller.client_id == grant.owner or Role.ADMIN in caller.roles


def _asked(request: CreateGrantRequest, permissions: AbstractSet[Permission], owner: str) -> AskedGrant:
    constraint = "EncryptionContextEquals" if request.context_equals is not None else None
    if request.context_subset is not None:
        constraint = "EncryptionContextSubset"
    return AskedGrant(
        owner,
        request.key_pattern,
        permissions,
        request.subject,
        request.retired_by,
        request.aws_operations,
        constraint,
    )


def _require_grantable(caller: Caller, permissions: AbstractSet[Permission]) -> None:
    """Raise where nobody, or only an administrator, may grant this: ValidationFailed or PermissionDenied."""
    for_administrators = permissions & policy.GRANTED_BY_ADMINISTRATORS
    if not permissions or permissions - policy.GRANTABLE - for_administrators:
        raise ValidationFailed(f"permission: must be one of {', '.join(sorted(policy.GRANTABLE))}.")
    if for_administrators and Role.ADMIN not in caller.roles:
        raise PermissionDenied(f"Only an administrator grants {', '.join(sorted(for_administrators))}.")


def _require_deniable(caller: Caller, permissions: AbstractSet[Permission], request: CreateGrantRequest) -> None:
    """Raise where `caller` may not forbid this: ValidationFailed or PermissionDenied."""
    if Role.ADMIN not in caller.roles:
        raise PermissionDenied("Only an administrator makes a grant that denies.")
    if not permissions or permissions - policy.DENIABLE:
        raise ValidationFailed(f"permission: must be one of {', '.join(sorted(policy.DENIABLE))}.")
    for member in ("context_equals", "context_subset", "retired_by"):
        if getattr(request, member) is not None:
            raise ValidationFailed(f"{member}: not in a grant that denies.")
    if request.conditions is not None and request.conditions.second_factor_within is not None:
        raise ValidationFailed(
            "conditions.second_factor_within: not in a grant that denies; put it into what allows."
        )


def _conditions(request: CreateGrantRequest) -> Conditions:
    """The conditions of the request. Raises ValidationFailed for any that is malformed or can never be met."""
    given = request.conditions or Conditions()
    for network in given.source or ():
        try:
            addresses.network(network)
        except ValueError as error:
            raise ValidationFailed(f"conditions.source: {error}.") from None
    if given.not_before is not None and given.not_after is not None and given.not_after <= given.not_before:
        raise ValidationFailed("conditions.not_after: must be later than not_before.")
    if given.second_factor_within is not None and not timedelta(seconds=30) <= given.second_factor_within <= _A_DAY:
        raise ValidationFailed("conditions.second_factor_within: from PT30S to P1D.")
    return given


def _context(request: CreateGrantRequest, permissions: AbstractSet[Permission]) -> tuple[ContextRule, dict[str, str]]:
    """What the encryption context must be. Raises ValidationFailed."""
    equals, subset = request.context_equals, request.context_subset
    if equals is None and subset is None:
        return ContextRule.NONE, {}
    if equals is not None and subset is not None:
        raise ValidationFailed("context_equals, context_subset: give one of them.")
    if not permissions & policy.BOUND_BY_CONTEXT:
        bound = ", ".join(sorted(policy.BOUND_BY_CONTEXT))
        raise ValidationFailed(f"context_equals, context_subset: they limit {bound} and nothing else.")
    return (ContextRule.EQUALS, equals) if equals is not None else (ContextRule.SUBSET, subset or {})


def _same(change: Change, grant: Grant) -> Grant | None:
    """The grant that says the same, if there is one already."""
    column = tables.grants.c
    given = change.select(Grant, column.owner == grant.owner, column.name == grant.name)
    found = (each for each in given if replace(grant, grant_id=each.grant_id, created_at=each.created_at) == each)
    return next(found, None)
