"""How strong a key version is: by its type, the length of its material, and where that came from."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import ColumnElement, or_

from kms.crypto.keytype import KeyType, SecretKeyType
from kms.crypto.quantum import Strength
from kms.crypto.registry import KEY_TYPES, key_type
from kms.keys.model import Key, KeyVersion, Origin
from kms.vault import tables
from kms.vault.sealing import SealBroken, length_of_sealed

_AGREED = "its secret was agreed on by Diffie-Hellman, whatever it is used for: Shor's algorithm finds it"


def secret_bits(version: KeyVersion) -> int:
    """How many bits the secret or private key has; of a type with one length, that length."""
    kind = key_type(version.type)
    if not (isinstance(kind, SecretKeyType) and kind.imports and version.material):
        return kind.secret_bits
    try:
        return 8 * length_of_sealed(version.material)
    except SealBroken:  # it was altered; whoever uses the key is told
        return kind.secret_bits


def strength_of(key: Key, version: KeyVersion) -> Strength:
    """The strength of a version. Raises OperationNotSupported for a type that this release does not know."""
    strength = key_type(version.type).strength_of(secret_bits(version))
    return replace(strength, category=0, source=_AGREED) if key.origin is Origin.AGREED else strength


def _has_short(kind: KeyType) -> bool:
    return isinstance(kind, SecretKeyType) and bool(kind.imports)


def perhaps_not_safe() -> ColumnElement[bool]:
    """Which versions may not be safe against quantum computers, as a criterion; `strength_of` says for certain."""
    safe = [kind.name for kind in KEY_TYPES.values() if kind.strength.is_post_quantum_safe and not _has_short(kind)]
    return or_(tables.key_versions.c.type.not_in(safe), tables.keys.c.origin == Origin.AGREED)
