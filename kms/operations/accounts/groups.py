"""Groups of clients over REST. Administrators set their members; owners of keys give grants to a group."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from kms.access import clients, groups
from kms.access.groups import Group, GroupMember
from kms.access.policy import Permission
from kms.approvals.quorum import keeping_approvers
from kms.errors import NotFound, ValidationFailed
from kms.keys.ids import ClientId, is_client_id
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault.change import Change
from kms.vault.transaction import Snapshot


class PutGroupRequest(Request):
    """`members` replaces the whole list of members; without it the members stay as they are."""

    members: Annotated[list[ClientId], msgspec.Meta(max_length=1000)] | None = None
    description: Annotated[str, msgspec.Meta(max_length=1024)] | None = None


class GroupView(Answer):
    """A group of clients; `group:NAME` is the subject of grants to it."""

    group: str
    members: list[str]
    description: str
    created_at: datetime


class GroupList(Answer):
    """Every group."""

    items: list[GroupView]
    next_cursor: str | None


@operation(
    "PUT",
    "/api/v1/groups/<group>",
    permission=Permission.CLIENTS_MANAGE,
    request=PutGroupRequest,
    checked_upfront=True,
)
def put_group(service: Service, call: Call, request: PutGroupRequest, group: str) -> GroupView:
    """Create a group, or replace the members of an existing one."""
    if not is_client_id(group):
        raise ValidationFailed("group: letters, digits, '.', '_' and '-', 64 at the most.")
    with service.change(call) as change:
        call.target = group
        before = change.find(Group, group)
        made = Group(
            group,
            request.description if request.description is not None else before.description if before else "",
            before.created_at if before else service.clock(),
        )
        if before is None:
            change.insert(made)
        else:
            change.replace(before, made)
        if request.members is not None:
            for client_id in request.members:
                clients.get(change, client_id)
            with keeping_approvers(change):
                groups.set_members(change, group, frozenset(request.members))
        return _view(change, made)


@operation("GET", "/api/v1/groups", permission=Permission.CLIENTS_READ, checked_upfront=True)
def list_groups(service: Service, call: Call, request: EmptyRequest) -> GroupList:
    """List the groups and who is in them."""
    with service.vault.read() as snapshot:
        found = [_view(snapshot, each) for each in snapshot.matching(Group, order_by="group_name")]
    return GroupList(items=found, next_cursor=None)


@operation("GET", "/api/v1/groups/<group>", permission=Permission.CLIENTS_READ, checked_upfront=True)
def get_group(service: Service, call: Call, request: EmptyRequest, group: str) -> GroupView:
    """Show who is in a group."""
    with service.vault.read() as snapshot:
        return _view(snapshot, _group(snapshot, call, group))


@operation("DELETE", "/api/v1/groups/<group>", permission=Permission.CLIENTS_MANAGE, checked_upfront=True)
def delete_group(service: Service, call: Call, request: EmptyRequest, group: str) -> GroupView:
    """Remove a group with the grants to it; its members stay clients."""
    with service.change(call) as change:
        found = _group(change, call, group)
        view = _view(change, found)
        with keeping_approvers(change):
            groups.delete(change, found)
    return view


@operation(
    "PUT", "/api/v1/groups/<group>/members/<client_id>", permission=Permission.CLIENTS_MANAGE, checked_upfront=True
)
def add_group_member(service: Service, call: Call, request: EmptyRequest, group: str, client_id: str) -> GroupView:
    """Add a client to a group."""
    with service.change(call) as change:
        found = _group(change, call, group)
        clients.get(change, client_id)
        if _member(change, group, client_id) is None:
            change.insert(GroupMember(group, client_id))
        return _view(change, found)


@operation(
    "DELETE",
    "/api/v1/groups/<group>/members/<client_id>",
    permission=Permission.CLIENTS_MANAGE,
    checked_upfront=True,
)
def remove_group_member(service: Service, call: Call, request: EmptyRequest, group: str, client_id: str) -> GroupView:
    """Remove a client from a group; once this has answered, every worker knows it."""
    with service.change(call) as change:
        found = _group(change, call, group)
        member = _member(change, group, client_id)
        if member is None:
            raise NotFound("There is no such member of this group.")
        with keeping_approvers(change):
            change.delete(member)
        return _view(change, found)


def _group(snapshot: Snapshot, call: Call, name: str) -> Group:
    if not is_client_id(name):
        raise NotFound("There is no such group.")
    found = groups.get(snapshot, name)
    call.target = found.group_name
    return found


def _member(change: Change, group: str, client_id: str) -> GroupMember | None:
    return change.find(GroupMember, group, client_id) if is_client_id(client_id) else None


def _view(snapshot: Snapshot, group: Group) -> GroupView:
    return GroupView(
        group=group.group_name,
        members=[member.client_id for member in groups.members(snapshot, group.group_name)],
        description=group.description,
        created_at=group.created_at,
    )
