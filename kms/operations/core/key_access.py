"""What every use of a key has in common: whether the caller may, whether the key can, and which version is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec

from kms.access import decision
from kms.access.policy import PERMISSION, Permission
from kms.access.ratelimit import RateClass
from kms.crypto.primitives import Mac
from kms.errors import OperationNotSupported, ValidationFailed
from kms.key_cache import Authorization, require_admitted
from kms.keys.model import Key, Usage
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service
from kms.vault.transaction import Snapshot

F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P")

_OF_ITSELF = frozenset({Usage.MAC, Usage.VERIFY_MAC, Usage.DERIVE})
VersionNumber = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ProcessRequest(Request):
    """`version` names the version of the key to use; by default the latest.

    `recover` allows a version that was revoked as compromised; the caller then also needs the permission
    `keys:recover`, which only administrators grant.
    """

    version: VersionNumber | None = None
    recover: bool = False


class UsedKey(Answer):
    """The id of the key, and the version of it, that were used."""

    key_id: str
    version: int


def key_operation(
    name: str,
    permission: Permission,
    request: type[Request],
    *,
    example: Mapping[str, Any],
    hot: bool = True,
    batch_function: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Declare an operation `POST /api/v1/keys/<key_id>/{name}` that uses a key, with the options all uses share."""
    return operation(
        "POST",
        f"/api/v1/keys/<key_id>/{name}",
        permission=permission,
        rate_class=RateClass.USE,
        request=request,
        hot=hot,
        batched=True,
        batch_function=batch_function,
        example=example,
    )


def authorized_key(
    service: Service, snapshot: Snapshot, call: Call, permission: Permission, name: str, *actions: str
) -> Key:
    """The key with the id or alias `name`, if the caller has `permission` on it. Notes the key's id in `call`.

    `actions` are the AWS names of what the caller asks for, where these depend on the request; each of them must be
    allowed. Raises NotFound or PermissionDenied.
    """
    key = snapshot.key_named(name)
    if key is None:
        raise decision.no_such_key(name)
    at = service.circumstances(call)
    for each in actions or (at.action,):
        decision.require_on_key(call.known_caller, permission, key, replace(at, action=each), asked_as=name)
    call.key_id = key.key_id
    return key


def authorized_key_cached(
    service: Service, call: Call, permission: Permission, name: str, items: Sequence[Any] = ()
) -> Key:
    """As `authorized_key`, without the database; `items` are the messages, as the permission can depend on them."""
    return _authorized(service, call, permission, name, items).key


def _authorized(
    service: Service,
    call: Call,
    permission: Permission,
    name: str,
    items: Sequence[Any],
    usage: Usage | None = None,
    version: int | None = None,
) -> Authorization:
    """Whether the caller may use the key, and the version to use; both are noted in `call` for the audit entry."""
    found = service.key_cache.authorize(
        call.known_caller,
        permission,
        name,
        call.began,
        usage,
        version,
        source=call.source,
        action=call.action or call.operation,
    )
    if not found.decision.is_for_any_message:
        require_admitted(found, call.known_caller, permission, items, partial(service.circumstances, call))
    key = found.key
    call.key_id = key.key_id
    if usage is not None and found.version <= key.latest_version:
        call.version = found.version
    return found


def key_to_protect(
    service: Service,
    call: Call,
    name: str,
    usage: Usage,
    *primitives: type[P],
    items: Sequence[Any] = (),
    count: int = 1,
    permission: Permission | None = None,
) -> tuple[Key, int, P]:
    """The key with the id or alias `name`, the number of its latest version, and that version's primitive.

    `items` are the messages, where the permission can depend on them; `count` is how many messages will be protected,
    for types with a limit per version. `primitives` only tells the type checker which types the primitive can have.
    Raises what `KeyCache.authorize` raises, and the Refusal that says why the version cannot be used.
    """
    wanted = permission or PERMISSION[usage]
    caller, now = call.caller, call.at
    assert caller is not None
    assert now is not None
    found = service.key_cache.authorize(
        caller, wanted, name, now, usage, source=call.source, action=call.action or call.operation
    )
    if found.is_limited:
        require_admitted(found, caller, wanted, items, partial(service.circumstances, call))
    if found.loaded is None or found.loaded.message_limit is not None:
        found = _counted(service, call, wanted, name, items, usage, count)
    assert found.loaded is not None
    call.key_id, call.version = found.key.key_id, found.version
    return found.key, found.version, found.loaded.primitive  # type: ignore[return-value]  # the cache has checked it


def _counted(
    service: Service,
    call: Call,
    permission: Permission,
    name: str,
    items: Sequence[Any],
    usage: Usage,
    count: int,
) -> Authorization:
    """As `_authorized`, where use is limited: checks each message, and counts it towards the version's limit."""
    found = _authorized(service, call, permission, name, items, usage)
    loaded = found.loaded
    if (
        loaded is not None
        and loaded.message_limit is not None
        and service.message_quota.claim(found.key, found.version, loaded.message_limit, count)
    ):
        # It waited for the database: what was checked before may have been revoked meanwhile.
        service.memory.require()
        found = _authorized(service, call, permission, name, items, usage)
    if found.loaded is None:
        assert found.refusal is not None
        raise found.refusal
    return found


def version_to_process(
    service: Service,
    call: Call,
    name: str,
    usage: Usage,
    request: ProcessRequest,
    *primitives: type[P],
    items: Sequence[Any] = (),
    permission: Permission | None = None,
) -> tuple[Key, int, P]:
    """As `key_to_protect`, for decrypting, verifying and the like: with the version that `request` names."""
    found = _authorized(service, call, permission or PERMISSION[usage], name, items, usage, request.version)
    key, loaded = found.key, found.loaded
    if request.recover:
        call.recovery = True
        decision.require_on_key(call.known_caller, Permission.KEYS_RECOVER, key, service.circumstances(call))
        loaded = service.key_cache.recoverable(name, found.version, usage, call.began)
    if loaded is None:
        assert found.refusal is not None
        raise found.refusal
    return key, found.version, loaded.primitive  # type: ignore[return-value]  # the cache has checked that


def code_key_of(
    service: Service, call: Call, name: str, permission: Permission, request: ProcessRequest | None = None
) -> tuple[Key, int, Mac]:
    """The key with the id or alias `name`, a version number, and a MAC key that is derived from that version.

    Without `request`, to make a code, it is the latest version; with it, to check a code, the version that it names.
    The version must still be usable for the key's own purpose. Raises what `version_to_process` raises, and
    ValidationFailed if the request asks to `recover`.
    """
    if request is not None and request.recover:
        raise ValidationFailed("recover: not for codes under a derived key.")
    since = service.memory.epoch
    key = authorized_key_cached(service, call, permission, name)
    if key.usages & _OF_ITSELF:
        # Whoever may use the key for HKDF could choose the same salt and so learn the derived MAC key.
        raise OperationNotSupported(f"{key.key_id} is a key for codes or for derivation itself.")
    usages = sorted(each for each in key.usages if each.protects or request is not None)
    if not usages:
        raise OperationNotSupported(f"{key.key_id} is not a key that protects anything.")
    usage = min(usages, key=lambda each: each.protects)  # to check a code, what processes, if there is any
    version = None if request is None else request.version
    found = _authorized(service, call, permission, name, (), usage, version)
    if found.loaded is None:
        assert found.refusal is not None
        raise found.refusal
    if found.loaded.is_public:
        raise OperationNotSupported(f"Of {key.key_id} only the public half is here, which makes no codes.")
    return found.key, found.version, service.key_cache.code_key(found.key, found.loaded.version, since)
