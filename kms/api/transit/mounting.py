"""Mounts in the Vault dialect: that of the settings, which has every key, and further ones, each with its names."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from kms.api.transit.answers import Fault, envelope
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import DELETE, READ, WRITE, Body, Done, route
from kms.errors import AlreadyExists, NotFound
from kms.operations.core.declare import EmptyRequest
from kms.operations.system.mounts import CreateMountRequest


class MountBody(Body, kw_only=True):
    """What shall be mounted."""

    type: str = ""
    description: str | None = None
    local: bool = False
    seal_wrap: bool = False
    external_entropy_access: bool = False


@route(READ, "sys/mounts")
def mounts(transit: TransitRequest, body: Body) -> Done:
    """Every mount there is."""
    further = transit.run("list_mounts", EmptyRequest()).items
    shown = {transit.service.settings.transit_mount: "keys of this service"}
    shown |= {each.mount: each.description for each in further}
    return listed(
        transit, {f"{mount}/": mounted("transit", mount, description) for mount, description in shown.items()}
    )


@route(WRITE, "sys/mounts/<mount>", MountBody)
def mount_(transit: TransitRequest, body: MountBody, mount: str) -> Done:
    """Make a further mount, for administrators."""
    if body.type != "transit":
        raise Fault(f"plugin not found in the catalog: {body.type[:40]}; there is transit")
    for name in ("local", "seal_wrap", "external_entropy_access"):
        if getattr(body, name):  # it would keep this mount apart in a way that is not here
            raise Fault(f"{name} is not supported")
    try:
        transit.run("create_mount", CreateMountRequest(mount=mount, description=(body.description or "")[:256]))
    except AlreadyExists:
        raise Fault(f"path is already in use at {mount}/", problem="already-exists") from None
    return Done(status=204)


@route(DELETE, "sys/mounts/<mount>")
def unmount(transit: TransitRequest, body: Body, mount: str) -> Done:
    """Remove a mount with its keys, which are refused every use at once and can be brought back for a day."""
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


def listed(transit: TransitRequest, data: dict[str, Any]) -> Done:
    """An answer whose entries stand both in the data and, as older programs read them, beside it."""
    return Done(bare={**envelope(transit.call.request_id, data), **data})


def mounted(kind: str, name: str, description: str) -> dict[str, Any]:
    """What is mounted under a name, as Vault shows it."""
    known = uuid5(NAMESPACE_URL, name)
    return {
        "type": kind,
        "description": description,
        "accessor": f"{kind}_{known.hex[:8]}",
        "uuid": str(known),
        "config": {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False},
        "options": None,
        "local": False,
        "seal_wrap": False,
        "external_entropy_access": False,
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "deprecation_status": "supported",
    }
