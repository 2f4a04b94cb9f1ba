"""Keys in the Vault dialect: made, shown, listed, configured, rotated, trimmed, exported, deleted."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET

from kms.access.ratelimit import RateClass
from kms.api.transit import types
from kms.api.transit.answers import Fault
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import DELETE, LIST, READ, WRITE, Body, Done, route
from kms.api.transit.units import seconds
from kms.errors import AlreadyExists, NotFound
from kms.keys.model import Origin
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.listing import ListKeysRequest
from kms.operations.keys.manage import (
    LONGEST_PERIOD,
    CreateKeyRequest,
    ListVersionsRequest,
    UpdateKeyRequest,
)
from kms.operations.keys.state_changes import DeleteKeyRequest, RotateKeyVersionRequest, TrimKeyRequest
from kms.operations.keys.views import KeyView, VersionView

_DELETION = timedelta(days=1)
_HMAC_KEY_BYTES = 32
_ED25519_BYTES = 32


class CreateBody(Body, kw_only=True):
    """What the key shall be."""

    type: str = "aes256-gcm96"
    exportable: bool = False
    allow_plaintext_backup: bool = False
    derived: bool = False
    convergent_encryption: bool = False
    auto_rotate_period: str | int = 0
    key_size: int = 0


class ListBody(Body, kw_only=True):
    """Which part of a list: at most so many names (all where it is 0 or less) that come after one."""

    after: str = ""
    limit: int = 0


class ConfigBody(Body, kw_only=True):
    """What shall change."""

    min_decryption_version: int | None = None
    min_encryption_version: int | None = None
    deletion_allowed: bool | None = None
    exportable: bool | None = None
    allow_plaintext_backup: bool | None = None
    auto_rotate_period: str | int | None = None


class TrimBody(Body, kw_only=True):
    """The oldest version to keep."""

    min_available_version: int


@route(WRITE, "~/keys/<name>", CreateBody, RateClass.GENERATE)
def create(transit: TransitRequest, body: CreateBody, name: str) -> Any:
    """Make a key; as with Vault, one that is there already is left as it is."""
    request = new_key(body.type, name, derived=body.derived, convergent=body.convergent_encryption)
    request.exportable, request.rotation_period = body.exportable, _period(body.auto_rotate_period)
    if body.allow_plaintext_backup:
        request.labels = {BACKUP: "true"}
    if body.key_size not in (0, _HMAC_KEY_BYTES if body.type == "hmac" else 0):
        raise Fault(f"key_size: only for hmac keys, which have {_HMAC_KEY_BYTES} bytes here")
    try:
        view = transit.run("create_key", request)
    except AlreadyExists:
        view = transit.run("get_key", EmptyRequest(), key_id=name)
        # Nobody shall take another's key for his own, or a key that is going for one that stays.
        if view.owner != transit.call.known_caller.client_id or view.deletion_at is not None:
            raise Fault(f"the name {transit.name_of(name)} is taken", problem="already-exists") from None
    return shown(transit, view)


@route(READ, "~/keys/<name>")
def read(transit: TransitRequest, body: Body, name: str) -> Any:
    """Show a key."""
    return shown(transit, transit.run("get_key", EmptyRequest(), key_id=name))


@route(LIST, "~/keys/?", ListBody)
def list_(transit: TransitRequest, body: ListBody) -> Any:
    """List the keys that the caller may see."""
    found: list[str] = []
    cursor = None
    while True:
        page = transit.run("list_keys", ListKeysRequest(limit=1000, cursor=cursor, prefix=transit.prefix or None))
        found += [transit.name_of(each.key_id) for each in page.items if each.deletion_at is None]
        cursor = page.next_cursor
        if cursor is None:
            break
    found = sorted(each for each in found if each > body.after)
    if body.limit > 0:
        found = found[: body.limit]
    if not found:
        raise NotFound("no keys")
    return {"keys": found}


@route(DELETE, "~/keys/<name>")
def delete(transit: TransitRequest, body: Body, name: str) -> Done:
    """Delete a key: its name is free at once. For a day an administrator can still bring it back over REST."""
    _delete(transit, name, release_name=True)
    return Done(status=204)


@route(DELETE, "~/keys/<name>/soft-delete")
@route(WRITE, "~/keys/<name>/soft-delete")
def soft_delete(transit: TransitRequest, body: Body, name: str) -> Done:
    """Refuse a key every use at once; it and its versions are gone after a day, until which this can be undone."""
    _delete(transit, name, release_name=False)
    return Done(status=204)


def _delete(transit: TransitRequest, name: str, *, release_name: bool) -> None:
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    if view.labels.get(DELETABLE) != "true":
        raise Fault("deletion is not allowed for this key")
    request = DeleteKeyRequest(waiting_period=_DELETION, release_name=release_name)
    transit.run("delete_key", request, key_id=name)


@route(WRITE, "~/keys/<name>/soft-delete-restore")
def restore_deleted(transit: TransitRequest, body: Body, name: str) -> Done:
    """Keep a key that was to be deleted."""
    transit.run("cancel_deletion", EmptyRequest(), key_id=name)
    return Done(status=204)


@route(WRITE, "~/keys/<name>/config", ConfigBody)
def configure(transit: TransitRequest, body: ConfigBody, name: str) -> Any:
    """Change from which version on a key works, whether it can be deleted, and when it rotates by itself."""
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    request = UpdateKeyRequest()
    if body.min_decryption_version is not None or body.min_encryption_version is not None:
        request.min_process_version, request.min_protect_version = _lowest_versions(view, body)
    if body.deletion_allowed is not None:
        request.add_labels[DELETABLE] = str(body.deletion_allowed).lower()
    if body.allow_plaintext_backup:
        request.add_labels[BACKUP] = "true"
    if body.exportable:
        request.exportable = True  # neither can be taken back, as with Vault
    if body.auto_rotate_period is not None:
        request.rotation_period = _period(body.auto_rotate_period)
    return shown(transit, transit.run("update_key", request, key_id=name))


@route(WRITE, "~/keys/<name>/rotate", rate_class=RateClass.GENERATE)
def rotate(transit: TransitRequest, body: Body, name: str) -> Any:
    """Make the next version."""
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    if view.origin is Origin.IMPORTED and view.labels.get(ROTATES) != "true":
        raise Fault(_NO_ROTATION)
    return shown(transit, transit.run("rotate_key_version", RotateKeyVersionRequest(), key_id=name))


@route(WRITE, "~/keys/<name>/trim", TrimBody)
def trim(transit: TransitRequest, body: TrimBody, name: str) -> Any:
    """Remove old versions for ever."""
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    if body.min_available_version > view.min_process_version:
        raise Fault("cannot trim beyond min_decryption_version")
    request = TrimKeyRequest(oldest_version=max(1, body.min_available_version))
    return shown(transit, transit.run("trim_key", request, key_id=name))


def new_key(type_name: str, name: str, *, derived: bool = False, convergent: bool = False) -> CreateKeyRequest:
    """The request for a key of one of Vault's types, which does not expire by itself. Raises Fault."""
    return CreateKeyRequest(
        type=native_type(type_name, derived=derived, convergent=convergent),
        key_id=name,
        cryptoperiod=LONGEST_PERIOD,
        exportable_later=True,
    )


