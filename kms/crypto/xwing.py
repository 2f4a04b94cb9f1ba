"""The hybrid of ML-KEM-768 and X25519, known as X-Wing (draft-connolly-cfrg-xwing-kem) and, in HPKE, as KEM 0x647A.

A private key is a 32-byte seed, which SHAKE256 expands to the seed of ML-KEM-768 and the scalar of X25519. A
public key is the one of ML-KEM-768 ‖ the one of X25519. The library knows no encoding for either, so here are
those of the draft: both bare in PKCS#8 and SubjectPublicKeyInfo, under the OID 1.3.6.1.4.1.62253.25722.
"""

from __future__ import annotations

import os
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from kms.crypto import montgomery, pkcs8
from kms.crypto.keytype import KeyType
from kms.errors import ValidationFailed

_SEED_BYTES = 32
_MLKEM_BYTES, _X25519_BYTES = 1184, 32
_ALGORITHM = bytes.fromhex("300d060b2b0601040183e62d81c87a")  # SEQUENCE { OBJECT IDENTIFIER }
_PKCS8 = b"\x30\x34\x02\x01\x00" + _ALGORITHM + b"\x04\x20"
_SPKI = b"\x30\x82\x04\xd4" + _ALGORITHM + b"\x03\x82\x04\xc1\x00"


class XWingType(KeyType):
    """The type of such keys; the vault keeps PKCS#8."""

    formats = ("pkcs8", "raw")
    secret_bits = 8 * _SEED_BYTES

    def generate(self) -> bytes:
        return _PKCS8 + os.urandom(_SEED_BYTES)

    def load(self, material: bytes) -> object:
        return self.primitive(MLKEM768X25519PrivateKey(*_expanded(material)))

    def load_public(self, spki: bytes) -> object:
        return self.primitive(_public(spki))

    def public_key(self, material: bytes) -> bytes:
        kem, dh = _expanded(material)
        return _SPKI + kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()

    def owns(self, public: Any) -> bool:
        return isinstance(public, MLKEM768X25519PublicKey)

    def checked_public(self, spki: bytes) -> bytes:
        _public(spki)
        return spki

    def _imported(self, encoded: bytes, form: str) -> bytes:
        material = _PKCS8 + encoded if form == "raw" else encoded
        if len(material) != len(_PKCS8) + _SEED_BYTES or not material.startswith(_PKCS8):
            raise ValidationFailed(f"wrapped_key: not a valid {form} key of type {self.name}.")
        return material

    def _exported(self, material: bytes, form: str) -> bytes:
        return material.removeprefix(_PKCS8) if form == "raw" else material


def load_public(spki: bytes, member: str) -> PublicKeyTypes | MLKEM768X25519PublicKey:
    """As `pkcs8.load_public`, for public keys of this type too."""
    return _public(spki) if spki.startswith(_SPKI) else pkcs8.load_public(spki, member)


def _expanded(material: bytes) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
    shake = hashes.Hash(hashes.SHAKE256(96))
    shake.update(material.removeprefix(_PKCS8))
    expanded = shake.finalize()
    return (
        mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def _public(spki: bytes) -> MLKEM768X25519PublicKey:
    raw = spki.removeprefix(_SPKI)
    refusal = ValidationFailed("public_key: not a key of ML-KEM-768 with X25519.")
    if len(spki) != len(_SPKI) + len(raw) or len(raw) != _MLKEM_BYTES + _X25519_BYTES:
        raise refusal
    try:
        kem = mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_BYTES])
    except ValueError:
        raise refusal from None
    dh = x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_BYTES:])
    montgomery.validate(dh)
    return MLKEM768X25519PublicKey(kem, dh)
