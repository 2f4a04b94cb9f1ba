"""The canonical form of a call: JSON with sorted members, what of it may be shown, and its SHA-256.

Members: `operation`, `path` (the variables of the path), `body` (the request as it was understood, with defaults),
`dialect` (`rest`, `aws`, `vault` or `console`), `action` in the dialect of AWS, and `salt` where a member of the body
is not shown. Without the salt, whoever sees the hash could find out a short secret by trying.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from kms.access.verification_key import PRIVATE_KEY_SENT, require_public
from kms.crypto import pkcs8, xwing
from kms.errors import ValidationFailed

REDACTED = {"redacted": True}
"""What is shown in the place of a member that may be secret."""

_SHOWN = frozenset(
    {
        "activate_at",
        "add",
        "add_labels",
        "algorithm",
        "approvals",
        "approvers",
        "audience",
        "aws_operations",
        "bits",
        "claims",
        "client_id",
        "compromised_at",
        "conditions",
        "context_equals",
        "context_subset",
        "cryptoperiod",
        "curve",
        "describe",
        "description",
        "digest",
        "dns_names",
        "effect",
        "events",
        "expires_at",
        "expires_in",
        "format",
        "group",
        "hash_algorithm",
        "issuer",
        "jwks_uri",
        "kdf",
        "keep_as",
        "key_id",
        "key_pattern",
        "labels",
        "length",
        "members",
        "min_process_version",
        "min_protect_version",
        "mount",
        "name",
        "oldest_version",
        "operations",
        "owner",
        "permission",
        "permissions",
        "policy",
        "primary",
        "reason",
        "region",
        "remove",
        "remove_labels",
        "retired_by",
        "role",
        "roles",
        "rotation_period",
        "scope",
        "signature_format",
        "status",
        "subject",
        "to_key_id",
        "token_lifetime",
        "type",
        "usages",
        "valid_until",
        "version",
        "waiting_period",
        "wrapping_key_id",
    }
)
"""The members of requests that hold no secret. Any other is shown only if it is a number, true, false or null."""

_PUBLIC_KEYS = frozenset({"peer_public_key", "public_key", "recipient_public_key"})
"""Members that are shown where they are a public key as PEM. Something else may have been sent by mistake."""

_PUBLIC_MEMBERS = frozenset(
    {"alg", "crv", "e", "key_ops", "kid", "kty", "n", "use", "x", "x5c", "x5t", "x5t#S256", "y"}
)
"""What is shown of a JWK (RFC 7517, RFC 7518 sections 6.2.1 and 6.3.1, RFC 8037)."""


@dataclass(frozen=True)
class CanonicalCall:
    """A call in its canonical form: the bytes, what of them is shown, and the SHA-256."""

    content: bytes
    shown: dict[str, Any]

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the form."""
        return sha256(self.content).digest()


def canonical(
    operation: str,
    path: Mapping[str, Any],
    request: msgspec.Struct,
    dialect: str,
    action: str,
    about: Mapping[str, Mapping[str, Any]] | None = None,
) -> CanonicalCall:
    """The canonical form of a call, with a new salt where something in it is not shown.

    `about` has for members that are not shown what is known of them and shown in their place.
    Raises ValidationFailed where a private key was sent in the place of a public one: it is not even kept.
    """
    body = msgspec.json.decode(msgspec.json.encode(request, order="deterministic"))  # sets have no order of their own
    shown = {name: _shown(name, value) for name, value in body.items()}
    for name, known in (about or {}).items():
        shown[name] = {**REDACTED, **known}
    document: dict[str, Any] = {"operation": operation, "path": dict(path), "body": body, "dialect": dialect}
    if action:
        document["action"] = action
    if shown != body:
        document["salt"] = secrets.token_hex(16)
    content = msgspec.json.encode(document, order="sorted")
    return CanonicalCall(content, {**{name: document[name] for name in document if name != "salt"}, "body": shown})


def same(content: bytes) -> bytes:
    """`content` without its salt: equal for calls that ask for the same."""
    document = msgspec.json.decode(content)
    document.pop("salt", None)
    return msgspec.json.encode(document, order="sorted")


def body_of(content: bytes, kind: type[msgspec.Struct]) -> Any:
    """The request in a canonical form. Raises msgspec.ValidationError where a later release takes no such request."""
    return msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(content)["body"]), type=kind)


def path_of(content: bytes) -> dict[str, Any]:
    """The variables of the path."""
    return dict(msgspec.json.decode(content)["path"])


def salt_of(content: bytes) -> str:
    """The salt; empty where everything is shown."""
    return str(msgspec.json.decode(content).get("salt", ""))


def _shown(name: str, value: Any) -> Any:
    """What is shown in the place of `value`. Raises ValidationFailed for a private key."""
    if name in _SHOWN or value is None or value == "" or isinstance(value, bool | int | float):
        return value
    if name == "jwk" and isinstance(value, dict):
        return _public_part(value)
    if name == "jwks" and isinstance(value, dict) and isinstance(value.get("keys"), list):
        keys = [_public_part(each) if isinstance(each, dict) else REDACTED for each in value["keys"]]
        return {each: keys if each == "keys" else REDACTED for each in value}
    return value if name in _PUBLIC_KEYS and _is_public_key(str(value), name) else REDACTED


def _public_part(jwk: dict[str, Any]) -> dict[str, Any]:
    require_public(jwk)
    return {name: value if name in _PUBLIC_MEMBERS else REDACTED for name, value in jwk.items()}


def _is_public_key(pem: str, member: str) -> bool:
    if "PRIVATE KEY" in pem:
        raise ValidationFailed(PRIVATE_KEY_SENT.format(member))
    try:
        xwing.load_public(pkcs8.der_of_pem(pem, member), member)
    except ValidationFailed:
        return False
    return True
