"""Mounts in the Vault dialect: that of the settings, which has every key, and further ones, each with its names."""

from __future__ import annotations

from typing import Any

from kms.access.policy import Permission, require
from kms.api.transit.answers import Fault
from kms.api.transit.managing import DELETABLE
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import DELETE, READ, WRITE, Body, Done, route
from kms.errors import AlreadyExists, NotFound
from kms.keys.ids import is_mount
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.manage import ListKeysRequest
from kms.operations.system.mounts import CreateMountRequest


class MountBody(Body, kw_only=True):
    """What shall be mounted."""

    type: str = ""
    description: str | None = None


@route(READ, "sys/mounts")
def mounts(transit: TransitRequest, body: Body) -> Any:
    """Every mount there is."""
    further = transit.run("list_mounts", EmptyRequest()).items
    shown = {transit.service.settings.transit_mount: "keys of this service"}
    shown |= {each.mount: each.description for each in further}
    return {f"{mount}/": _shown(description) for mount, description in shown.items()}


@route(WRITE, "sys/mounts/<mount>", MountBody)
def mount_(transit: TransitRequest, body: MountBody, mount: str) -> Done:
    """Make a further mount, for administrators."""
    if body.type != "transit":
        raise Fault(f"plugin not found in the catalog: {body.type[:40]}; there is transit")
    try:
        transit.run("create_mount", CreateMountRequest(mount=mount, description=(body.description or "")[:256]))
    except AlreadyExists:
        raise Fault(f"path is already in use at {mount}/", problem="already-exists") from None
    return Done(status=204)


@route(DELETE, "sys/mounts/<mount>")
def unmount(transit: TransitRequest, body: Body, mount: str) -> Done:
    """Remove a mount with its keys, each of which must allow its deletion; they are gone after a day."""
    require(transit.call.known_caller, Permission.MOUNTS_MANAGE)
    if not is_mount(mount):
        raise NotFound("There is no such mount.")
    kept: list[str] = []
    cursor = None
    while True:
        page = transit.run("list_keys", ListKeysRequest(limit=1000, cursor=cursor, prefix=f"{mount}."))
        kept += [each.key_id for each in page.items if not each.deletion_at and each.labels.get(DELETABLE) != "true"]
        cursor = page.next_cursor
        if cursor is None:
            break
    if kept:
        raise Fault(f"deletion is not allowed for {', '.join(kept[:3])}{' and others' if len(kept) > 3 else ''}")
    transit.run("delete_mount", EmptyRequest(), mount=mount)
    return Done(status=204)


@route(READ, "sys/internal/ui/mounts/<mount>")
@route(READ, "sys/internal/ui/mounts/<mount>/<rest>")
def mount_of_path(transit: TransitRequest, body: Body, mount: str, rest: str = "") -> Any:
    """The mount of a path, as the command line asks for it."""
    known = {each.mount for each in transit.run("list_mounts", EmptyRequest()).items}
    if mount not in known | {transit.service.settings.transit_mount}:
        raise NotFound("There is no such mount.")
    return {"path": f"{mount}/", "type": "transit", "options": None}


def _shown(description: str) -> dict[str, Any]:
    return {
        "type": "transit",
        "description": description,
        "accessor": "transit",
        "config": {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False},
        "local": False,
        "seal_wrap": False,
        "options": None,
        "uuid": "",
    }
