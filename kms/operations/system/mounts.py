"""Further mounts of the Vault dialect. The ids of the keys in a mount begin with the mount's name and a dot."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from kms.access.decision import require_on_key
from kms.access.policy import Permission
from kms.errors import AlreadyExists, Conflict, NotFound, ValidationFailed
from kms.keys.ids import is_mount
from kms.keys.model import Alias, Key
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.keys.state_changes import released
from kms.revocation.revoke import publish_under_its_id
from kms.vault import tables
from kms.vault.rows import Mount

_WAIT = timedelta(days=1)
_RESERVED = frozenset({"sys", "auth", "cubbyhole", "identity"})


class CreateMountRequest(Request):
    """`mount` is a name of letters, digits, dashes and underscores, at most 32 characters."""

    mount: str
    description: Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00]*\Z")] = ""


class MountView(Answer):
    """A mount."""

    mount: str
    description: str
    created_at: datetime


class MountList(Answer):
    """Every mount except the one that is named in the settings."""

    items: list[MountView]
    next_cursor: str | None


@operation(
    "POST",
    "/api/v1/mounts",
    permission=Permission.MOUNTS_MANAGE,
    request=CreateMountRequest,
    status=201,
    checked_upfront=True,
    location="/api/v1/mounts/{mount}",
)
def create_mount(service: Service, call: Call, request: CreateMountRequest) -> MountView:
    """Make a mount of the Vault dialect."""
    if not is_mount(request.mount) or request.mount in _RESERVED:
        raise ValidationFailed("mount: letters, digits, dashes, underscores, 32 at the most; no name of Vault's.")
    made = Mount(request.mount, request.description, service.clock())
    with service.change(call) as change:
        if request.mount == service.settings.transit_mount or change.find(Mount, request.mount) is not None:
            raise AlreadyExists(f"There is a mount {request.mount} already.")
        keys, aliases = tables.keys.c.key_id, tables.aliases.c.alias
        for cls, column in ((Key, keys), (Alias, aliases)):
            inside = column.startswith(f"{request.mount}.", autoescape=True)
            if change.select(cls, inside, limit=1):  # it would go with the mount, which it was not made in
                raise Conflict(f"There are names that begin with {request.mount}. already; choose another mount.")
        call.target = request.mount
        change.insert(made)
    return _view(made)


@operation("GET", "/api/v1/mounts", permission=Permission.SESSIONS_MANAGE, checked_upfront=True)
def list_mounts(service: Service, call: Call, request: EmptyRequest) -> MountList:
    """List the mounts of the Vault dialect."""
    with service.vault.read() as snapshot:
        found = snapshot.select(Mount, order_by=tables.mounts.c.mount)
    return MountList(items=[_view(each) for each in found], next_cursor=None)


@operation("DELETE", "/api/v1/mounts/<mount>", permission=Permission.MOUNTS_MANAGE, checked_upfront=True)
def delete_mount(service: Service, call: Call, request: EmptyRequest, mount: str) -> MountView:
    """Delete a mount. Every use of its keys is refused at once, and after a day the keys are deleted.

    Their names are free at once. Until the keys are deleted, each can be brought back by cancelling its deletion.
    """
    with service.change(call) as change:
        found = change.find(Mount, mount) if is_mount(mount) else None
        if found is None:
            raise NotFound(f"There is no mount {mount}.")
        call.target = found.mount
        keys = tables.keys.c
        inside = keys.key_id.startswith(f"{found.mount}.", autoescape=True)
        going: list[tuple[Key, Key]] = []
        for key in change.select(Key, inside):
            require_on_key(call.known_caller, Permission.KEYS_DELETE, key, service.circumstances(call))
            deletion_at = key.deletion_at or service.clock() + _WAIT
            going.append((key, released(replace(key, deletion_at=deletion_at))))
        change.replace_all(going)
        for _, after in going:
            publish_under_its_id(change, after)
        column = tables.aliases.c
        change.delete(*change.select(Alias, column.alias.startswith(f"{found.mount}.", autoescape=True)), found)
    return _view(found)


def _view(mount: Mount) -> MountView:
    return MountView(mount=mount.mount, description=mount.description, created_at=mount.created_at)
