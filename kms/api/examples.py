"""What the examples of the documentation use: keys, what is in paths, and requests that no declaration has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kms.operations import FromAnswerOf, Operation

KEYS: dict[str, dict[str, Any]] = {
    "signer": {"type": "ec-p256"},
    "coder": {"type": "hmac-sha256"},
    "deriver": {"type": "hmac-sha256", "usages": ["derive"]},
    "agreer": {"type": "ec-p256", "usages": ["agree"]},
    "capsule": {"type": "ml-kem-768"},
    "letterbox": {"type": "ml-kem-768-x25519"},
    "spare": {"type": "xaes-256-gcm"},
    "retired": {"type": "xaes-256-gcm"},
    "mrk-00112233445566778899aabbccddeeff": {"type": "xaes-256-gcm"},
}

"""The keys that the examples use beside `orders`, which the example of `create_key` makes."""

_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "OmCNO29xlvwFgL-iTz843daQBTPcHZ977Bz98thYEjc",
    "y": "koGYCPg4porEKQ8CZQb83kWGnmWKE8a7kdi6hro8al4",
}
"""A public key whose private half nobody has."""

_REQUESTS: dict[str, Mapping[str, Any]] = {
    "get_users_of_key": {"key_id": "orders"},
    "get_novelties": {"client_id": "admin"},
    "create_client": {"client_id": "user1"},
    "create_grant": {"subject": "client:user1", "permission": "keys:encrypt", "key_pattern": "orders"},
    "create_mount": {"mount": "team1"},
    "put_group": {"members": ["user1"], "description": "Who looks after orders"},
    "add_public_key": {"jwk": _JWK},
    "add_issuer": {"issuer": "https://localhost/ci", "audience": "kms", "jwks": {"keys": [_JWK]}},
    "update_issuer": {"jwks": {"keys": [_JWK]}},
    "add_issuer_role": {
        "role": "ci",
        "issuer": "https://localhost/ci",
        "claims": {"sub": "repo:org/app:*"},
        "client_id": "user1",
    },
    "simulate_policy": {
        "add": [{"subject": "client:user1", "permission": "keys:decrypt", "key_pattern": "orders"}],
        "since": "P7D",
    },
    "create_approval_rule": {
        "name": "destroy",
        "operations": ["delete_key", "destroy_version", "trim_key"],
        "approvals": 2,
        "approvers": ["role:admin"],
        "expires_in": "P1D",
    },
    "update_approval_rule": {"approvals": 1},
    "reject_call": {"reason": "Not this one"},
    "create_notice": {"url": "https://localhost/kms", "events": ["key.expiring", "key.revoked"]},
    "update_notice": {"key_pattern": "orders*"},
    "confirm_second_factor": {"code": "123456"},
    "rotate_key": {"key_id": "admin_symmetric"},
    "revoke_key": {"key_id": "admin_ecc"},
}

_REQUESTS["add_passkey"] = {
    "name": "my laptop",
    "response": {
        "id": "A" * 22,
        "rawId": "A" * 22,
        "type": "public-key",
        "response": {"clientDataJSON": "e30", "attestationObject": "oA"},
    },
}

_VARIABLES: dict[str, Any] = {
    "alias": "current",
    "client_id": "user1",
    "grant_id": FromAnswerOf("create_grant", "grant_id", "0" * 32),
    "mount": "team1",
    "leaf": "A" * 43,
    "tile": "0/x001/000",
    "version": 1,
    "group": "team",
    "role": "ci",
    "passkey_id": "0" * 32,
    "kid": FromAnswerOf("add_public_key", "kid", "16q-gLhoHDKcWbJIpHevU1Wl8pD4LWf70Xl5x2PwYOQ"),
    "issuer_id": FromAnswerOf("add_issuer", "issuer_id", "0" * 24),
    "session_id": "0" * 24,
    "thumbprint": "0" * 64,
    "notice_id": FromAnswerOf("create_notice", "notice_id", "0" * 24),
    "delivery_id": "0" * 32,
    "rule": "destroy",
    "approval_id": "0" * 32,
    "access_key_id": FromAnswerOf("create_access_key", "access_key_id", "AKIA" + "A" * 16),
}

ELSEWHERE = {
    "restore_key": "Into a vault where the key is not there any more; where it is, this is refused.",
    "passkey_creation_options": "By the client itself, within five minutes after a second factor.",
    "add_passkey": "By the client itself, with what a browser gave for its options.",
    "delete_passkey": "With the passkey_id of a passkey that `list_passkeys` shows.",
    "confirm_second_factor": "With a code that the authenticator app shows now, and that was not used yet.",
    "create_approval_rule": "Where there are two administrators beside the one who makes it.",
    "update_approval_rule": "Once the rule is there.",
    "delete_approval_rule": "Once the rule is there.",
    "get_approval": "With the approval_id of a call that waits.",
    "approve_call": "With the approval_id of a call of somebody else.",
    "reject_call": "With the approval_id of a call that waits.",
    "end_one_session": "With the session_id of a session that `list_sessions` shows.",
    "audit_checkpoint_cosigned": "Where there is a witness.",
    "audit_tile": "With a tile that the size in the checkpoint asks for.",
    "audit_proof": "With the leaf hash in `Audit-Leaf` of an answer, in base64url.",
    "retry_delivery": "With the delivery_id of a delivery that `list_deliveries` shows.",
}
"""Examples that are refused where they come after the others, and why."""

_KEY_OF = {
    "sign": "signer",
    "verify": "signer",
    "certificate_request": "signer",
    "get_public_key": "signer",
    "mac": "coder",
    "verify_mac": "coder",
    "derive": "deriver",
    "agree": "agreer",
    "encapsulate": "capsule",
    "decapsulate": "capsule",
    "seal": "letterbox",
    "open_sealed": "letterbox",
    "import_version": "partner",
    "rotate_key_version": "spare",
    "suspend_key": "spare",
    "resume_key": "spare",
    "revoke_key_versions": "retired",
    "trim_key": "spare",
    "destroy_version": "spare",
    "delete_key": "spare",
    "cancel_deletion": "spare",
    "import_material": "lent",
    "delete_material": "lent",
    "set_regions": "mrk-00112233445566778899aabbccddeeff",
}


def key_of(operation: str) -> str:
    """The key that the example of an operation uses."""
    return _KEY_OF.get(operation, "orders")


def request_of(operation: Operation) -> Mapping[str, Any] | None:
    """A request that works, its parts from earlier answers as `FromAnswerOf`; None where it needs none."""
    return operation.example if operation.example is not None else _REQUESTS.get(operation.name)


def variable_of(operation: Operation, name: str) -> Any:
    """What stands for a variable of the path, a `FromAnswerOf` where it comes from an earlier answer."""
    return key_of(operation.name) if name == "key_id" else _VARIABLES[name]


def sample(value: Any) -> Any:
    """`value`, or how it may look where it comes from an earlier answer."""
    return value.sample if isinstance(value, FromAnswerOf) else value
