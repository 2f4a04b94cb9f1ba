"""What every use of a key has in common: may the caller, can the key, and which version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from kms.access import policy
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.errors import Refusal
from kms.keyring import LoadedVersion
from kms.keys.model import Key, Usage
from kms.operations.service import Call, Service
from kms.operations.table import Answer, Request, operation
from kms.vault.store import Snapshot

F = TypeVar("F", bound=Callable[..., Any])
P = TypeVar("P")

VersionNumber = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class ProcessRequest(Request):
    """`version` is the latest one unless another is given.

    `recover` asks for the use of a version that was revoked for compromise; it needs the permission
    `keys:recover`, which only administrators grant.
    """

    version: VersionNumber | None = None
    recover: bool = False


class UsedKey(Answer):
    """Which version of which key did it."""

    key_id: str
    version: int


def use(
    name: str,
    permission: Permission,
    request: type[Request],
    *,
    example: Mapping[str, Any],
    hot: bool = True,
    several: Callable[..., Any] | None = None,
) -> Callable[[F], F]:
    """Declare a use of a key: an operation with what all uses have in common."""
    return operation(
        "POST",
        f"/api/v1/keys/<key_id>/{name}",
        permission=permission,
        rate_class=RateClass.USE,
        request=request,
        hot=hot,
        batched=True,
        several=several,
        example=example,
    )


def authorised(snapshot: Snapshot, call: Call, permission: Permission, name: str) -> Key:
    """The key of that id or alias, if the caller may do this with it. Raises NotFound or PermissionDenied."""
    key = snapshot.key_named(name)
    if key is None:
        raise policy.no_such_key(name)
    policy.require_on_key(call.known_caller, permission, key.owner, key.key_id, asked_as=name)
    call.key_id = key.key_id
    return key


def usable_key(service: Service, call: Call, permission: Permission, name: str, bound: Sequence[Any] = ()) -> Key:
    """As `authorised`, from memory under the lease; `bound` are the messages, where it may depend on them."""
    key = service.keyring.permitted(call.known_caller, permission, name, bound)
    call.key_id = key.key_id
    return key


def protecting(
    service: Service,
    call: Call,
    name: str,
    usage: Usage,
    *primitives: type[P],
    bound: Sequence[Any] = (),
    messages: int = 1,
) -> tuple[Key, int, P]:
    """The key of that id or alias, its latest version and what computes with that, for so many messages.

    `bound` are the messages, where it may depend on them whether the caller may. `primitives` names, for the type
    checker, those of the usage. Raises what `usable_key` and the keyring raise.
    """
    try:
        ready = service.keyring.ready(call.known_caller, usage, name, call.at or service.clock())
    except Refusal:  # once more, step by step: how far it comes is to be recorded, and a message may yet allow it
        key = usable_key(service, call, policy.PERMISSION[usage], name, bound)
        return key, *latest(service, call, key, usage, *primitives, messages=messages)
    key, loaded = ready.key, ready.loaded
    call.key_id, call.version = key.key_id, key.latest_version
    if loaded.message_limit is not None:
        loaded = _counted(service, call, key, usage, loaded, messages)
    return key, key.latest_version, loaded.primitive  # type: ignore[return-value]  # the keyring has checked that


def latest(
    service: Service, call: Call, key: Key, usage: Usage, *primitives: type[P], messages: int = 1
) -> tuple[int, P]:
    """As `protecting`, where it was already decided that the caller may."""
    call.version = key.latest_version
    loaded = service.keyring.usable(key, key.latest_version, usage, call.at or service.clock())
    if loaded.message_limit is not None:
        loaded = _counted(service, call, key, usage, loaded, messages)
    return key.latest_version, loaded.primitive  # type: ignore[return-value]  # the keyring has checked that


def _counted(
    service: Service, call: Call, key: Key, usage: Usage, loaded: LoadedVersion, messages: int
) -> LoadedVersion:
    """The version again, so many messages counted of the limit that it has."""
    assert loaded.message_limit is not None
    if not service.messages.take(key, key.latest_version, loaded.message_limit, messages):
        return loaded
    # It waited for the database: what was checked before may have been revoked meanwhile.
    key_now = service.keyring.key(key.key_id)
    return service.keyring.usable(key_now, key.latest_version, usage, call.at or service.clock())


def processing(
    service: Service, call: Call, key: Key, usage: Usage, request: ProcessRequest, *primitives: type[P]
) -> tuple[int, P]:
    """As `latest`, for undoing it: with the version that the request names."""
    number = request.version or key.latest_version
    if request.recover:
        call.recovery = True
        policy.require_on_key(call.known_caller, Permission.KEYS_RECOVER, key.owner, key.key_id)
    if number <= key.latest_version:
        call.version = number
    loaded = service.keyring.usable(key, number, usage, call.at or service.clock(), recovering=request.recover)
    return number, loaded.primitive  # type: ignore[return-value]  # the keyring has checked that
