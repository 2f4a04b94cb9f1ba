"""Public keys: that of one key for whoever may see the key, and a client's verification keys for everybody."""

from __future__ import annotations

from typing import Any, Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import UNSET, UnsetType
from sqlalchemy import select

from kms.access.model import Client, ClientStatus
from kms.access.policy import Permission
from kms.crypto import jwk, pkcs8
from kms.errors import OperationNotSupported, Refusal, ValidationFailed
from kms.keys.ids import is_client_id
from kms.keys.lifecycle import require_in_force, require_in_range
from kms.keys.model import KeyVersion, Usage
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.key_access import VersionNumber, authorized_key
from kms.operations.core.service import Call, Service
from kms.vault import tables

_KEYS_PUBLISHED = 200


class PublicKeyRequest(Request):
    """`version` is by default the latest; `format` is PEM, JWK (RFC 7517) or SSH (RFC 4253)."""

    version: VersionNumber | None = None
    format: Literal["pem", "jwk", "ssh"] = "pem"


class PublicKeyAnswer(Answer):
    """A public key: `public_key` is its text in PEM or SSH form; with the format `jwk` there is the object `jwk`."""

    key_id: str
    version: int
    type: str
    format: str
    public_key: str | UnsetType = UNSET
    jwk: dict[str, Any] | UnsetType = UNSET


@operation(
    "GET",
    "/api/v1/keys/<key_id>/public-key",
    permission=Permission.KEYS_READ,
    request=PublicKeyRequest,
    example={"format": "pem"},
)
def get_public_key(service: Service, call: Call, request: PublicKeyRequest, key_id: str) -> PublicKeyAnswer:
    """Show the public half of a key."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_READ, key_id)
        number = request.version or key.latest_version
        version = snapshot.find(KeyVersion, key.uid, number) if number <= key.latest_version else None
    if version is None:
        raise ValidationFailed(f"version: {key.key_id} has versions {key.oldest_version} to {key.latest_version}.")
    if version.public_key is None:
        raise OperationNotSupported(f"{key.key_id} is a key of type {version.type}; it has no public half.")
    answer = PublicKeyAnswer(key_id=key.key_id, version=version.version, type=version.type, format=request.format)
    if request.format == "pem":
        answer.public_key = pkcs8.public_pem(version.public_key)
    elif request.format == "jwk":
        answer.jwk = jwk.public(version.public_key)
    else:
        answer.public_key = _ssh(version)
    return answer


def verification_keys(service: Service, owner: str) -> dict[str, Any]:
    """The JWK set (RFC 7517, section 5) of the keys with which `owner`'s signatures are verified now.

    At most the newest `_KEYS_PUBLISHED` versions, and only of pairs whose private half is here: others are not known
    to be the client's. Nothing is said about who is a client and who is not.
    """
    keys, versions = tables.keys.c, tables.key_versions.c
    if not is_client_id(owner):
        return {"keys": []}
    now = service.clock()
    published = []
    with service.vault.read() as snapshot:
        client = snapshot.find(Client, owner)
        if client is None or client.status is not ClientStatus.ENABLED:
            return {"keys": []}
        found = snapshot.select(
            KeyVersion,
            versions.key_uid.in_(select(keys.uid).where(keys.owner == owner, keys.usages.contains(Usage.VERIFY))),
            versions.public_key.is_not(None),
            versions.material.is_not(None),
            order_by=versions.created_at.desc(),
            limit=_KEYS_PUBLISHED,
        )
        of_these = snapshot.keys_with_latest(keys.uid.in_({version.key_uid for version in found}))
    key_of = {key.uid: (key, latest) for key, latest in of_these}
    for version in found:
        if version.key_uid not in key_of:
            continue  # deleted between the two queries
        key, latest = key_of[version.key_uid]
        try:
            require_in_range(key, version.version, Usage.VERIFY)
            require_in_force(key, version, latest, Usage.VERIFY, now)
        except Refusal:
            continue
        published.append({**jwk.public(version.public_key or b""), "use": "sig"})
    return {"keys": published}


def _ssh(version: KeyVersion) -> str:
    try:
        key = pkcs8.load_public(version.public_key or b"", "public_key")
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, ValidationFailed):
        raise ValidationFailed(f"format: SSH has no form for keys of type {version.type}.") from None
