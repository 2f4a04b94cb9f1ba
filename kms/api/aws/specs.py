"""AWS's words for types of keys, what they are for and algorithms, and ours."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kms.keys.model import Usage
from kms.operations.use.encrypting import Form

SYMMETRIC = "SYMMETRIC_DEFAULT"

TYPES = {
    SYMMETRIC: "xaes-256-gcm",
    **{f"RSA_{bits}": f"rsa-{bits}" for bits in (2048, 3072, 4096)},
    **{f"ECC_NIST_P{bits}": f"ec-p{bits}" for bits in (256, 384, 521)},
    "ECC_SECG_P256K1": "ec-secp256k1",
    "ECC_NIST_EDWARDS25519": "ed25519",
    **{f"HMAC_{bits}": f"hmac-sha{bits}" for bits in (224, 256, 384, 512)},
    **{f"ML_DSA_{size}": f"ml-dsa-{size}" for size in (44, 65, 87)},
    **{f"ML_KEM_{size}": f"ml-kem-{size}" for size in (768, 1024)},
}
"""The type of key for each KeySpec that there is here."""

_SPECS = {
    **{native: spec for spec, native in TYPES.items()},
    **dict.fromkeys(("aes-128-gcm", "aes-256-gcm", "aes-256-gcm-siv", "aes-256-siv", "chacha20-poly1305"), SYMMETRIC),
}

USAGES = {
    "ENCRYPT_DECRYPT": frozenset({Usage.ENCRYPT, Usage.DECRYPT, Usage.WRAP, Usage.UNWRAP}),
    "SIGN_VERIFY": frozenset({Usage.SIGN, Usage.VERIFY}),
    "GENERATE_VERIFY_MAC": frozenset({Usage.MAC, Usage.VERIFY_MAC}),
    "KEY_AGREEMENT": frozenset({Usage.AGREE}),
    "ENCAPSULATE_DECAPSULATE": frozenset({Usage.ENCAPSULATE, Usage.DECAPSULATE}),
}
"""The usages of a key for each KeyUsage."""

_MARKS = {
    Usage.ENCRYPT: "ENCRYPT_DECRYPT",
    Usage.SIGN: "SIGN_VERIFY",
    Usage.VERIFY: "SIGN_VERIFY",
    Usage.MAC: "GENERATE_VERIFY_MAC",
    Usage.AGREE: "KEY_AGREEMENT",
    Usage.ENCAPSULATE: "ENCAPSULATE_DECAPSULATE",
}

_KEY_USAGES = {
    "RSA": ("ENCRYPT_DECRYPT", "SIGN_VERIFY"),
    "ECC_NIST_P": ("SIGN_VERIFY", "KEY_AGREEMENT"),
    "ECC": ("SIGN_VERIFY",),
    "HMAC": ("GENERATE_VERIFY_MAC",),
    "ML_DSA": ("SIGN_VERIFY",),
    "ML_KEM": ("ENCAPSULATE_DECAPSULATE",),
    SYMMETRIC: ("ENCRYPT_DECRYPT",),
}

LAST_USES = {
    "encrypt": "Encrypt",
    "wrap": "Encrypt",
    "seal": "Encrypt",
    "decrypt": "Decrypt",
    "unwrap": "Decrypt",
    "open_sealed": "Decrypt",
    "rewrap": "ReEncrypt",
    "data_key": "GenerateDataKey",
    "data_key_pair": "GenerateDataKeyPair",
    "derive": "GenerateDataKey",
    "sign": "Sign",
    "certificate_request": "Sign",
    "verify": "Verify",
    "mac": "GenerateMac",
    "verify_mac": "VerifyMac",
    "agree": "DeriveSharedSecret",
    "encapsulate": "Encapsulate",
    "decapsulate": "Decapsulate",
}
"""AWS's name for each use of a key, of those that it has the nearest."""

_RSA_SIGNING = {
    **{f"RSASSA_PKCS1_V1_5_SHA_{bits}": f"RS{bits}" for bits in (256, 384, 512)},
    **{f"RSASSA_PSS_SHA_{bits}": f"PS{bits}" for bits in (256, 384, 512)},
}
OAEP: dict[str, Form] = {"RSAES_OAEP_SHA_1": "rsa-oaep-sha1", "RSAES_OAEP_SHA_256": "raw"}
"""The format of ciphertexts for each algorithm of RSA."""


_OAEP_DIGEST_OCTETS = {"RSAES_OAEP_SHA_1": 20, "RSAES_OAEP_SHA_256": 32}


def most_octets(key_type: str, algorithm: str) -> int:
    """How much an RSA key encrypts with one of these algorithms, in octets (RFC 8017, section 7.1.1)."""
    return int(key_type.removeprefix("rsa-")) // 8 - 2 * _OAEP_DIGEST_OCTETS[algorithm] - 2


def spec_of(key_type: str) -> str:
    """The KeySpec of a type of key; for types that AWS does not have, our name of them."""
    return _SPECS.get(key_type, key_type)


class Typed(Protocol):
    """A key, or how one is shown."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def usages(self) -> Collection[Usage]:
        """What it was made for."""


def usage_of(key: Typed) -> str:
    """The KeyUsage of `key`; of one that is made for more, which AWS does not have, the first."""
    return next((_MARKS[usage] for usage in _MARKS if usage in key.usages), "ENCRYPT_DECRYPT")


def usages_for(spec: str) -> tuple[str, ...]:
    """What a key of that KeySpec can be made for."""
    return next(usages for prefix, usages in _KEY_USAGES.items() if spec.startswith(prefix))


def signing_algorithms(key_type: str) -> dict[str, str]:
    """AWS's names of the algorithms that a key of this type signs with, and ours."""
    if key_type.startswith("rsa"):
        return _RSA_SIGNING
    if key_type.startswith("ml-dsa"):
        return {"ML_DSA_SHAKE_256": key_type.upper()}
    return {
        "ec-p256": {"ECDSA_SHA_256": "ES256"},
        "ec-p384": {"ECDSA_SHA_384": "ES384"},
        "ec-p521": {"ECDSA_SHA_512": "ES512"},
        "ec-secp256k1": {"ECDSA_SHA_256": "ES256K"},
        "ed25519": {"ED25519_SHA_512": "Ed25519"},
    }.get(key_type, {})


def digest_octets(signing_algorithm: str) -> int:
    """How long what is signed is where it is not the message: a digest, or the 64 octets of ML-DSA's mu."""
    return 64 if signing_algorithm == "ML_DSA_SHAKE_256" else int(signing_algorithm.rpartition("_")[2]) // 8


def algorithms(key: Typed) -> dict[str, list[str]]:
    """The member that lists what `key` can do, with its value, as KeyMetadata and GetPublicKey have it."""
    usage = usage_of(key)
    if usage == "SIGN_VERIFY":
        return {"SigningAlgorithms": list(signing_algorithms(key.type))}
    if usage == "GENERATE_VERIFY_MAC":
        return {"MacAlgorithms": [mac_algorithm(key.type)]}
    if usage == "KEY_AGREEMENT":
        return {"KeyAgreementAlgorithms": ["ECDH"]}
    if usage == "ENCAPSULATE_DECAPSULATE":
        return {"EncapsulationAlgorithms": ["ML_KEM"]}
    return {"EncryptionAlgorithms": list(OAEP) if key.type.startswith("rsa") else [SYMMETRIC]}


def mac_algorithm(key_type: str) -> str:
    """AWS's name of the algorithm of an HMAC key."""
    return key_type.upper().replace("HMAC-SHA", "HMAC_SHA_")
