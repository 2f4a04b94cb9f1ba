"""Keys that come and go in the Vault dialect: import, export, from one key store to another, backups."""

from __future__ import annotations

import base64
from typing import Any

from msgspec import UNSET

from kms.access.ratelimit import RateClass
from kms.api.transit import types
from kms.api.transit.answers import Fault
from kms.api.transit.managing import ROTATES, native_type, public_key
from kms.api.transit.request import TransitRequest
from kms.api.transit.routes import READ, WRITE, Body, Done, route
from kms.api.transit.units import b64, bytes_of
from kms.operations.core.declare import EmptyRequest
from kms.operations.keys.manage import LONGEST_PERIOD
from kms.operations.keys.views import KeyView
from kms.operations.transfer.backups import RestoreRequest
from kms.operations.transfer.exporting import ExportKeyRequest
from kms.operations.transfer.importing import STANDING, ImportKeyRequest, ImportVersionRequest

_EXPORTS = frozenset({"encryption-key", "signing-key", "hmac-key"})
_HASHES = ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512")


class ImportBody(Body, kw_only=True):
    """A key wrapped under the wrapping key, or a public key alone."""

    ciphertext: str = ""
    public_key: str | None = None
    hash_function: str = "SHA256"
    type: str = "aes256-gcm96"
    derived: bool = False
    convergent_encryption: bool = False
    exportable: bool = False
    allow_rotation: bool = False
    allow_plaintext_backup: bool = False


class RestoreBody(Body, kw_only=True):
    """What `backup` gave."""

    backup: str
    force: bool = False


@route(READ, "~/wrapping_key", rate_class=RateClass.GENERATE)
def wrapping_key(transit: TransitRequest, body: Body) -> Any:
    """Give the public key under which keys are imported."""
    return {"public_key": transit.run("get_standing_wrapping_key", EmptyRequest()).public_key}


@route(WRITE, "~/keys/<name>/import", ImportBody, RateClass.GENERATE)
def import_(transit: TransitRequest, body: ImportBody, name: str) -> Done:
    """Make a key of material that was wrapped by RSA-OAEP and AES-KWP, or of a public key alone."""
    request = ImportKeyRequest(
        type=native_type(body.type, derived=body.derived, convergent=body.convergent_encryption),
        key_id=name,
        cryptoperiod=LONGEST_PERIOD,
        exportable=body.exportable,
        exportable_later=True,
        labels={ROTATES: "true"} if body.allow_rotation else {},
        **_arriving(body),
    )
    transit.run("import_key", request)
    return Done(status=204)


@route(WRITE, "~/keys/<name>/import_version", ImportBody, RateClass.GENERATE)
def import_version(transit: TransitRequest, body: ImportBody, name: str) -> Done:
    """Make the next version of an imported key."""
    transit.run("import_version", ImportVersionRequest(**_arriving(body)), key_id=name)
    return Done(status=204)


@route(READ, "~/byok-export/<destination>/<name>", rate_class=RateClass.GENERATE)
@route(READ, "~/byok-export/<destination>/<name>/<version>", rate_class=RateClass.GENERATE)
def byok_export(transit: TransitRequest, body: Body, destination: str, name: str, version: str | None = None) -> Any:
    """Give an exportable key out under an RSA key, which is another key store's wrapping key."""
    to = transit.run("get_key", EmptyRequest(), key_id=destination)
    if not to.type.startswith("rsa"):
        raise Fault("the destination must be an RSA key, such as the wrapping key of another key store")
    recipient = to.versions[-1].public_key
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    wanted = {}
    for each in view.versions:
        if each.version >= view.min_process_version:
            request = ExportKeyRequest(recipient_public_key=recipient, version=each.version)
            wanted[each.version] = b64(transit.run("export_key", request, key_id=name).wrapped_key)
    return _versions(transit, view, wanted, version)


@route(READ, "~/export/<kind>/<name>", rate_class=RateClass.GENERATE)
@route(READ, "~/export/<kind>/<name>/<version>", rate_class=RateClass.GENERATE)
def export(transit: TransitRequest, body: Body, kind: str, name: str, version: str | None = None) -> Any:
    """Give an exportable key out in plaintext, which needs the permission that administrators grant for that."""
    view = transit.run("get_key", EmptyRequest(), key_id=name)
    if kind == "public-key":
        wanted = {
            each.version: public_key(each.type, each.public_key)
            for each in view.versions
            if each.public_key is not UNSET
        }
    elif kind == "hmac-key" and not view.type.startswith("hmac"):
        raise Fault("the key for codes of a key that is for something else is derived from it and never leaves")
    elif kind in _EXPORTS:
        wanted = {}
        for each in view.versions:
            if each.version >= view.min_process_version:
                request = ExportKeyRequest(plaintext=True, version=each.version)
                answer = transit.run("export_key", request, key_id=name)
                wanted[each.version] = _exported(answer.key, answer.format)
    else:
        raise Fault("invalid export type")
    return _versions(transit, view, wanted, version)


@route(READ, "~/backup/<name>", rate_class=RateClass.GENERATE)
def backup(transit: TransitRequest, body: Body, name: str) -> Any:
    """Give a key with all its versions out, sealed so that only a restoration opens it."""
    answer = transit.run("backup_key", EmptyRequest(), key_id=name)
    return {"backup": base64.b64encode(answer.backup).decode()}


@route(WRITE, "~/restore", RestoreBody, RateClass.GENERATE)
@route(WRITE, "~/restore/<name>", RestoreBody, RateClass.GENERATE)
def restore(transit: TransitRequest, body: RestoreBody, name: str | None = None) -> Done:
    """Bring a key back from its backup, under its own name."""
    try:
        sealed = base64.b64decode(body.backup, validate=True)
    except ValueError:
        raise Fault("failed to base64-decode backup") from None
    if name is not None or body.force:
        raise Fault("a key comes back under its own name, and never over another")
    transit.run("restore_key", RestoreRequest(backup=sealed))
    return Done(status=204)


def _arriving(body: ImportBody) -> dict[str, Any]:
    """The members of an import that say what comes. Raises Fault."""
    if body.public_key is not None:
        if body.ciphertext:
            raise Fault("only one of ciphertext and public_key can be set")
        return {"public_key": body.public_key}
    if body.hash_function not in _HASHES:
        raise Fault(f"hash_function must be one of {', '.join(_HASHES)}")
    return {
        "wrapping_key_id": STANDING,
        "wrapped_key": bytes_of(body.ciphertext, "ciphertext"),
        "algorithm": f"RSA_AES_KEY_WRAP_SHA_{body.hash_function[3:]}",
    }


def _versions(transit: TransitRequest, view: KeyView, keys: dict[int, Any], version: str | None) -> dict[str, Any]:
    """All of `keys`, or the version that was asked for. Raises Fault."""
    if version is not None:
        number = view.latest_version if version == "latest" else int(version) if version.isdecimal() else 0
        keys = {number: keys[number]} if number in keys else {}
    if not keys:
        raise Fault("version does not exist or cannot be found")
    return {
        "name": transit.name_of(view.key_id),
        "type": types.name_of(view.type),
        "keys": {str(n): key for n, key in keys.items()},
    }


def _exported(material: bytes, form: str) -> str:
    encoded = b64(material)
    if form != "pkcs8":
        return encoded
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""])