def native_type(type_name: str, *, derived: bool, convergent: bool) -> str:
    """Our type of key for one of Vault's. Raises Fault."""
    if convergent and not derived:
        raise Fault("convergent encryption requires derivation to be enabled")
    native = types.native_of(type_name, derived=derived, convergent=convergent)
    if native is None:
        raise Fault(f"unknown key type {type_name[:40]}, or one that is not derived here")
    return native


def _lowest_versions(view: KeyView, body: ConfigBody) -> tuple[int, int]:
    """From which version on a key decrypts, and from which it encrypts. Raises Fault."""
    decrypting, encrypting = body.min_decryption_version, body.min_encryption_version
    for name, given in (("min decryption version", decrypting), ("min encryption version", encrypting)):
        if given is not None and not 0 <= given <= view.latest_version:
            raise Fault(f"cannot set {name} of {given}: from 0 to the latest version, {view.latest_version}")
    lowest = view.min_process_version if decrypting is None else max(decrypting, 1)
    if lowest < view.oldest_version:
        raise Fault(f"cannot set min decryption version of {lowest}: trimmed up to {view.oldest_version - 1}")
    if encrypting is None:
        encrypting = view.min_protect_version if view.min_protect_version > view.min_process_version else 0
    if 0 < encrypting < lowest:
        raise Fault(f"min encryption version of {encrypting} is less than min decryption version of {lowest}")
    return lowest, encrypting or lowest


