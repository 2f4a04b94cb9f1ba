"""What Vault clients ask about the service itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import field

from kms import __version__
from kms.access.decision import allows
from kms.access.policy import Permission, has_permission, require
from kms.api.transit.answers import Fault
from kms.api.transit.mounting import listed, mounted
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import LIST, READ, WRITE, Body, Done, route
from kms.clock import rfc3339
from kms.errors import NotFound
from kms.keys.ids import is_mount

_MOST_PATHS = 50


class PathsBody(Body, kw_only=True):
    """Which paths."""

    paths: list[str] = field(default_factory=list)
    path: list[str] | str = ""


@route(READ, "sys/health", is_public=True)
def health(transit: TransitRequest, body: Body) -> Done:
    """Whether this worker can answer."""
    transit.service.memory.require()
    return Done(
        bare={
            "initialized": True,
            "sealed": False,
            "standby": False,
            "performance_standby": False,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": int(transit.service.clock().timestamp()),
            "enterprise": False,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            **_cluster(transit),
        }
    )


@route(READ, "sys/init", is_public=True)
def initialized(transit: TransitRequest, body: Body) -> Done:
    """A service that runs has a vault."""
    return Done(bare={"initialized": True})


@route(READ, "sys/leader", is_public=True)
def leader(transit: TransitRequest, body: Body) -> Done:
    """Every node answers everything, so none leads."""
    return Done(
        bare={
            "ha_enabled": False,
            "is_self": False,
            "leader_address": "",
            "leader_cluster_address": "",
            "performance_standby": False,
        }
    )


@route(READ, "sys/seal-status", is_public=True)
def seal_status(transit: TransitRequest, body: Body) -> Done:
    """A process that serves is unsealed."""
    return Done(
        bare={
            "type": transit.service.settings.seal,
            "initialized": True,
            "sealed": False,
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "build_date": "",
            "migration": False,
            "recovery_seal": False,
            "storage_type": transit.service.vault.engine.dialect.name,
            **_cluster(transit),
        }
    )


@route(READ, "sys/key-status")
def key_status(transit: TransitRequest, body: Body) -> Any:
    """The root key is the first that the vault has had."""
    return {"term": 1, "install_time": rfc3339(transit.service.vault.made_at()), "encryptions": 0}


@route(READ, "sys/auth")
def auth_methods(transit: TransitRequest, body: Body) -> Done:
    """The ways to log in."""
    methods = {
        "approle/": "an access key and its secret",
        "cert/": "a client certificate",
        "jwt/": "tokens of trusted issuers",
        "kubernetes/": "tokens of service accounts",
        "token/": "tokens of sessions",
        "userpass/": "a client's secret and the code of its authenticator app",
    }
    return listed(
        transit, {path: mounted(path.rstrip("/"), path, description) for path, description in methods.items()}
    )


@route(READ, "sys/audit")
def audit_devices(transit: TransitRequest, body: Body) -> Done:
    """The audit log, for those who may read it."""
    require(transit.call.known_caller, Permission.AUDIT_READ)
    device = {"type": "file", "path": "audit/", "description": "the audit log", "options": {}, "local": False}
    return listed(transit, {"audit/": device})


@route(LIST, "sys/policies/acl/?")
def policies(transit: TransitRequest, body: Body) -> Any:
    """The one policy that every token has: what roles and grants say."""
    return {"keys": ["default"]}


@route(READ, "sys/policies/acl/<policy>")
def policy_(transit: TransitRequest, body: Body, policy: str) -> Any:
    """Where the rules are, for they are not written as Vault's."""
    if policy != "default":
        raise NotFound("There is no such policy.")
    return {"name": policy, "policy": "# Roles and grants decide: GET /api/v1/grants\n"}


def _cluster(transit: TransitRequest) -> dict[str, Any]:
    vault_id = transit.service.vault.derived_keys.vault_id
    return {"version": __version__, "cluster_name": "kms", "cluster_id": str(UUID(bytes=vault_id))}


@route(WRITE, "sys/capabilities-self", PathsBody)
def capabilities_self(transit: TransitRequest, body: PathsBody) -> Any:
    """What the caller may do at some paths, as far as a path says it."""
    given = body.path if isinstance(body.path, list) else [body.path]
    paths = [path for path in (*body.paths, *given) if path]
    if len(paths) > _MOST_PATHS:
        raise Fault(f"at most {_MOST_PATHS} paths")
    found = {path: _capabilities(transit, path) for path in paths}
    first = found[paths[0]] if paths else []
    return {**found, "capabilities": first}


_NEEDS = {
    "encrypt": Permission.KEYS_ENCRYPT,
    "decrypt": Permission.KEYS_DECRYPT,
    "rewrap": Permission.KEYS_REWRAP,
    "sign": Permission.KEYS_SIGN,
    "verify": Permission.KEYS_VERIFY,
    "hmac": Permission.KEYS_MAC,
    "keys": Permission.KEYS_READ,
}


def _capabilities(transit: TransitRequest, path: str) -> list[str]:
    parts = path.split("/")
    if len(parts) < 3 or parts[1] not in _NEEDS:
        return ["deny"]
    is_first = parts[0] == transit.service.settings.transit_mount
    if not is_first and not (is_mount(parts[0]) and transit.service.key_cache.is_mount(parts[0])):
        return ["deny"]
    caller = transit.call.known_caller
    key = transit.visible_key(parts[2] if is_first else f"{parts[0]}.{parts[2]}")
    if key is None:  # the same for another's key as for none
        return ["create"] if parts[1] == "keys" and has_permission(caller, Permission.KEYS_CREATE) else ["deny"]
    allowed = allows(caller, _NEEDS[parts[1]], key, transit.service.circumstances(transit.call))
    return (["read", "update"] if parts[1] == "keys" else ["update"]) if allowed else ["deny"]
