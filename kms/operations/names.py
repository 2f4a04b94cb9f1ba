"""Aliases of keys, and their public halves."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import UNSET, UnsetType
from sqlalchemy import select

from kms.access.policy import Permission, allows_on_key
from kms.crypto import jwk, pkcs8
from kms.errors import AlreadyExists, NotFound, OperationNotSupported, Refusal, ValidationFailed
from kms.keys.ids import KeyId, is_client_id, is_key_id, reserved_for
from kms.keys.lifecycle import require_in_range, require_usable
from kms.keys.model import Alias, Key, KeyVersion, Usage
from kms.operations.keys import VersionNumber
from kms.operations.service import Call, Service
from kms.operations.table import Answer, Nothing, Request, operation
from kms.operations.using import authorised
from kms.vault import tables
from kms.vault.store import Change

_KEYS_PUBLISHED = 200


class SetAliasRequest(Request):
    """The key that the alias shall name."""

    key_id: KeyId


class ListAliasesRequest(Request):
    """A page of aliases in their order; `cursor` is the `next_cursor` of the page before."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    cursor: KeyId | None = None


class AliasView(Answer):
    """Another name of a key, good wherever a key id is."""

    alias: str
    key_id: str
    created_at: datetime


class AliasList(Answer):
    """A page of aliases."""

    items: list[AliasView]
    next_cursor: str | None


class PublicKeyRequest(Request):
    """Which version, and in which format: PEM, JWK (RFC 7517) or SSH (RFC 4253)."""

    version: VersionNumber | None = None
    format: Literal["pem", "jwk", "ssh"] = "pem"


class PublicKeyAnswer(Answer):
    """The public key: text, or for `jwk` an object."""

    key_id: str
    version: int
    type: str
    format: str
    public_key: str | UnsetType = UNSET
    jwk: dict[str, Any] | UnsetType = UNSET


@operation(
    "PUT",
    "/api/v1/aliases/<alias>",
    permission=Permission.KEYS_UPDATE,
    request=SetAliasRequest,
    example={"key_id": "orders"},
)
def set_alias(service: Service, call: Call, request: SetAliasRequest, alias: str) -> AliasView:
    """Give a key another name, or give that name to another key."""
    if not is_key_id(alias) or reserved_for(alias) is not None:
        raise ValidationFailed("alias: must look like a key id, and not like the name of a flat key.")
    with service.change(call) as change:
        key = authorised(change, call, Permission.KEYS_UPDATE, request.key_id)
        before = _of_caller(change, call, alias)
        if before is None and change.key_by_id(alias) is not None:
            raise AlreadyExists(f"There is a key {alias} already.")
        if before is None:
            after = Alias(alias, key.uid, service.clock())
            change.insert(after)
        else:
            after = change.replace(before, replace(before, key_uid=key.uid))
        change.outdates = True
    return AliasView(alias=alias, key_id=key.key_id, created_at=after.created_at)


@operation("GET", "/api/v1/aliases", permission=Permission.KEYS_READ, request=ListAliasesRequest, on_nothing=True)
def list_aliases(service: Service, call: Call, request: ListAliasesRequest) -> AliasList:
    """List the aliases of keys that the caller may see."""
    column = tables.aliases.c
    caller = call.known_caller
    found: list[AliasView] = []
    cursor = request.cursor
    with service.vault.read() as snapshot:
        while len(found) <= request.limit:
            criteria = [column.alias > cursor] if cursor is not None else []
            page = snapshot.select(Alias, *criteria, order_by=column.alias, limit=request.limit + 1)
            keys = {key.uid: key for key in snapshot.select(Key, tables.keys.c.uid.in_([a.key_uid for a in page]))}
            for each in page:
                key = keys.get(each.key_uid)
                if key is not None and allows_on_key(caller, Permission.KEYS_READ, key.owner, key.key_id):
                    found.append(AliasView(alias=each.alias, key_id=key.key_id, created_at=each.created_at))
            if len(page) <= request.limit:
                break
            cursor = page[-1].alias
    items = found[: request.limit]
    return AliasList(items=items, next_cursor=items[-1].alias if len(found) > len(items) else None)


@operation("DELETE", "/api/v1/aliases/<alias>", permission=Permission.KEYS_UPDATE)
def delete_alias(service: Service, call: Call, request: Nothing, alias: str) -> AliasView:
    """Take a name back; the key stays."""
    with service.change(call) as change:
        found = _of_caller(change, call, alias)
        if found is None:
            raise NotFound(f"There is no alias {alias}.")
        key = change.find(Key, found.key_uid)
        assert key is not None
        change.delete(found)
        change.outdates = True
    return AliasView(alias=alias, key_id=key.key_id, created_at=found.created_at)


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
        key = authorised(snapshot, call, Permission.KEYS_READ, key_id)
        version = snapshot.find(KeyVersion, key.uid, request.version or key.latest_version)
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

    At most the newest `_KEYS_PUBLISHED` versions. Nothing is said about who is a client and who is not.
    """
    keys, versions = tables.keys.c, tables.key_versions.c
    if not is_client_id(owner):
        return {"keys": []}
    with service.vault.read() as snapshot:
        found = snapshot.select(
            KeyVersion,
            versions.key_uid.in_(select(keys.uid).where(keys.owner == owner, keys.usages.contains(Usage.VERIFY))),
            versions.public_key.is_not(None),
            order_by=versions.created_at.desc(),
            limit=_KEYS_PUBLISHED,
        )
        of_these = snapshot.select(Key, keys.uid.in_({version.key_uid for version in found}))
        key_of = {key.uid: key for key in of_these}
    now = service.clock()
    published = []
    for version in found:
        try:
            require_in_range(key_of[version.key_uid], version.version, Usage.VERIFY)
            require_usable(version, Usage.VERIFY, now)
            published.append({**jwk.public(version.public_key or b""), "use": "sig"})
        except Refusal:
            continue
    return {"keys": published}


def _ssh(version: KeyVersion) -> str:
    try:
        key = pkcs8.load_public(version.public_key or b"", "public_key")
        return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, ValidationFailed):
        raise ValidationFailed(f"format: SSH has no form for keys of type {version.type}.") from None


def _of_caller(change: Change, call: Call, alias: str) -> Alias | None:
    """The alias, if the caller may change the key that it names. Raises as `authorised` does."""
    found = change.find(Alias, alias) if is_key_id(alias) else None
    if found is not None:
        authorised(change, call, Permission.KEYS_UPDATE, alias)
    return found
