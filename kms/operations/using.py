"""What every use of a key has in common: may the caller, can the key, and which version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from kms.access import policy
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.errors import OperationNotSupported
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
    service: Service, call: Call, key: Key, usage: Usage, *primitives: type[P], messages: int = 1
) -> tuple[int, P]:
    """The latest version of `key` and what computes with it, for so many messages.

    `primitives` names, for the type checker, those of the usage. Raises OperationNotSupported, and what the keyring
    raises for versions that may not be used.
    """
    number = key.latest_version
    loaded = _loaded(service, call, key, usage, number)
    limit = loaded.message_limit
    if limit is not None and service.messages.take(key, number, limit, messages):
        # It waited for the database: what was checked before may have been revoked meanwhile.
        loaded = _loaded(service, call, service.keyring.key(key.key_id), usage, number)
    return number, loaded.primitive  # type: ignore[return-value]  # the keyring has checked that


def processing(
    service: Service, call: Call, key: Key, usage: Usage, request: ProcessRequest, *primitives: type[P]
) -> tuple[int, P]:
    """As `protecting`, for undoing it: with the version that the request names."""
    number = request.version or key.latest_version
    if request.recover:
        call.recovery = True
        policy.require_on_key(call.known_caller, Permission.KEYS_RECOVER, key.owner, key.key_id)
    loaded = _loaded(service, call, key, usage, number, recovering=request.recover)
    return number, loaded.primitive  # type: ignore[return-value]  # the keyring has checked that


def require_usage(key: Key, usage: Usage) -> None:
    """Raise OperationNotSupported unless `key` was made for `usage`."""
    if usage not in key.usages:
        made_for = ", ".join(sorted(key.usages))
        raise OperationNotSupported(f"{key.key_id} is a key of type {key.type} for {made_for}, not for {usage}.")


def _loaded(
    service: Service, call: Call, key: Key, usage: Usage, number: int, *, recovering: bool = False
) -> LoadedVersion:
    if usage not in key.usages:
        require_usage(key, usage)
    if number <= key.latest_version:
        call.version = number
    return service.keyring.usable(key, number, usage, service.clock(), recovering=recovering)
