"""Groups of clients, so that a team is named once: `group:NAME` is a subject of grants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from kms.access.model import Grant
from kms.errors import NotFound
from kms.vault import names, tables
from kms.vault.change import Change
from kms.vault.records import stored_in
from kms.vault.transaction import Snapshot


@stored_in(tables.groups)
@dataclass(frozen=True, slots=True)
class Group:
    """A group, which may have no members."""

    group_name: str
    description: str
    created_at: datetime


@stored_in(tables.group_members)
@dataclass(frozen=True, slots=True)
class GroupMember:
    """That a client is in a group."""

    group_name: str
    client_id: str


names.bears(GroupMember, lambda member: names.of_client(member.client_id), when_added=True)


def get(snapshot: Snapshot, name: str) -> Group:
    """The group of that name. Raises NotFound."""
    found = snapshot.find(Group, name)
    if found is None:
        raise NotFound(f"There is no group {name}.")
    return found


def members(snapshot: Snapshot, name: str) -> list[GroupMember]:
    """Who is in the group."""
    return snapshot.matching(GroupMember, group_name=name, order_by="client_id")


def of_client(snapshot: Snapshot, client_id: str) -> frozenset[str]:
    """The names of the groups in which a client is."""
    return frozenset(member.group_name for member in snapshot.matching(GroupMember, client_id=client_id))


def set_members(change: Change, name: str, client_ids: frozenset[str]) -> None:
    """Have these clients in the group and no others."""
    before = {member.client_id: member for member in members(change, name)}
    change.delete(*(member for client_id, member in before.items() if client_id not in client_ids))
    change.insert(*(GroupMember(name, client_id) for client_id in sorted(client_ids - before.keys())))


def delete(change: Change, group: Group) -> None:
    """Remove a group, its members' part in it, and the grants to it."""
    change.delete(*members(change, group.group_name))
    change.delete(*change.matching(Grant, subject=names.of_group(group.group_name)))
    change.delete(group)


def forget_client(change: Change, client_id: str) -> None:
    """Take a client out of every group."""
    change.delete(*change.matching(GroupMember, client_id=client_id))
