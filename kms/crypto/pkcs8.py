"""Private and public keys as DER: PKCS#8 (RFC 5958) and SubjectPublicKeyInfo (RFC 5280)."""

from __future__ import annotations

import base64
import textwrap
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from kms.errors import ValidationFailed

K = TypeVar("K")
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"
_LONGEST_PEM = 16_384


def private_der(key: PrivateKeyTypes) -> bytes:
    """`key` as unencrypted PKCS#8 DER, to be sealed by the vault at once."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def load_private(der: bytes, kind: type[K]) -> K:
    """The private key in PKCS#8 `der`, which the vault has authenticated; it must be a `kind`."""
    # The vault authenticated these bytes and generation checked the key: repeating the primality tests on
    # each load would cost 100 ms for RSA-4096.
    key = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(key).__name__}")
    return key


def halves(key: Any) -> tuple[Any, Any]:
    """The private key, None where `key` is a public one, and the public key."""
    return (key, key.public_key()) if hasattr(key, "public_key") else (None, key)


def public_der(key: PrivateKeyTypes | PublicKeyTypes) -> bytes:
    """The public half of `key` as SubjectPublicKeyInfo DER."""
    return bytes(halves(key)[1].public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def public_pem(der: bytes) -> str:
    """SubjectPublicKeyInfo DER as PEM text (RFC 7468)."""
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([_BEGIN, *lines, _END, ""])


def der_of_pem(pem: str, member: str) -> bytes:
    """The DER in one PEM public key. Raises ValidationFailed naming `member`."""
    text = pem.strip()
    body = text.removeprefix(_BEGIN).removesuffix(_END)
    refusal = ValidationFailed(f"{member}: send one public key as PEM, {_BEGIN} first.")
    if len(pem) > _LONGEST_PEM or len(body) != len(text) - len(_BEGIN) - len(_END):
        raise refusal
    try:
        return base64.b64decode("".join(body.split()).encode("ascii"), validate=True)
    except ValueError:
        raise refusal from None


def load_public(der: bytes, member: str) -> PublicKeyTypes:
    """The public key in `der`, which came from outside. Raises ValidationFailed naming `member`."""
    try:
        return load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise ValidationFailed(f"{member}: not a valid public key of a kind that is known here.") from None
