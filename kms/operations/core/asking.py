"""What each operation can ask for, so that it is known which rules of approvals can cover it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import msgspec

from kms.access.model import Caller, Effect
from kms.access.policy import GRANTED_BY_ADMINISTRATORS, Permission
from kms.approvals.rules import Asking
from kms.crypto.rsa import RSA_OAEP
from kms.operations.core.declare import OPERATIONS, Operation

_STOPS = frozenset(
    {
        "delete_access_key",
        "delete_passkey",
        "delete_public_key",
        "disable_client",
        "end_certificate",
        "end_every_credential",
        "end_every_session",
        "end_one_session",
        "revoke_key",
        "revoke_key_versions",
        "revoke_named_key",
        "suspend_key",
    }
)
"""What stops things. It must be quick, and whoever makes a rule must not be able to keep it from others."""

_NOT_COVERED = _STOPS | {
    "add_passkey",
    "approve_call",
    "confirm_second_factor",
    "create_access_key",
    "end_session",
    "explain_policy",
    "passkey_creation_options",
    "reject_call",
    "simulate_policy",
}
"""Also logging in and what belongs to the session of who asks, questions, and approving itself."""


def can_be_covered(operation: Operation) -> bool:
    """Whether a rule can cover it: what changes or uses something, and not what only reads or logs in."""
    is_closed = not (operation.is_public or operation.is_token_endpoint) and operation.permission is not None
    return is_closed and operation.method != "GET" and operation.name not in _NOT_COVERED


_OF_CLIENT = "/<client_id>"
_Asks = Callable[[Any], bool]
_ALSO: dict[Permission, tuple[tuple[str, _Asks], ...]] = {
    Permission.KEYS_EXPORT_PLAINTEXT: (("export_key", lambda request: request.plaintext),),
    Permission.KEYS_DELETE: (
        ("delete_mount", lambda _: True),  # its keys go with it
        ("restore_key", lambda _: True),  # the key may be here, and awaits its deletion
    ),
    Permission.KEYS_DECRYPT: (
        ("rewrap", lambda request: _goes_elsewhere(request)),
        ("unwrap", lambda request: request.algorithm == RSA_OAEP),  # RSA decrypts so
    ),
    Permission.KEYS_ENCRYPT: (("rewrap", lambda request: _goes_elsewhere(request)),),
    Permission.KEYS_UNWRAP: (  # RSA decrypts as it unwraps
        ("decrypt", lambda request: request.format != "kms"),
        ("rewrap", lambda request: request.format != "kms"),
    ),
    Permission.KEYS_CREATE: (
        ("agree", lambda request: request.keep_as is not None),
        ("derive", lambda request: request.keep_as is not None),
    ),
    Permission.KEYS_ROTATE: (("update_key", lambda request: isinstance(request.rotation_period, timedelta)),),
    Permission.GRANTS_MANAGE: (  # an AWS key policy lets others use the key, as grants do
        ("update_key", lambda request: request.policy is not msgspec.UNSET),
        ("create_key", lambda request: bool(request.policy)),
        ("create_external_key", lambda request: bool(request.policy)),
        ("import_key", lambda request: bool(request.policy)),
        ("agree", lambda request: request.keep_as is not None and bool(request.keep_as.policy)),
        ("derive", lambda request: request.keep_as is not None and bool(request.keep_as.policy)),
    ),
}
"""What operations ask for beside what they declare, and which requests do."""


def asking() -> Asking:
    """Every operation that rules can cover, with all permissions that a call of it may ask for."""
    found = {}
    for each in filter(can_be_covered, OPERATIONS.values()):
        asks = _declared(each) | {wanted for wanted, some in _ALSO.items() if each.name in dict(some)}
        if "recover" in each.request.__struct_fields__:
            asks.add(Permission.KEYS_RECOVER)
        if each.name == "create_grant":
            asks |= GRANTED_BY_ADMINISTRATORS
        if _OF_CLIENT in each.path:
            asks.add(Permission.CLIENTS_MANAGE)
        found[each.name] = frozenset(asks)
    return found


def asked_for(operation: Operation, request: Any, path: Mapping[str, Any], caller: Caller) -> frozenset[Permission]:
    """The permissions that this call asks for. Giving away what only administrators give counts as asking for it.

    Whoever acts for another client than their own asks for `clients:manage`.
    """
    asks = _declared(operation)
    for wanted, some in _ALSO.items():
        if any(name == operation.name and asks_for_it(request) for name, asks_for_it in some):
            asks.add(wanted)
    if getattr(request, "recover", False) is True:
        asks.add(Permission.KEYS_RECOVER)
    if operation.name == "create_grant" and request.effect is Effect.ALLOW:
        asks |= GRANTED_BY_ADMINISTRATORS & (request.permissions | {request.permission})
    if _OF_CLIENT in operation.path and path["client_id"] != caller.client_id:
        asks.add(Permission.CLIENTS_MANAGE)
    return frozenset(asks)


def _declared(operation: Operation) -> set[Permission]:
    return {operation.permission} if operation.permission is not None else set()


def _goes_elsewhere(request: Any) -> bool:
    """Whether a ciphertext is brought under another key or other data, so that who asks may read it."""
    return request.to_key_id is not None or request.to_associated_data is not msgspec.UNSET
