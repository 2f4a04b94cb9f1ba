"""What Vault clients ask beside keys: logins, their own token, health, mounts."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC
from typing import Any

from msgspec import field

from kms import __version__
from kms.access.authentication import Credentials
from kms.access.policy import Permission, allows_on_key, has_permission
from kms.access.ratelimit import RateClass
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import READ, WRITE, Body, Done, route
from kms.errors import MfaRequired
from kms.keys.ids import is_mount
from kms.operations.accounts.sessions import TokenRequest
from kms.operations.core.declare import EmptyRequest

_MOST_PATHS = 50
_POLICIES = ["default"]


class LoginBody(Body, kw_only=True):
    """A client's secret and the code of its authenticator app."""

    password: str
    totp: str | None = None
    passcode: str | None = None


class PathsBody(Body, kw_only=True):
    """Which paths."""

    paths: list[str] = field(default_factory=list)
    path: list[str] | str = ""


class RenewBody(Body, kw_only=True):
    """For how long; an expiry is fixed when a token is issued, so nothing comes of it."""

    increment: str | int = 0


@route(WRITE, "auth/userpass/login/<client_id>", LoginBody, RateClass.AUTHENTICATE, is_public=True)
def login(transit: TransitRequest, body: LoginBody, client_id: str) -> Done:
    """Give out a session token for a secret and a second factor."""
    service, call = transit.service, transit.call
    code = body.totp or body.passcode
    if code is None:
        raise MfaRequired("Add totp with the code of the authenticator app.")
    presented = Credentials(client_id, body.password[:1024], totp_code=code[:1024])
    with transit.slow() if presented.is_passphrase else nullcontext():
        call.caller = service.authenticate(presented, call.source)
    answer = transit.run("issue_token", TokenRequest())
    auth = {
        "client_token": answer.access_token,
        "accessor": "",
        "policies": _POLICIES,
        "token_policies": _POLICIES,
        "metadata": {"username": client_id},
        "lease_duration": answer.expires_in,
        "renewable": False,
        "entity_id": client_id,
        "token_type": "service",
        "orphan": True,
        "mfa_requirement": None,
        "num_uses": 0,
    }
    return Done(auth=auth)


@route(READ, "auth/token/lookup-self")
def lookup_self(transit: TransitRequest, body: Body) -> Any:
    """Show what the token is."""
    token = transit.call.known_caller.token
    assert token is not None  # there is no other way in
    left = int((token.expires_at - transit.service.clock()).total_seconds())
    return {
        "accessor": "",
        "creation_time": int(token.issued_at.timestamp()),
        "creation_ttl": int((token.expires_at - token.issued_at).total_seconds()),
        "display_name": f"userpass-{token.client_id}",
        "entity_id": token.client_id,
        "expire_time": token.expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "explicit_max_ttl": int((token.expires_at - token.issued_at).total_seconds()),
        "id": "",
        "issue_time": token.issued_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "meta": {"username": token.client_id},
        "num_uses": 0,
        "orphan": True,
        "path": f"auth/userpass/login/{token.client_id}",
        "policies": _POLICIES,
        "renewable": False,
        "ttl": max(left, 0),
        "type": "service",
    }


@route(WRITE, "auth/token/renew-self", RenewBody)
def renew_self(transit: TransitRequest, body: RenewBody) -> Done:
    """Say how long the token still lasts; that was fixed when it was issued."""
    token = transit.call.known_caller.token
    assert token is not None
    left = int((token.expires_at - transit.service.clock()).total_seconds())
    auth = {
        "client_token": "",
        "accessor": "",
        "policies": _POLICIES,
        "token_policies": _POLICIES,
        "metadata": {"username": token.client_id},
        "lease_duration": max(left, 0),
        "renewable": False,
        "entity_id": token.client_id,
        "token_type": "service",
        "orphan": True,
    }
    return Done(auth=auth)


@route(WRITE, "auth/token/revoke-self")
def revoke_self(transit: TransitRequest, body: Body) -> Done:
    """End the session, on every worker, before this answers."""
    transit.run("end_session", EmptyRequest())
    return Done(status=204)


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
            "server_time_utc": int(transit.service.clock().timestamp()),
            "version": __version__,
            "cluster_name": "kms",
        }
    )


@route(READ, "sys/init", is_public=True)
def initialized(transit: TransitRequest, body: Body) -> Done:
    """A service that runs has a vault."""
    return Done(bare={"initialized": True})


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
            "version": __version__,
            "cluster_name": "kms",
            "recovery_seal": False,
        }
    )


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
    allowed = allows_on_key(caller, _NEEDS[parts[1]], key.owner, key.key_id)
    return (["read", "update"] if parts[1] == "keys" else ["update"]) if allowed else ["deny"]
