"""Who may do what: roles, ownership and grants. What is not allowed here is denied."""

from __future__ import annotations

from functools import cache

from kms.access.model import Caller, Role
from kms.enums import TextEnum
from kms.errors import PermissionDenied
from kms.keys.model import Usage


class Permission(TextEnum):
    """What an operation asks for."""

    KEYS_CREATE = "keys:create"
    KEYS_READ = "keys:read"
    KEYS_ROTATE = "keys:rotate"
    KEYS_REVOKE = "keys:revoke"
    KEYS_UPDATE = "keys:update"
    KEYS_DELETE = "keys:delete"
    KEYS_EXPORT = "keys:export"
    KEYS_ENCRYPT = "keys:encrypt"
    KEYS_DECRYPT = "keys:decrypt"
    KEYS_REWRAP = "keys:rewrap"
    KEYS_SIGN = "keys:sign"
    KEYS_VERIFY = "keys:verify"
    KEYS_MAC = "keys:mac"
    KEYS_VERIFY_MAC = "keys:verify-mac"
    KEYS_WRAP = "keys:wrap"
    KEYS_UNWRAP = "keys:unwrap"
    KEYS_DERIVE = "keys:derive"
    KEYS_AGREE = "keys:agree"
    KEYS_ENCAPSULATE = "keys:encapsulate"
    KEYS_DECAPSULATE = "keys:decapsulate"
    KEYS_SEAL = "keys:seal"
    KEYS_OPEN = "keys:open"
    KEYS_RECOVER = "keys:recover"
    KEYS_EXPORT_PLAINTEXT = "keys:export-plaintext"
    PRIMITIVES_USE = "primitives:use"
    REVOCATIONS_READ = "revocations:read"
    GRANTS_MANAGE = "grants:manage"
    SESSIONS_MANAGE = "sessions:manage"
    MOUNTS_MANAGE = "mounts:manage"
    NOTICES_MANAGE = "notices:manage"
    CLIENTS_READ = "clients:read"
    CLIENTS_MANAGE = "clients:manage"
    SECRETS_ROTATE = "secrets:rotate"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    APPROVALS_USE = "approvals:use"
    APPROVALS_MANAGE = "approvals:manage"


P = Permission
_EVERY_CLIENT = frozenset({P.REVOCATIONS_READ, P.SESSIONS_MANAGE, P.PRIMITIVES_USE, P.APPROVALS_USE})
USES = frozenset(
    {
        P.KEYS_ENCRYPT,
        P.KEYS_DECRYPT,
        P.KEYS_REWRAP,
        P.KEYS_SIGN,
        P.KEYS_VERIFY,
        P.KEYS_MAC,
        P.KEYS_VERIFY_MAC,
        P.KEYS_WRAP,
        P.KEYS_UNWRAP,
        P.KEYS_DERIVE,
        P.KEYS_AGREE,
        P.KEYS_ENCAPSULATE,
        P.KEYS_DECAPSULATE,
        P.KEYS_SEAL,
        P.KEYS_OPEN,
    }
)
"""What is done with a key rather than to it."""

PERMISSION: dict[Usage, Permission] = {usage: Permission(f"keys:{usage}") for usage in Usage}
"""What it takes to use a key for something."""

_OWNER = USES | frozenset(
    {
        P.KEYS_CREATE,
        P.KEYS_READ,
        P.KEYS_ROTATE,
        P.KEYS_REVOKE,
        P.KEYS_UPDATE,
        P.KEYS_DELETE,
        P.KEYS_EXPORT,
        P.GRANTS_MANAGE,
        P.NOTICES_MANAGE,
        P.SECRETS_ROTATE,
    }
)

OWN_KEYS: dict[Role, frozenset[Permission]] = {
    Role.ADMIN: _EVERY_CLIENT | _OWNER,
    Role.USER: _EVERY_CLIENT | _OWNER,
    Role.AUDITOR: _EVERY_CLIENT | {P.SECRETS_ROTATE},
}
"""What each role may do with what is its own."""

ANY_OWNER: dict[Role, frozenset[Permission]] = {
    # An administrator provides and withdraws keys for every client and uses none but its own.
    Role.ADMIN: frozenset(
        {
            P.KEYS_CREATE,
            P.KEYS_READ,
            P.KEYS_ROTATE,
            P.KEYS_REVOKE,
            P.KEYS_DELETE,
            P.MOUNTS_MANAGE,
            P.NOTICES_MANAGE,
            P.CLIENTS_READ,
            P.CLIENTS_MANAGE,
            P.SECRETS_ROTATE,
            P.AUDIT_READ,
            P.METRICS_READ,
            P.APPROVALS_MANAGE,
        }
    ),
    Role.USER: frozenset(),
    Role.AUDITOR: frozenset({P.KEYS_READ, P.CLIENTS_READ, P.AUDIT_READ, P.METRICS_READ}),
}
"""What each role may do with everybody's."""

GRANTABLE = USES | frozenset({P.KEYS_READ, P.KEYS_ROTATE})
"""What the owner of a key can let others do with it."""

BOUND_BY_CONTEXT = frozenset({P.KEYS_ENCRYPT, P.KEYS_DECRYPT})
"""What an encryption context can limit a grant of; a grant of anything else has no context."""

DENIABLE = frozenset(each for each in Permission if each.startswith("keys:"))
"""What an administrator can forbid: everything that is done with a key or to it."""

GRANTED_BY_ADMINISTRATORS = frozenset({P.KEYS_RECOVER, P.KEYS_EXPORT_PLAINTEXT})
"""What only an administrator can let somebody do, the owner included, who then still needs the owner's part."""


def has_permission(caller: Caller, permission: Permission) -> bool:
    """Whether `caller` has `permission` for its own objects, and for operations on none."""
    return is_in_scope(caller, permission) and by_role(caller, permission, None)


def is_in_scope(caller: Caller, permission: Permission) -> bool:
    """Whether the scope of the caller's session, if it has one, has this in it."""
    return caller.scope is None or caller.scope.allows(permission)


def require(caller: Caller, permission: Permission, owner: str | None = None) -> None:
    """Return if `caller` may do this with what belongs to `owner` (None: to nobody). Raises PermissionDenied."""
    if not is_in_scope(caller, permission):
        raise PermissionDenied(f"The scope of this session does not have {permission}.")
    if by_role(caller, permission, owner):
        return
    if has_permission(caller, permission):
        raise PermissionDenied(
            f"{caller.client_id} may do this for itself and not for {owner}: {permission} for other "
            "clients is for administrators."
        )
    raise PermissionDenied(f"{caller.client_id} may not do this: it needs {permission}.")


def require_over(caller: Caller, client_id: str, permission: Permission) -> None:
    """Return if `caller` may manage the credentials of `client_id`: its own, or with `permission` those of others.

    Raises PermissionDenied.
    """
    own = client_id == caller.client_id
    require(caller, Permission.SESSIONS_MANAGE if own else permission)


def by_role(caller: Caller, permission: Permission, owner: str | None) -> bool:
    """Whether a role, or owning it, lets `caller` do this with what belongs to `owner` (None: to nobody)."""
    is_own = owner is None or owner == caller.client_id
    return permission in (_own(caller.roles) if is_own else _any(caller.roles))


@cache
def _any(roles: frozenset[Role]) -> frozenset[Permission]:
    return frozenset().union(*(ANY_OWNER[role] for role in roles))


@cache
def _own(roles: frozenset[Role]) -> frozenset[Permission]:
    return _any(roles).union(*(OWN_KEYS[role] for role in roles))
