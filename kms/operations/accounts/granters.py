"""Who may create grants on a key: its owner, unless the key's policy denies it, and whomever the policy allows."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from kms.access import key_rules
from kms.access.circumstances import Circumstances
from kms.access.decision import allows, may_see_key, no_such_key, require_on_key
from kms.access.model import Caller, Effect, Grant
from kms.access.policy import Permission
from kms.errors import PermissionDenied
from kms.keys.model import Key
from kms.operations.core.service import Call, Service
from kms.vault import tables
from kms.vault.transaction import Snapshot


@dataclass(frozen=True)
class AskedGrant:
    """What a key policy looks at in a requested grant; `operations` and `constraint` are as in AWS's CreateGrant."""

    owner: str
    key_pattern: str
    permissions: AbstractSet[Permission]
    subject: str
    retired_by: str | None
    operations: frozenset[str]
    constraint: str | None


def require_in_scope(caller: Caller, key_pattern: str, permissions: Iterable[Permission]) -> None:
    """Raise PermissionDenied if the caller's session has a scope that does not itself allow what would be granted."""
    for permission in sorted({Permission.GRANTS_MANAGE, *permissions}):
        if caller.scope is not None and not caller.scope.allows_on_all(permission, key_pattern):
            raise PermissionDenied(f"The scope of this session does not have {permission} on {key_pattern}.")


def is_in_scope(caller: Caller, grant: Grant) -> bool:
    """Whether the scope of the caller's session lets it manage grants on every key that this grant covers."""
    return caller.scope is None or caller.scope.allows_on_all(Permission.GRANTS_MANAGE, grant.key_pattern)


def require_granter(service: Service, snapshot: Snapshot, call: Call, asked: AskedGrant) -> None:
    """Return if the caller may create the grant. One whom only a key policy allows must have the permissions itself.

    Raises PermissionDenied or NotFound if the caller may not.
    """
    caller = call.known_caller
    at = _circumstances(service, call, asked)
    concerned = _concerned(snapshot, asked.owner, asked.key_pattern)
    if asked.owner == caller.client_id:
        for key in concerned:
            require_on_key(caller, Permission.GRANTS_MANAGE, key, at)
        return
    is_one = [key.key_id for key in concerned] == [asked.key_pattern]
    if not is_one or not allows(caller, Permission.GRANTS_MANAGE, concerned[0], at):
        raise PermissionDenied("Only their owner grants the use of keys.")
    for permission in sorted(asked.permissions):
        require_on_key(caller, permission, concerned[0], replace(service.circumstances(call), action=permission))


def is_denied(service: Service, snapshot: Snapshot, call: Call, grant: Grant) -> bool:
    """Whether the policy of any key that the grant covers denies the caller to list the grant or to end it."""
    caller, at = call.known_caller, service.circumstances(call)
    keys = _concerned(snapshot, grant.owner, grant.key_pattern) if grant.effect is Effect.ALLOW else []
    return any(key_rules.denies(caller, Permission.GRANTS_MANAGE, key, at) for key in keys)


def lets_handle(service: Service, snapshot: Snapshot, call: Call, grant: Grant) -> bool:
    """Whether a grant covers exactly one key, and that key's policy allows the caller to list or end the grant."""
    keys = _concerned(snapshot, grant.owner, grant.key_pattern) if grant.effect is Effect.ALLOW else []
    at = service.circumstances(call)
    return [key.key_id for key in keys] == [grant.key_pattern] and allows(
        call.known_caller, Permission.GRANTS_MANAGE, keys[0], at
    )


def on_key(service: Service, snapshot: Snapshot, call: Call, own: list[Grant], key_id: str) -> list[Grant]:
    """The grants on a key: those of `own` that cover it, and others that its policy lets the caller see.

    The oldest is first. Raises NotFound if the caller may not see the key.
    """
    key = snapshot.key_named(key_id)
    if key is None or not may_see_key(call.known_caller, key, service.circumstances(call)):
        raise no_such_key(key_id)
    found = {grant.grant_id: grant for grant in own if grant.covers(key.owner, key.key_id)}
    for grant in snapshot.matching(Grant, owner=key.owner, key_pattern=key.key_id) if key.policy else ():
        if lets_handle(service, snapshot, call, grant):
            found[grant.grant_id] = grant
    return sorted(found.values(), key=lambda grant: grant.created_at)


def _concerned(snapshot: Snapshot, owner: str, key_pattern: str) -> list[Key]:
    """The keys with a policy that a grant of that owner is about."""
    column = tables.keys.c
    begins, is_prefix = key_pattern.removesuffix("*"), key_pattern.endswith("*")
    named = column.key_id.startswith(begins, autoescape=True) if is_prefix else column.key_id == key_pattern
    return snapshot.select(Key, column.owner == owner, column.policy != "", named)


def _circumstances(service: Service, call: Call, asked: AskedGrant) -> Circumstances:
    account = service.settings.aws_account_id
    return replace(
        service.circumstances(call),
        action="CreateGrant",
        grant_operations=asked.operations,
        grantee=_arn(account, asked.subject),
        retiring=_arn(account, asked.retired_by) if asked.retired_by else None,
        grant_constraint=asked.constraint,
    )


def _arn(account: str, subject: str) -> str:
    """The ARN of a subject, as the AWS dialect has it."""
    kind, _, name = subject.partition(":")
    return f"arn:aws:iam::{account}:{'user' if kind == 'client' else kind}/{name}"
