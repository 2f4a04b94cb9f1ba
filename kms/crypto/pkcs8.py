"""Private and public keys as DER: PKCS#8 (RFC 5958) and SubjectPublicKeyInfo (RFC 5280)."""

from __future__ import annotations

from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

K = TypeVar("K")


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


def public_der(key: PrivateKeyTypes | PublicKeyTypes) -> bytes:
    """The public half of `key` as SubjectPublicKeyInfo DER."""
    public = key.public_key() if hasattr(key, "public_key") else key
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_pem(der: bytes) -> str:
    """SubjectPublicKeyInfo DER as PEM text."""
    pem = load_der_public_key(der).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")
