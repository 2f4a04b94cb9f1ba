"""Key derivation, key agreement, key encapsulation (KEM), and hybrid public-key encryption (HPKE)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass, identity
from kms.crypto import pkcs8
from kms.crypto.keytype import KeyMaterial, SecretKeyType
from kms.crypto.mac import hkdf
from kms.crypto.primitives import Agreement, Deriver, Hpke, Kem
from kms.crypto.registry import key_type
from kms.errors import ValidationFailed
from kms.keys.model import Key, Origin, Usage
from kms.operations.core.declare import EmptyRequest, FromAnswerOf, Request
from kms.operations.core.key_access import ProcessRequest, UsedKey, key_operation, key_to_protect, version_to_process
from kms.operations.core.service import Call, Service
from kms.operations.keys.manage import CreateKeyRequest, spec_of, stored

Length = Annotated[int, msgspec.Meta(ge=16, le=16_320)]
_DEFAULT_LENGTH = 32


class DeriveRequest(ProcessRequest, kw_only=True):
    """`algorithm` is HKDF (`salt`, and `context` as its info) or KBKDF in counter mode (`label` and `context`).

    `length` is in bytes. With `keep_as` the derived key is stored as a new key and not returned.
    """

    algorithm: str | None = None
    salt: bytes = b""
    label: bytes = b""
    context: bytes = b""
    length: Length | None = None
    keep_as: CreateKeyRequest | None = None


class AgreeRequest(ProcessRequest, kw_only=True):
    """`peer_public_key` is a public key (PEM) of the same group as this key.

    HKDF-SHA-256 with `salt` and `info` derives `length` bytes from the shared secret. `kdf` `none` returns the shared
    secret itself, which is seldom right. With `keep_as` the derived key is stored as a new key and not returned.
    """

    peer_public_key: str
    salt: bytes = b""
    info: bytes = b""
    length: Length | None = None
    kdf: Literal["HKDF-SHA-256", "none"] = "HKDF-SHA-256"
    keep_as: CreateKeyRequest | None = None


class DerivedKeyAnswer(UsedKey, kw_only=True):
    """`derived_key` in base64; or `kept_as`, the id of the new key as which it was stored."""

    derived_key: bytes | UnsetType = UNSET
    kept_as: str | UnsetType = UNSET


class EncapsulateAnswer(UsedKey, kw_only=True):
    """The shared secret, and the ciphertext from which `decapsulate` recovers it; both in base64."""

    ciphertext: bytes
    shared_secret: bytes


class DecapsulateRequest(ProcessRequest, kw_only=True):
    """The ciphertext that somebody encapsulated to this key."""

    ciphertext: bytes


class DecapsulateAnswer(UsedKey, kw_only=True):
    """The shared secret in base64. An altered ciphertext is not refused, but gives another secret (FIPS 203)."""

    shared_secret: bytes


class SealRequest(Request):
    """`plaintext` is what to encrypt; the same `info` must be given to `open`."""

    plaintext: bytes
    info: bytes = b""


class SealAnswer(UsedKey, kw_only=True):
    """`ciphertext` is the encapsulated key ‖ the HPKE ciphertext (RFC 9180), in base64; `suite` is the HPKE suite."""

    suite: str
    ciphertext: bytes


class OpenRequest(ProcessRequest, kw_only=True):
    """`ciphertext` as `seal` gave it, and the same `info`."""

    ciphertext: bytes
    info: bytes = b""


class OpenAnswer(UsedKey, kw_only=True):
    """The plaintext, in base64."""

    plaintext: bytes


@key_operation(
    "derive", Permission.KEYS_DERIVE, DeriveRequest, example={"context": "c2Vzc2lvbiA0Mg==", "length": 32}, hot=False
)
def derive(service: Service, call: Call, request: DeriveRequest, key_id: str) -> DerivedKeyAnswer:
    """Derive a key from this one."""
    key, number, deriver = version_to_process(service, call, key_id, Usage.DERIVE, request, Deriver)
    algorithm = request.algorithm or deriver.derivations[0]
    if algorithm not in deriver.derivations:
        raise ValidationFailed(f"algorithm: this key derives with {', '.join(deriver.derivations)}.")
    length = _length(request)
    derived = deriver.derive(algorithm, request.salt, request.label, request.context, length)
    return _given(service, call, key, number, derived, request.keep_as, Origin.DERIVED)


@key_operation(
    "agree",
    Permission.KEYS_AGREE,
    AgreeRequest,
    example={"peer_public_key": FromAnswerOf("get_public_key", "public_key", "-----BEGIN PUBLIC KEY-----…")},
    hot=False,
)
def agree(service: Service, call: Call, request: AgreeRequest, key_id: str) -> DerivedKeyAnswer:
    """Agree on a key with the holder of another key of the same group."""
    key, number, own = version_to_process(service, call, key_id, Usage.AGREE, request, Agreement)
    peer = pkcs8.load_public(pkcs8.der_of_pem(request.peer_public_key, "peer_public_key"), "peer_public_key")
    if not key_type(key.type).owns(peer):
        raise ValidationFailed(f"peer_public_key: not a public key of type {key.type}.")
    secret = own.exchange(peer)
    if request.kdf == "none":
        if request.salt or request.info or request.length is not None or request.keep_as is not None:
            raise ValidationFailed("kdf: without one there is no salt, info, length or keep_as.")
    else:
        secret = hkdf(secret, request.salt, request.info, _length(request))
    return _given(service, call, key, number, secret, request.keep_as, Origin.AGREED)


@key_operation("encapsulate", Permission.KEYS_ENCAPSULATE, EmptyRequest, example={})
def encapsulate(service: Service, call: Call, request: EmptyRequest, key_id: str) -> EncapsulateAnswer:
    """Make a shared secret, and a ciphertext from which only this key can recover it (KEM)."""
    key, number, kem = key_to_protect(service, call, key_id, Usage.ENCAPSULATE, Kem)
    ciphertext, secret = kem.encapsulate()
    return EncapsulateAnswer(key_id=key.key_id, version=number, ciphertext=ciphertext, shared_secret=secret)


@key_operation(
    "decapsulate",
    Permission.KEYS_DECAPSULATE,
    DecapsulateRequest,
    example={"ciphertext": FromAnswerOf("encapsulate", "ciphertext", "q80WzI0K3w==")},
)
def decapsulate(service: Service, call: Call, request: DecapsulateRequest, key_id: str) -> DecapsulateAnswer:
    """Recover the shared secret from a ciphertext that `encapsulate` made (KEM)."""
    key, number, kem = version_to_process(service, call, key_id, Usage.DECAPSULATE, request, Kem)
    secret = kem.decapsulate(request.ciphertext)
    return DecapsulateAnswer(key_id=key.key_id, version=number, shared_secret=secret)


@key_operation("seal", Permission.KEYS_SEAL, SealRequest, example={"plaintext": "aGVsbG8=", "info": "b3JkZXIgNDI="})
def seal(service: Service, call: Call, request: SealRequest, key_id: str) -> SealAnswer:
    """Encrypt to the public half of this key with HPKE (RFC 9180); whoever has that half can do the same."""
    key, number, hpke = key_to_protect(service, call, key_id, Usage.SEAL, Hpke)
    sealed = hpke.seal(request.plaintext, request.info)
    return SealAnswer(key_id=key.key_id, version=number, suite=hpke.suite, ciphertext=sealed)


@key_operation(
    "open",
    Permission.KEYS_OPEN,
    OpenRequest,
    example={"ciphertext": FromAnswerOf("seal", "ciphertext", "m1Yc8rU0Aw=="), "info": "b3JkZXIgNDI="},
)
def open_sealed(service: Service, call: Call, request: OpenRequest, key_id: str) -> OpenAnswer:
    """Decrypt what was encrypted to this key with HPKE (RFC 9180)."""
    key, number, hpke = version_to_process(service, call, key_id, Usage.OPEN, request, Hpke)
    return OpenAnswer(key_id=key.key_id, version=number, plaintext=hpke.open(request.ciphertext, request.info))


def _length(request: DeriveRequest | AgreeRequest) -> int:
    """How many bytes to derive: what is asked for, or what the key to be kept needs."""
    if request.keep_as is None:
        return request.length or _DEFAULT_LENGTH
    kind = key_type(request.keep_as.type)
    if not isinstance(kind, SecretKeyType):
        raise ValidationFailed("keep_as.type: only symmetric keys can be derived.")
    if request.length not in (None, kind.key_bytes):
        raise ValidationFailed(f"length: a key of type {kind.name} has {kind.key_bytes} bytes.")
    return kind.key_bytes


def _given(
    service: Service,
    call: Call,
    key: Key,
    number: int,
    derived: bytes,
    keep_as: CreateKeyRequest | None,
    origin: Origin,
) -> DerivedKeyAnswer:
    """The derived key in the answer, or in the vault."""
    if keep_as is None:
        return DerivedKeyAnswer(key_id=key.key_id, version=number, derived_key=derived)
    service.rate_limits.hit(RateClass.GENERATE, identity(call.known_caller, call.source))
    spec = replace(spec_of(service, call, keep_as), origin=origin)
    call.target = key.key_id
    kept = stored(service, call, spec, KeyMaterial(spec.type.imported(derived, "raw")))
    call.key_id, call.version, call.target = key.key_id, number, None
    return DerivedKeyAnswer(key_id=key.key_id, version=number, kept_as=kept.key_id)
