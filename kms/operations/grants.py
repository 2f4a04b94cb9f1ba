"""Grants: the owner of keys lets others use them. Nobody can grant what is not theirs."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Annotated

import msgspec
from sqlalchemy import or_

from kms.access import clients, policy
from kms.access.model import Grant, Role
from kms.access.policy import Permission
from kms.errors import NotFound, PermissionDenied, ValidationFailed
from kms.keys.ids import CLIENT_ID_PATTERN, KEY_ID_PATTERN, ClientId
from kms.operations.service import Call, Service
from kms.operations.table import Answer, Nothing, Request, operation
from kms.vault import tables

KeyPattern = Annotated[str, msgspec.Meta(pattern=rf"^({KEY_ID_PATTERN}|(?:{KEY_ID_PATTERN})?\*)\Z")]


class CreateGrantRequest(Request):
    """`subject` is `client:NAME` or `role:NAME`; `key_pattern` a key id, or the beginning of one and `*`.

    `owner` is whose keys it is about: the caller, except for `keys:recover`, which administrators grant.
    """

    subject: Annotated[str, msgspec.Meta(pattern=rf"^(client:{CLIENT_ID_PATTERN}|role:(admin|user|auditor))\Z")]
    permission: Permission
    key_pattern: KeyPattern
    owner: ClientId | None = None


class GrantView(Answer):
    """A grant; it reaches only keys of `owner`."""

    grant_id: str
    owner: str
    subject: str
    permission: str
    key_pattern: str
    created_at: datetime


class GrantList(Answer):
    """Grants given and held."""

    items: list[GrantView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/grants",
    permission=Permission.GRANTS_MANAGE,
    request=CreateGrantRequest,
    status=201,
    on_nothing=True,
)
def create_grant(service: Service, call: Call, request: CreateGrantRequest) -> GrantView:
    """Let another client or a role use keys of one's own; or, as administrator, recover with compromised ones."""
    caller = call.known_caller
    owner = request.owner or caller.client_id
    if request.permission in policy.GRANTED_BY_ADMINISTRATORS:
        if Role.ADMIN not in caller.roles:
            raise PermissionDenied(f"Only an administrator grants {request.permission}.")
    elif request.permission not in policy.GRANTABLE:
        raise ValidationFailed(f"permission: must be one of {', '.join(sorted(policy.GRANTABLE))}.")
    elif owner != caller.client_id:
        raise PermissionDenied("Only their owner grants the use of keys.")
    grant = Grant(
        grant_id=secrets.token_hex(16),
        owner=owner,
        subject=request.subject,
        permission=request.permission,
        key_pattern=request.key_pattern,
        created_at=service.clock(),
    )
    with service.change(call) as change:
        kind, _, name = request.subject.partition(":")
        if kind == "client":
            clients.get(change, name)
        clients.get(change, owner)
        call.target = request.subject
        change.insert(grant)
        change.outdates = True
    return _view(grant)


@operation("GET", "/api/v1/grants", permission=Permission.GRANTS_MANAGE, on_nothing=True)
def list_grants(service: Service, call: Call, request: Nothing) -> GrantList:
    """List the grants that the caller has given or holds."""
    caller = call.known_caller
    subjects = [f"client:{caller.client_id}", *(f"role:{role}" for role in caller.roles)]
    column = tables.grants.c
    with service.vault.read() as snapshot:
        found = snapshot.select(
            Grant,
            or_(column.owner == caller.client_id, column.subject.in_(subjects)),
            order_by=column.created_at,
        )
    return GrantList(items=[_view(grant) for grant in found], next_cursor=None)


@operation("DELETE", "/api/v1/grants/<grant_id>", permission=Permission.GRANTS_MANAGE, on_nothing=True)
def delete_grant(service: Service, call: Call, request: Nothing, grant_id: str) -> GrantView:
    """Take back a grant of one's own; administrators can take back any."""
    caller = call.known_caller
    with service.change(call) as change:
        grant = change.find(Grant, grant_id) if re.fullmatch("[0-9a-f]{32}", grant_id) else None
        if grant is None or (grant.owner != caller.client_id and Role.ADMIN not in caller.roles):
            raise NotFound("There is no such grant.")
        call.target = grant.subject
        change.delete(grant)
        change.outdates = True
    return _view(grant)


def _view(grant: Grant) -> GrantView:
    return GrantView(
        grant_id=grant.grant_id,
        owner=grant.owner,
        subject=grant.subject,
        permission=grant.permission,
        key_pattern=grant.key_pattern,
        created_at=grant.created_at,
    )