BACKUP = "vault.allow_plaintext_backup"
"""The label of a key whose owner has said so; what is backed up is sealed all the same."""

DELETABLE = "vault.deletion_allowed"
"""The label of a key that may be deleted."""

ROTATES = "vault.allow_rotation"
"""The label of an imported key of which the service may make versions by itself."""

_NO_ROTATION = "this key was imported without allow_rotation; import its next version"


def shown(transit: TransitRequest, view: KeyView) -> dict[str, Any]:
    """A key as Vault shows it."""
    versions = view.versions
    if view.latest_version - view.oldest_version >= len(versions):
        versions = []
        cursor = None
        while True:
            page = transit.run("list_versions", ListVersionsRequest(limit=1000, cursor=cursor), key_id=view.key_id)
            versions += page.items
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
    usages = set(view.usages)
    lowest = view.min_process_version
    derived = types.is_derived(view.type)
    of_derived = {"kdf": "hkdf_sha256", "convergent_encryption": types.is_convergent(view.type)} if derived else {}
    return {
        **of_derived,
        "name": transit.name_of(view.key_id),
        "type": types.name_of(view.type),
        "keys": {str(each.version): _version(each) for each in sorted(versions, key=lambda each: each.version)},
        "latest_version": view.latest_version,
        "min_available_version": view.oldest_version if view.oldest_version > 1 else 0,
        "min_decryption_version": lowest,
        "min_encryption_version": view.min_protect_version if view.min_protect_version > lowest else 0,
        "deletion_allowed": view.labels.get(DELETABLE) == "true",
        "soft_deleted": view.deletion_at is not None,
        "derived": derived,
        "exportable": view.exportable,
        "allow_plaintext_backup": view.labels.get(BACKUP) == "true",
        "auto_rotate_period": int(view.rotation_period.total_seconds()) if view.rotation_period else 0,
        "imported_key": view.origin == "imported",
        "supports_encryption": "encrypt" in usages,
        "supports_decryption": "decrypt" in usages,
        "supports_derivation": types.native_of(types.name_of(view.type), derived=True, convergent=False) is not None,
        "supports_signing": "sign" in usages,
    }


def _version(version: VersionView) -> Any:
    created = version.created_at.astimezone(UTC)
    if version.public_key is UNSET:
        return int(created.timestamp())
    shown = {"creation_time": _rfc3339(created), "name": types.version_name(version.type)}
    return {**shown, "public_key": public_key(version.type, version.public_key)}


def public_key(key_type: str, pem: str) -> str:
    """A public key as Vault shows it: the 32 bytes of an Ed25519 key in base64, all others in PEM."""
    if key_type != "ed25519":
        return pem
    der = b64decode("".join(pem.splitlines()[1:-1]))
    return b64encode(der[-_ED25519_BYTES:]).decode()


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _period(given: str | int) -> timedelta | None:
    """How often a key is to rotate, None for never. Raises Fault."""
    period = seconds(given, "auto_rotate_period")
    if 0 < period < 3600:
        raise Fault("auto rotate period must be 0 to disable or at least an hour")
    return timedelta(seconds=period) if period else None
