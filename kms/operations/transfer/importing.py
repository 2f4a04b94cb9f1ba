"""Bringing one's own key: a wrapping key for one import, and the import."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto import pkcs8
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.crypto.primitives import Hpke
from kms.crypto.registry import key_type
from kms.crypto.rsa import IMPORT_ALGORITHMS, RSA_AES, RsaKey
from kms.errors import Conflict, IntegrityFailure, KeyRevoked, NotFound, ValidationFailed
from kms.keys.ids import KeyId
from kms.keys.model import Key, KeyState, KeyVersion, Origin
from kms.operations.core.declare import Answer, EmptyRequest, FromAnswerOf, Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.keys import key_factory
from kms.operations.keys.manage import CreateKeyRequest, spec_of
from kms.operations.keys.views import KeyView, shown_now
from kms.vault import sealed_columns, tables
from kms.vault.change import Change
from kms.vault.rows import WrappingKey
from kms.vault.sealing import SealBroken

HPKE, HPKE_HYBRID = "HPKE", "HPKE-MLKEM768-X25519"
_TYPES = {HPKE: "x25519", HPKE_HYBRID: "ml-kem-768-x25519"}
_TYPES |= dict.fromkeys(IMPORT_ALGORITHMS, "rsa-3072")  # which loads RSA keys of every size
_LIFETIME = timedelta(days=1)
STANDING = "standing"
"""The id of the wrapping key that is for everybody and for any number of imports."""

_FOR_EVER = datetime(9999, 1, 1, tzinfo=UTC)

Format = Literal["raw", "pkcs8", "jwk"]
StandingAlgorithm = Literal[
    "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_224", "RSA_AES_KEY_WRAP_SHA_256", "RSA_AES_KEY_WRAP_SHA_384",
    "RSA_AES_KEY_WRAP_SHA_512",
]  # fmt: skip
_PEM = "-----BEGIN PUBLIC KEY-----…"


class WrappingKeyRequest(Request):
    """`algorithm` is how the key will be wrapped: RSA_AES_KEY_WRAP_SHA_256, RSA-OAEP-256 (for short keys), or HPKE.

    HPKE is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM with empty info and empty associated data; its
    post-quantum form has the KEM MLKEM768-X25519 instead. `bits` is the size of an RSA wrapping key.
    RSA_AES_KEY_WRAP_SHA_1 and RSA-OAEP use SHA-1, for programs that support nothing else.
    """

    algorithm: Literal[
        "RSA_AES_KEY_WRAP_SHA_256",
        "RSA-OAEP-256",
        "RSA_AES_KEY_WRAP_SHA_1",
        "RSA-OAEP",
        "HPKE",
        "HPKE-MLKEM768-X25519",
    ] = "RSA_AES_KEY_WRAP_SHA_256"
    bits: Literal[2048, 3072, 4096] = 3072


class WrappingKeyAnswer(Answer):
    """A public key (PEM) for one import by this client, until `expires_at`."""

    wrapping_key_id: str
    algorithm: str
    public_key: str
    expires_at: datetime


class ImportKeyRequest(CreateKeyRequest, kw_only=True):
    """The properties of the new key, and its material: a wrapped key, or only a public key (PEM).

    `format` is the encoding of the key inside the wrapping: `raw` for symmetric keys, `pkcs8` (DER) for key pairs, or
    `jwk`. `algorithm` is given only with the standing wrapping key, and says how the key was wrapped; every other
    wrapping key has one algorithm.
    """

    wrapping_key_id: str | None = None
    wrapped_key: bytes | None = None
    algorithm: StandingAlgorithm | None = None
    format: Format | None = None
    public_key: str | None = None


class ImportVersionRequest(Request):
    """The material of the next version: the same key type as before, and again a wrapped key or only a public key."""

    wrapping_key_id: str | None = None
    wrapped_key: bytes | None = None
    algorithm: StandingAlgorithm | None = None
    format: Format | None = None
    public_key: str | None = None


@dataclass(frozen=True)
class UnwrappedImport:
    """Imported key material, and the wrapping key that it was wrapped under; None for a public key alone."""

    material: KeyMaterial
    wrapping_key: WrappingKey | None


@operation(
    "POST",
    "/api/v1/keys/import-wrapping-key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=WrappingKeyRequest,
    checked_upfront=True,
    slow=True,
    example={"algorithm": "RSA_AES_KEY_WRAP_SHA_256"},
)
def create_wrapping_key(service: Service, call: Call, request: WrappingKeyRequest) -> WrappingKeyAnswer:
    """Make a wrapping key: a public key under which one key can be wrapped for import."""
    is_rsa = request.algorithm in IMPORT_ALGORITHMS
    kind = key_type(f"rsa-{request.bits}" if is_rsa else _TYPES[request.algorithm])
    material = service.key_pool.generate(kind)
    public_key = kind.public_key(material)
    assert public_key is not None
    owner = call.known_caller.client_id
    with service.change(call) as change:
        wrapping_key_id = secrets.token_hex(16)
        sealed = change.derived_keys.seal(material, sealed_columns.wrapping_key(wrapping_key_id, owner))
        expires_at = service.clock() + _LIFETIME
        change.insert(WrappingKey(wrapping_key_id, owner, request.algorithm, sealed, expires_at))
    return WrappingKeyAnswer(
        wrapping_key_id=wrapping_key_id,
        algorithm=request.algorithm,
        public_key=pkcs8.public_pem(public_key),
        expires_at=expires_at,
    )


@operation(
    "POST",
    "/api/v1/keys/standing-wrapping-key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    checked_upfront=True,
    slow=True,
    example={},
)
def get_standing_wrapping_key(service: Service, call: Call, request: EmptyRequest) -> WrappingKeyAnswer:
    """Show the standing wrapping key, an RSA key under which every client can import any number of keys."""
    with service.vault.read() as snapshot:
        found = snapshot.find(WrappingKey, STANDING)
    kind = key_type("rsa-4096")
    if found is None:
        material = service.key_pool.generate(kind)
        with service.change(call) as change:
            found = change.find(WrappingKey, STANDING)
            if found is None:
                sealed = change.derived_keys.seal(material, sealed_columns.wrapping_key(STANDING, ""))
                found = WrappingKey(STANDING, "", RSA_AES, sealed, _FOR_EVER)
                change.insert(found)
            else:
                call.abandoned = True
    public_key = kind.public_key(_material(service, found))
    assert public_key is not None
    return WrappingKeyAnswer(
        wrapping_key_id=STANDING,
        algorithm=RSA_AES,
        public_key=pkcs8.public_pem(public_key),
        expires_at=found.expires_at,
    )


@operation(
    "POST",
    "/api/v1/keys/import",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=ImportKeyRequest,
    status=201,
    slow=True,
    location="/api/v1/keys/{key_id}",
    example={
        "type": "ec-p256",
        "key_id": "partner",
        "public_key": FromAnswerOf("get_public_key", "public_key", _PEM),
    },
)
def import_key(service: Service, call: Call, request: ImportKeyRequest) -> KeyView:
    """Import a key: make a new key of material from outside."""
    spec = replace(spec_of(service, call, request), origin=Origin.IMPORTED)
    imported = _checked_import(service, call, request, spec.type)
    with service.change(call) as change:
        consume_wrapping_key(change, imported)
        key, version = key_factory.new_key(change, service.cryptoperiods, spec, imported.material, service.clock())
        call.key_id, call.version = key.key_id, version.version
    return shown_now(service, call)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/import",
    permission=Permission.KEYS_UPDATE,
    rate_class=RateClass.GENERATE,
    request=ImportVersionRequest,
    slow=True,
    example={"public_key": FromAnswerOf("get_public_key", "public_key", _PEM)},
)
def import_version(service: Service, call: Call, request: ImportVersionRequest, key_id: KeyId) -> KeyView:
    """Import the next version of an imported key."""
    with service.vault.read() as snapshot:
        seen = authorized_key(service, snapshot, call, Permission.KEYS_UPDATE, key_id)
    imported = _checked_import(service, call, request, key_type(seen.type))
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_UPDATE, key_id)
        if key.origin is not Origin.IMPORTED or key.type != seen.type:
            raise Conflict(f"{key.key_id} was not imported; rotate it.")
        if imported.material.private is None and any(usage.needs_private for usage in key.usages):
            raise Conflict(f"{key.key_id} was made for more than a public key can do.")
        _require_not_compromised(change, key, imported.material)
        consume_wrapping_key(change, imported)
        made = key_factory.next_version(
            change, service.cryptoperiods, key, key_type(key.type), imported.material, service.clock()
        )
        call.version = made[1].version
    return shown_now(service, call)


def _require_not_compromised(change: Change, key: Key, material: KeyMaterial) -> None:
    """Raise KeyRevoked for a key pair of which a version of `key` was compromised."""
    if material.public is None:
        return
    column = tables.key_versions.c
    same = change.select(KeyVersion, column.key_uid == key.uid, column.public_key == material.public)
    if any(version.state is KeyState.COMPROMISED for version in same):
        raise KeyRevoked(f"{key.key_id} had this key pair in a version that was revoked for compromise.")


def _checked_import(
    service: Service, call: Call, request: ImportKeyRequest | ImportVersionRequest, kind: KeyType
) -> UnwrappedImport:
    """The material in the request, or a public key alone, checked. Raises as `unwrapped_import`."""
    if request.public_key is not None:
        if request.wrapped_key is not None or request.wrapping_key_id is not None or request.format is not None:
            raise ValidationFailed("public_key: comes alone, without wrapped_key, wrapping_key_id and format.")
        spki = pkcs8.der_of_pem(request.public_key, "public_key")
        return UnwrappedImport(KeyMaterial(None, kind.checked_public(spki)), None)
    if request.wrapped_key is None or request.wrapping_key_id is None:
        raise ValidationFailed("wrapped_key, wrapping_key_id: give both, or a public_key.")
    return unwrapped_import(service, call, request, kind)


class Wrapped(Protocol):
    """A request with a wrapped key."""

    @property
    def wrapping_key_id(self) -> str | None:
        """The id of the wrapping key."""

    @property
    def wrapped_key(self) -> bytes | None:
        """The key material, wrapped under the wrapping key."""

    @property
    def algorithm(self) -> str | None:
        """How it was wrapped; None if the wrapping key has only one algorithm."""

    @property
    def format(self) -> Format | None:
        """The encoding of the key material inside the wrapping; None for the default of its type."""


def unwrapped_import(service: Service, call: Call, request: Wrapped, kind: KeyType) -> UnwrappedImport:
    """The wrapped material in the request, checked. Raises ValidationFailed, NotFound, DecryptionFailed."""
    assert request.wrapping_key_id is not None
    assert request.wrapped_key is not None
    wrapping_key = _wrapping_key(service, call, request.wrapping_key_id)
    if (request.algorithm is not None) != (wrapping_key.wrapping_key_id == STANDING):
        raise ValidationFailed("algorithm: is given with the standing wrapping key, and with that only.")
    plain = _unwrapped(service, wrapping_key, request.wrapped_key, request.algorithm or wrapping_key.algorithm)
    return UnwrappedImport(
        KeyMaterial.of(kind, kind.imported(plain, request.format or kind.formats[0])), wrapping_key
    )


def _wrapping_key(service: Service, call: Call, wrapping_key_id: str) -> WrappingKey:
    found = None
    if wrapping_key_id.isascii() and wrapping_key_id.isalnum():
        with service.vault.read() as snapshot:
            found = snapshot.find(WrappingKey, wrapping_key_id)
    owners = ("", call.known_caller.client_id)
    if found is None or found.owner not in owners or found.expires_at <= service.clock():
        raise NotFound("There is no such wrapping key: it was used, it expired, or it was made for another client.")
    return found


def _material(service: Service, key: WrappingKey) -> bytes:
    try:
        return service.vault.derived_keys.open(
            key.material, sealed_columns.wrapping_key(key.wrapping_key_id, key.owner)
        )
    except SealBroken:
        raise IntegrityFailure("The wrapping key was altered outside the service.") from None


def _unwrapped(service: Service, key: WrappingKey, wrapped: bytes, algorithm: str) -> bytes:
    primitive = key_type(_TYPES[key.algorithm]).load(_material(service, key))
    if isinstance(primitive, RsaKey):
        return primitive.unwrap(wrapped, algorithm)
    assert isinstance(primitive, Hpke)
    return primitive.open(wrapped, b"")


def consume_wrapping_key(change: Change, imported: UnwrappedImport) -> None:
    """Use up the wrapping key, in the change that keeps what came under it."""
    if imported.wrapping_key is not None and imported.wrapping_key.wrapping_key_id != STANDING:
        found = change.find(WrappingKey, imported.wrapping_key.wrapping_key_id)
        if found is None:
            raise NotFound("The wrapping key was used at the same moment.")
        change.delete(found)
