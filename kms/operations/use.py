"""Using keys: encrypt, decrypt, sign, verify. These touch no database."""

from __future__ import annotations

from typing import TypeVar

from kms.access import policy
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto import envelope
from kms.crypto.primitives import Cipher, Signer
from kms.errors import DecryptionFailed, OperationNotSupported, ValidationFailed
from kms.keyring import LoadedVersion
from kms.keys.model import Key, Usage
from kms.operations.service import Call, Service
from kms.operations.table import Answer, Request, operation

P = TypeVar("P")


class EncryptRequest(Request):
    """`plaintext` and `associated_data` in base64; the latter is not kept and must be given again to decrypt."""

    plaintext: bytes
    associated_data: bytes = b""


class EncryptAnswer(Answer):
    """`ciphertext` in base64, in the format of docs/reference/formats.md."""

    key_id: str
    version: int
    ciphertext: bytes


class DecryptRequest(Request):
    """`ciphertext` as `encrypt` gave it."""

    ciphertext: bytes
    associated_data: bytes = b""


class DecryptAnswer(Answer):
    """`plaintext` in base64."""

    key_id: str
    version: int
    plaintext: bytes


class SignRequest(Request):
    """Either the `message` or its `digest`, in base64; `algorithm` is a JOSE name."""

    message: bytes | None = None
    digest: bytes | None = None
    algorithm: str | None = None


class SignAnswer(Answer):
    """`signature` in base64, in the form of RFC 7518: ECDSA is R ‖ S."""

    key_id: str
    version: int
    algorithm: str
    signature: bytes


class VerifyRequest(Request):
    """What was signed and the signature; `version` is the latest one unless another is given."""

    signature: bytes
    message: bytes | None = None
    digest: bytes | None = None
    algorithm: str | None = None
    version: int | None = None


class VerifyAnswer(Answer):
    """Whether the signature is valid."""

    key_id: str
    version: int
    valid: bool


@operation(
    "POST",
    "/api/v1/keys/<key_id>/encrypt",
    permission=Permission.KEYS_ENCRYPT,
    rate_class=RateClass.USE,
    request=EncryptRequest,
    hot=True,
)
def encrypt(service: Service, call: Call, request: EncryptRequest, key_id: str) -> EncryptAnswer:
    """Encrypt with the latest version of a key."""
    key = _authorised(service, call, Permission.KEYS_ENCRYPT, key_id)
    loaded, cipher = _usable(service, call, key, key.latest_version, Usage.ENCRYPT, Cipher)
    number = loaded.version.version
    sealed = envelope.seal(cipher, key.uid, number, request.plaintext, request.associated_data)
    return EncryptAnswer(key_id=key_id, version=number, ciphertext=sealed)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/decrypt",
    permission=Permission.KEYS_DECRYPT,
    rate_class=RateClass.USE,
    request=DecryptRequest,
    hot=True,
)
def decrypt(service: Service, call: Call, request: DecryptRequest, key_id: str) -> DecryptAnswer:
    """Decrypt with the version that encrypted."""
    key = _authorised(service, call, Permission.KEYS_DECRYPT, key_id)
    _require_usage(key, Usage.DECRYPT)  # before the ciphertext is looked at
    parts = envelope.parse(request.ciphertext)
    if parts.key_uid != key.uid or not 1 <= parts.version <= key.latest_version:
        raise DecryptionFailed("The ciphertext did not open.")
    loaded, cipher = _usable(service, call, key, parts.version, Usage.DECRYPT, Cipher)
    plaintext = envelope.open_(cipher, parts, request.associated_data)
    return DecryptAnswer(key_id=key_id, version=loaded.version.version, plaintext=plaintext)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/sign",
    permission=Permission.KEYS_SIGN,
    rate_class=RateClass.USE,
    request=SignRequest,
    hot=True,
)
def sign(service: Service, call: Call, request: SignRequest, key_id: str) -> SignAnswer:
    """Sign with the latest version of a key."""
    key = _authorised(service, call, Permission.KEYS_SIGN, key_id)
    loaded, signer = _usable(service, call, key, key.latest_version, Usage.SIGN, Signer)
    message, prehashed = _signed_part(request)
    algorithm = _algorithm(signer, request.algorithm)
    signature = signer.sign(message, algorithm, prehashed=prehashed)
    return SignAnswer(key_id=key_id, version=loaded.version.version, algorithm=algorithm, signature=signature)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/verify",
    permission=Permission.KEYS_VERIFY,
    rate_class=RateClass.USE,
    request=VerifyRequest,
    hot=True,
)
def verify(service: Service, call: Call, request: VerifyRequest, key_id: str) -> VerifyAnswer:
    """Say whether a signature is valid."""
    key = _authorised(service, call, Permission.KEYS_VERIFY, key_id)
    number = request.version if request.version is not None else key.latest_version
    if not 1 <= number <= key.latest_version:
        raise ValidationFailed(f"version: {key_id} has versions 1 to {key.latest_version}.")
    loaded, signer = _usable(service, call, key, number, Usage.VERIFY, Signer)
    message, prehashed = _signed_part(request)
    algorithm = _algorithm(signer, request.algorithm)
    valid = signer.verify(message, request.signature, algorithm, prehashed=prehashed)
    return VerifyAnswer(key_id=key_id, version=loaded.version.version, valid=valid)


def _authorised(service: Service, call: Call, permission: Permission, key_id: str) -> Key:
    key = service.keyring.key(key_id)
    policy.require_on_key(call.known_caller, permission, key.owner, key_id)
    call.key_id = key_id
    return key


def _require_usage(key: Key, usage: Usage) -> None:
    if usage not in key.usages:
        raise OperationNotSupported(f"{key.key_id} is a key of type {key.type}; it does not {usage}.")


def _usable(
    service: Service, call: Call, key: Key, number: int, usage: Usage, primitive: type[P]
) -> tuple[LoadedVersion, P]:
    _require_usage(key, usage)
    call.version = number
    loaded = service.keyring.usable(key, number, usage, service.clock())
    assert isinstance(loaded.primitive, primitive)
    return loaded, loaded.primitive


def _signed_part(request: SignRequest | VerifyRequest) -> tuple[bytes, bool]:
    if request.message is not None and request.digest is None:
        return request.message, False
    if request.digest is not None and request.message is None:
        return request.digest, True
    raise ValidationFailed("message, digest: give exactly one of the two.")


def _algorithm(signer: Signer, asked: str | None) -> str:
    if asked is None:
        return signer.algorithms[0]
    if asked not in signer.algorithms:
        raise ValidationFailed(f"algorithm: this key signs with {', '.join(signer.algorithms)}.")
    return asked
