"""The keys that the examples of the documentation use: what each is made with, and which operation uses which."""

from __future__ import annotations

from typing import Any

KEYS: dict[str, dict[str, Any]] = {
    "orders": {"type": "xaes-256-gcm", "exportable": True, "labels": {"env": "prod"}},
    "signer": {"type": "ec-p256"},
    "coder": {"type": "hmac-sha256"},
    "deriver": {"type": "hmac-sha256", "usages": ["derive"]},
    "agreer": {"type": "ec-p256", "usages": ["agree"]},
    "capsule": {"type": "ml-kem-768"},
    "letterbox": {"type": "ml-kem-768-x25519"},
    "spare": {"type": "xaes-256-gcm"},
    "mrk-00112233445566778899aabbccddeeff": {"type": "xaes-256-gcm"},
}

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
    "revoke_key_versions": "spare",
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
