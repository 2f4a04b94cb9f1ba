"""Who may use keys beside their owners: the clients, groups and roles that grants name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import UNSET, UnsetType
from sqlalchemy import or_

from kms.access import groups, policy
from kms.access.model import Caller, Effect, Grant
from kms.access.policy import USES, Permission
from kms.keys.model import Key
from kms.operations.core.declare import Answer
from kms.vault import tables
from kms.vault.transaction import Snapshot


class KeyUser(Answer):
    """A `subject` of grants: `client:NAME`, `group:NAME` or `role:NAME`; what it may do; and the members of a group.

    The members are shown to who may read groups, and left out for others.
    A grant that denies, or the conditions of one that allows, can still forbid it: `explain_policy` says.
    """

    subject: str
    permissions: list[str]
    members: list[str] | UnsetType = UNSET


def users_of(snapshot: Snapshot, caller: Caller, keys: Sequence[Key], now: datetime) -> Mapping[str, list[KeyUser]]:
    """Who may use each of `keys` by a grant that is not over, by key id, as shown to `caller`.

    An owner can give any group a grant, and is not told thereby who is in it.
    """
    reads_groups = policy.has_permission(caller, Permission.CLIENTS_READ)
    found: dict[str, dict[str, set[str]]] = {key.key_id: {} for key in keys}
    members: dict[str, list[str] | UnsetType] = {}
    for grant in _grants(snapshot, keys, now):
        permissions = grant.permissions & USES
        for key in keys:
            if permissions and grant.covers(key.owner, key.key_id):
                found[key.key_id].setdefault(grant.subject, set()).update(permissions)
                if grant.subject not in members:
                    members[grant.subject] = _members(snapshot, grant.subject, reads_groups)
    return {
        key_id: [
            KeyUser(subject=subject, permissions=sorted(permissions), members=members[subject])
            for subject, permissions in sorted(subjects.items())
        ]
        for key_id, subjects in found.items()
    }


def _grants(snapshot: Snapshot, keys: Iterable[Key], now: datetime) -> list[Grant]:
    column = tables.grants.c
    named = or_(column.key_pattern.in_({key.key_id for key in keys}), column.key_pattern.endswith("*"))
    owners = column.owner.in_({key.owner for key in keys})
    found = snapshot.select(Grant, owners, named, column.effect == Effect.ALLOW)
    return [grant for grant in found if grant.not_after is None or now < grant.not_after]


def _members(snapshot: Snapshot, subject: str, reads_groups: bool) -> list[str] | UnsetType:
    kind, _, name = subject.partition(":")
    if kind != "group":
        return []
    return [each.client_id for each in groups.members(snapshot, name)] if reads_groups else UNSET
