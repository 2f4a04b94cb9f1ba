"""How a client wraps a key for the service."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from helpers.support import Api, b64
from kms.crypto import xwing
from kms.crypto.hpke import HpkeKey
from kms.crypto.pkcs8 import der_of_pem

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
X25519_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def wrapped_for(api: Api, material: bytes, algorithm: str = "HPKE") -> dict[str, str]:
    """The members of an import: a fresh wrapping key, and the material under it."""
    given = api.post("/api/v1/keys/import-wrapping-key", {"algorithm": algorithm}).json
    return {
        "wrapping_key_id": given["wrapping_key_id"],
        "wrapped_key": b64(wrap(given["public_key"], material, algorithm)),
    }


def wrap(public: str, material: bytes, algorithm: str) -> bytes:
    """What a client does with the public key, by the library and not by our own code where it can."""
    if algorithm == "HPKE-MLKEM768-X25519":
        return HpkeKey(xwing.load_public(der_of_pem(public, ""), "")).seal(material, b"")
    key: Any = load_pem_public_key(public.encode())
    if algorithm == "HPKE":
        return X25519_SUITE.encrypt(material, key, b"")
    if algorithm == "RSA-OAEP-256":
        return bytes(key.encrypt(material, OAEP))
    kek = bytes(range(32))
    return bytes(key.encrypt(kek, OAEP)) + aes_key_wrap_with_padding(kek, material)
