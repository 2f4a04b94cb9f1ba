"""Vault's words for types of keys and hashes, and ours."""

from __future__ import annotations

from kms.crypto.registry import KEY_TYPES

TYPES = {
    "aes128-gcm96": "aes-128-gcm",
    "aes256-gcm96": "aes-256-gcm",
    "chacha20-poly1305": "chacha20-poly1305",
    "xchacha20-poly1305": "xchacha20-poly1305",
    "ed25519": "ed25519",
    **{f"ecdsa-p{bits}": f"ec-p{bits}" for bits in (256, 384, 521)},
    **{f"rsa-{bits}": f"rsa-{bits}" for bits in (2048, 3072, 4096)},
    "hmac": "hmac-sha256",
}
"""The type of key for each of Vault's that there is here."""

NAMES = {native: name for name, native in TYPES.items()}
NAMES |= dict.fromkeys(("hmac-sha224", "hmac-sha384", "hmac-sha512"), "hmac")
_DERIVED, _CONVERGENT = "-derived", "-convergent"

HASHES = {
    **{f"sha2-{bits}": f"SHA-{bits}" for bits in (224, 256, 384, 512)},
    **{f"sha3-{bits}": f"SHA3-{bits}" for bits in (224, 256, 384, 512)},
}
"""Vault's names of digests, and ours."""

_SIGNED_HASHES = {"none": "", "sha1": "SHA-1", **HASHES}
_CURVES = {"ec-p256": ("sha2-256", "P-256"), "ec-p384": ("sha2-384", "P-384"), "ec-p521": ("sha2-512", "P-521")}
"""The hash that belongs to each curve, and Vault's name of a version on it."""


def native_of(name: str, *, derived: bool, convergent: bool) -> str | None:
    """Our type of key for one of Vault's, None where there is none."""
    native = TYPES.get(name)
    if native is None or not derived:
        return native
    native += _CONVERGENT if convergent else _DERIVED
    return native if native in KEY_TYPES else None


def name_of(key_type: str) -> str:
    """Vault's name of a type of key; for types that it does not have, ours."""
    plain = key_type.removesuffix(_DERIVED).removesuffix(_CONVERGENT)
    return NAMES.get(plain, key_type)


def is_derived(key_type: str) -> bool:
    """Whether keys of this type have another key for each context."""
    return key_type.endswith((_DERIVED, _CONVERGENT))


def is_convergent(key_type: str) -> bool:
    """Whether equal messages give equal ciphertexts under keys of this type."""
    return key_type.endswith(_CONVERGENT)


def hash_of(key_type: str) -> str:
    """The hash that a key of this type signs with where none is asked for."""
    return _CURVES.get(key_type, ("sha2-256", ""))[0]


def version_name(key_type: str) -> str:
    """What Vault calls a version of a key pair."""
    return _CURVES[key_type][1] if key_type in _CURVES else name_of(key_type)


def algorithm_of(key_type: str, hash_name: str, scheme: str) -> str | None:
    """Our name of the signature algorithm, None where the type does not sign so. `scheme` is pss or pkcs1v15."""
    digest = _SIGNED_HASHES.get(hash_name)
    if digest is None:
        return None
    if key_type.startswith("rsa"):
        family = {"pss": "RSASSA-PSS", "pkcs1v15": "RSASSA-PKCS1-v1_5"}.get(scheme)
        if family is None or (not digest and scheme == "pss"):
            return None
        return f"{family}-{digest}" if digest else family
    if key_type in _CURVES:
        return f"ECDSA-{digest}" if digest in HASHES.values() else None
    return {"ed25519": "Ed25519", "ed448": "Ed448"}.get(key_type) or (
        key_type.upper() if key_type.startswith("ml-dsa") else None
    )


def code_hash_of(key_type: str) -> str:
    """The hash with which a key makes codes where none is asked for."""
    return "sha2-" + key_type.removeprefix("hmac-sha") if key_type.startswith("hmac") else "sha2-256"
