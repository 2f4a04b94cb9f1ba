"""Signatures and message authentication codes. None of them touches the database."""

from __future__ import annotations

import hmac
from typing import Literal

from kms.access.policy import Permission
from kms.crypto.primitives import Mac, Scheme, Signer
from kms.errors import ValidationFailed
from kms.keys.model import Usage
from kms.operations.core.declare import FromAnswerOf, Request
from kms.operations.core.key_access import (
    ProcessRequest,
    UsedKey,
    code_key_of,
    key_operation,
    key_to_protect,
    version_to_process,
)
from kms.operations.core.service import Call, Service
from kms.operations.use.random_and_hash import DigestName

_SIGNATURE = "yX1rCzEJwyw5oH6sVJ1kF0yZpQ=="
_MAC = "9rVbHzqBJ8nXkZkMZJ7ZgqyVE7l6lU3GxqkKQwYQW5s="

SignatureFormat = Literal["p1363", "der"]


class SignRequest(Request):
    """Either the `message` or its `digest`, in base64; `algorithm` is a JOSE name, by default the key type's first.

    For ML-DSA `digest` is the message representative μ (FIPS 204), and `context` its context string.
    `signature_format` is for ECDSA: `p1363` is R ‖ S as in RFC 7518, `der` is the encoding that X.509 uses.
    """

    message: bytes | None = None
    digest: bytes | None = None
    algorithm: str | None = None
    context: bytes = b""
    signature_format: SignatureFormat = "p1363"


class SignAnswer(UsedKey, kw_only=True):
    """The signature in base64, and the algorithm that it was made with."""

    algorithm: str
    signature: bytes


class VerifyRequest(ProcessRequest, kw_only=True):
    """What was signed, the signature, and the same options as when it was signed."""

    signature: bytes
    message: bytes | None = None
    digest: bytes | None = None
    algorithm: str | None = None
    context: bytes = b""
    signature_format: SignatureFormat = "p1363"


class VerifyAnswer(UsedKey, kw_only=True):
    """Whether the signature or code is valid."""

    valid: bool


class MacRequest(Request):
    """`message` is what to authenticate; `hash_algorithm` is by default the digest of the key's type.

    `derived` true uses a MAC key that is derived from this key, for keys that were made for encrypting or signing.
    """

    message: bytes
    hash_algorithm: DigestName | None = None
    derived: bool = False


class MacAnswer(UsedKey, kw_only=True):
    """The message authentication code in base64, not truncated."""

    mac: bytes


class VerifyMacRequest(ProcessRequest, kw_only=True):
    """What was authenticated, its code, and the same options as when that was made."""

    message: bytes
    mac: bytes
    hash_algorithm: DigestName | None = None
    derived: bool = False


@key_operation("sign", Permission.KEYS_SIGN, SignRequest, example={"message": "aGVsbG8="})
def sign(service: Service, call: Call, request: SignRequest, key_id: str) -> SignAnswer:
    """Sign with the latest version of a key."""
    key, number, signer = key_to_protect(service, call, key_id, Usage.SIGN, Signer)
    message, scheme = _scheme(signer, request)
    signature = signer.sign(message, scheme)
    return SignAnswer(key_id=key.key_id, version=number, algorithm=scheme.algorithm, signature=signature)


@key_operation(
    "verify",
    Permission.KEYS_VERIFY,
    VerifyRequest,
    example={"message": "aGVsbG8=", "signature": FromAnswerOf("sign", "signature", _SIGNATURE)},
)
def verify(service: Service, call: Call, request: VerifyRequest, key_id: str) -> VerifyAnswer:
    """Say whether a signature is valid."""
    key, number, signer = version_to_process(service, call, key_id, Usage.VERIFY, request, Signer)
    message, scheme = _scheme(signer, request)
    valid = signer.verify(message, request.signature, scheme)
    return VerifyAnswer(key_id=key.key_id, version=number, valid=valid)


@key_operation("mac", Permission.KEYS_MAC, MacRequest, example={"message": "aGVsbG8="})
def mac(service: Service, call: Call, request: MacRequest, key_id: str) -> MacAnswer:
    """Make a message authentication code with the latest version of a key."""
    if request.derived:
        key, number, primitive = code_key_of(service, call, key_id, Permission.KEYS_MAC)
    else:
        key, number, primitive = key_to_protect(service, call, key_id, Usage.MAC, Mac)
    code = primitive.mac(request.message, request.hash_algorithm)
    return MacAnswer(key_id=key.key_id, version=number, mac=code)


@key_operation(
    "verify-mac",
    Permission.KEYS_VERIFY_MAC,
    VerifyMacRequest,
    example={"message": "aGVsbG8=", "mac": FromAnswerOf("mac", "mac", _MAC)},
)
def verify_mac(service: Service, call: Call, request: VerifyMacRequest, key_id: str) -> VerifyAnswer:
    """Say whether a message authentication code is valid."""
    if request.derived:
        key, number, primitive = code_key_of(service, call, key_id, Permission.KEYS_VERIFY_MAC, request)
    else:
        key, number, primitive = version_to_process(service, call, key_id, Usage.VERIFY_MAC, request, Mac)
    valid = hmac.compare_digest(primitive.mac(request.message, request.hash_algorithm), request.mac)
    return VerifyAnswer(key_id=key.key_id, version=number, valid=valid)


def _scheme(signer: Signer, request: SignRequest | VerifyRequest) -> tuple[bytes, Scheme]:
    algorithm = request.algorithm or signer.algorithms[0]
    if algorithm not in signer.algorithms and algorithm not in signer.further_algorithms:
        raise ValidationFailed(f"algorithm: this key signs with {', '.join(signer.algorithms)}.")
    if (request.message is None) == (request.digest is None):
        raise ValidationFailed("message, digest: give exactly one of the two.")
    prehashed = request.message is None
    message = request.digest if request.message is None else request.message
    assert message is not None
    return message, Scheme(algorithm, prehashed, request.context, request.signature_format == "der")
