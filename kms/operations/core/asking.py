"""What each operation can ask for, so that it is known which rules of approvals can cover it."""

from __future__ import annotations

import msgspec

from kms.access.policy import GRANTED_BY_ADMINISTRATORS, Permission
from kms.approvals.rules import Asking
from kms.operations.core.declare import OPERATIONS, Operation

_NOT_COVERED = frozenset(
    {
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
)
"""Logging in and what belongs to the session of who asks, questions, and approving itself."""


def can_be_covered(operation: Operation) -> bool:
    """Whether a rule can cover it: what changes or uses something, and not what only reads or logs in."""
    is_closed = not (operation.is_public or operation.is_token_endpoint) and operation.permission is not None
    return is_closed and operation.method != "GET" and operation.name not in _NOT_COVERED


def asking() -> Asking:
    """Every operation that rules can cover, with all permissions that a call of it may ask for."""
    found = {}
    for each in filter(can_be_covered, OPERATIONS.values()):
        members = {field.encode_name for field in msgspec.structs.fields(each.request)}
        asks = {each.permission} if each.permission is not None else set()
        if "recover" in members:
            asks.add(Permission.KEYS_RECOVER)
        if each.name == "export_key":
            asks.add(Permission.KEYS_EXPORT_PLAINTEXT)
        if each.name == "create_grant":
            asks |= GRANTED_BY_ADMINISTRATORS
        found[each.name] = frozenset(asks)
    return found
