"""Who may do what: roles, ownership and grants. What is not allowed here is denied."""

from __future__ import annotations

from functools import cache

from kms.access.model import Caller, Grant, Role
from kms.enums import TextEnum
from kms.errors import NotFound, PermissionDenied
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
    CLIENTS_READ = "clients:read"
    CLIENTS_MANAGE = "clients:manage"
    SECRETS_ROTATE = "secrets:rotate"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"


P = Permission
_EVERY_CLIENT = frozenset({P.REVOCATIONS_READ, P.SESSIONS_MANAGE, P.PRIMITIVES_USE})
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
            P.CLIENTS_READ,
            P.CLIENTS_MANAGE,
            P.SECRETS_ROTATE,
            P.AUDIT_READ,
            P.METRICS_READ,
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

GRANTED_BY_ADMINISTRATORS = frozenset({P.KEYS_RECOVER, P.KEYS_EXPORT_PLAINTEXT})
"""What only an administrator can let somebody do, the owner included, who then still needs the owner's part."""


def has_permission(caller: Caller, permission: Permission) -> bool:
    """Whether `caller` may do this with what is its own or nobody's."""
    return _by_role(caller, permission, None)


def require(caller: Caller, permission: Permission, owner: str | None = None) -> None:
    """Return if `caller` may do this with what belongs to `owner` (None: to nobody). Raises PermissionDenied."""
    if _by_role(caller, permission, owner):
        return
    if has_permission(caller, permission):
        raise PermissionDenied(
            f"{caller.client_id} may do this for itself and not for {owner}: {permission} for other "
            "clients is for administrators."
        )
    raise PermissionDenied(f"{caller.client_id} may not do this: it needs {permission}.")


def require_on_key(
    caller: Caller,
    permission: Permission,
    owner: str,
    key_id: str,
    asked_as: str | None = None,
    associated_data: bytes | None = None,
) -> None:
    """Return if `caller` may do this with the key, which was asked for under its id or another name.

    Grants that ask for an encryption context count only where the `associated_data` is given.

    Raises NotFound if the caller may not know that the key exists, as for a missing key; otherwise PermissionDenied.
    """
    if not allows_on_key(caller, permission, owner, key_id, associated_data):
        raise denial(caller, permission, owner, key_id, asked_as)


def denial(
    caller: Caller, permission: Permission, owner: str, key_id: str, asked_as: str | None = None
) -> PermissionDenied | NotFound:
    """The refusal of a caller who may not do this with the key: as if there were none, if it may not see it."""
    if not may_see_key(caller, owner, key_id):
        return no_such_key(asked_as or key_id)
    return PermissionDenied(f"{caller.client_id} may not do this with {key_id}: it needs {permission}.")


def allows_on_key(
    caller: Caller, permission: Permission, owner: str, key_id: str, associated_data: bytes | None = None
) -> bool:
    """Whether role, ownership or a grant lets `caller` do this with the key, and with that associated data."""
    if _by_role(caller, permission, owner):
        return True
    return any(
        permission in grant.permissions
        and grant.covers(owner, key_id)
        and (permission not in BOUND_BY_CONTEXT or grant.admits(associated_data))
        for grant in caller.grants
    )


def limited_grants(caller: Caller, permission: Permission, owner: str, key_id: str) -> tuple[Grant, ...]:
    """The grants that let `caller` do this with the key for messages with some encryption context only."""
    if permission not in BOUND_BY_CONTEXT:
        return ()
    return tuple(grant for grant in caller.grants if permission in grant.permissions and grant.covers(owner, key_id))


def may_see_key(caller: Caller, owner: str, key_id: str) -> bool:
    """Whether `caller` may know that the key exists: any grant on it is enough."""
    if _by_role(caller, P.KEYS_READ, owner):
        return True
    return any(grant.covers(owner, key_id) for grant in caller.grants)


def no_such_key(key_id: str) -> NotFound:
    """The one answer for a key that is not there and for one that the caller may not see."""
    return NotFound(f"There is no key {key_id}.")


def _by_role(caller: Caller, permission: Permission, owner: str | None) -> bool:
    is_own = owner is None or owner == caller.client_id
    return permission in (_own(caller.roles) if is_own else _any(caller.roles))


@cache
def _any(roles: frozenset[Role]) -> frozenset[Permission]:
    return frozenset().union(*(ANY_OWNER[role] for role in roles))


@cache
def _own(roles: frozenset[Role]) -> frozenset[Permission]:
    return _any(roles).union(*(OWN_KEYS[role] for role in roles))
