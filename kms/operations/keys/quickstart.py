"""The flat endpoints, such as `POST /generate_rsa_key`: one key of each kind per client, for a first try."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access import clients, policy
from kms.access.decision import require_create
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.crypto.mac import hkdf
from kms.crypto.pkcs8 import der_of_pem, load_public, public_pem
from kms.crypto.primitives import Agreement
from kms.crypto.registry import KEY_TYPES, agreement_type, key_type
from kms.errors import ValidationFailed
from kms.keys.ids import ClientId, KeyId, flat_key_id
from kms.keys.model import Key, KeyVersion, Origin, RevocationReason, Usage
from kms.operations.core.declare import Answer, Request, TextAnswer, operation
from kms.operations.core.service import Call, Service
from kms.operations.keys import key_factory
from kms.operations.keys.key_factory import KeySpec
from kms.operations.keys.state_changes import next_material, revoke, rotate
from kms.revocation.published import RevocationList

_GROUPS = tuple(name for name, kind in KEY_TYPES.items() if kind.usages == {Usage.AGREE})


class GenerateRequest(Request):
    """`client_id` is the client for which the key is made, by default the caller."""

    client_id: ClientId | None = None


class GenerateRsaRequest(GenerateRequest):
    """`bits` of the modulus: 2048, 3072 or 4096."""

    bits: int = 3072


class GenerateEccRequest(GenerateRequest):
    """A curve: P-256, P-384, P-521 or secp256k1."""

    curve: str = "P-256"


class GenerateDhRequest(GenerateRequest):
    """`group` is ffdhe2048 to ffdhe8192, x25519 or x448. `peer_public_key` (PEM) completes an exchange at once."""

    group: str | None = None
    peer_public_key: str | None = None


class RevokeRequest(Request):
    """The key to revoke, the `reason` (a name from RFC 5280), and when the key was compromised, if that is known."""

    key_id: KeyId
    reason: RevocationReason = RevocationReason.KEY_COMPROMISE
    compromised_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class RotateRequest(Request):
    """The id or alias of the key to rotate."""

    key_id: KeyId


class GeneratedKey(Answer):
    """A new key version. `symmetric_key` is the 32 bytes of the key in base64; `public_key` is PEM."""

    client_id: str
    key_id: str
    version: int
    symmetric_key: bytes | UnsetType = UNSET
    group: str | UnsetType = UNSET
    public_key: str | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET


class CompletedExchange(Answer):
    """What the peer needs to derive the same session key.

    The peer computes the shared secret Z from its own private key and `public_key` (PEM). For ffdhe groups Z is
    left-padded to the length of the modulus. The session key is the 32 bytes that HKDF with SHA-256 derives from Z,
    with `salt` and `info` (both base64).
    """

    client_id: str
    key_id: str
    version: int
    group: str
    public_key: str
    kdf: str
    salt: bytes
    info: bytes
    expires_at: datetime


class Message(Answer):
    """`message` is a sentence for people that says what was done."""

    message: str


@operation(
    "POST",
    "/generate_symmetric_key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=GenerateRequest,
)
def generate_symmetric_key(service: Service, call: Call, request: GenerateRequest) -> GeneratedKey:
    """Make the next version of `{client_id}_symmetric`, an AES-256 key, and return it in plaintext."""
    kind = key_type("xaes-256-gcm")
    material = kind.generate()
    key, version = _generate(service, call, request, "symmetric", kind, material)
    return _answer(key, version, symmetric_key=material)


@operation(
    "POST",
    "/generate_rsa_key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=GenerateRsaRequest,
    slow=True,
)
def generate_rsa_key(service: Service, call: Call, request: GenerateRsaRequest) -> GeneratedKey:
    """Make the next version of `{client_id}_rsa` and return its public key."""
    kind = _of_type(f"rsa-{request.bits}", "bits", "2048, 3072, 4096")
    return _answer(*_generate(service, call, request, "rsa", kind))


@operation(
    "POST",
    "/generate_ecc_key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=GenerateEccRequest,
)
def generate_ecc_key(service: Service, call: Call, request: GenerateEccRequest) -> GeneratedKey:
    """Make the next version of `{client_id}_ecc` and return its public key."""
    kind = _of_type(f"ec-{request.curve.lower().replace('-', '')}", "curve", "P-256, P-384, P-521, secp256k1")
    return _answer(*_generate(service, call, request, "ecc", kind))


@operation(
    "POST",
    "/generate_dh_key",
    permission=Permission.KEYS_CREATE,
    rate_class=RateClass.GENERATE,
    request=GenerateDhRequest,
    slow=True,
)
def generate_dh_key(service: Service, call: Call, request: GenerateDhRequest) -> GeneratedKey | CompletedExchange:
    """Make the next version of `{client_id}_dh`, or complete an exchange with a peer's key."""
    if request.peer_public_key is not None:
        return _complete_exchange(service, call, request, request.peer_public_key)
    kind = _group(request.group or "ffdhe2048")
    key, version = _generate(service, call, request, "dh", kind)
    return _answer(key, version, group=kind.name)


@operation(
    "POST",
    "/revoke_key",
    permission=Permission.KEYS_REVOKE,
    rate_class=RateClass.MANAGE,
    request=RevokeRequest,
)
def revoke_key(service: Service, call: Call, request: RevokeRequest) -> Message:
    """Revoke every version of a key; every worker on every node knows it once this has answered."""
    with service.change(call) as change:
        revoke(service, call, change, request.key_id, request.reason, request.compromised_at)
    return Message(message=f"Key {request.key_id} revoked.")


@operation(
    "POST",
    "/rotate_key",
    permission=Permission.KEYS_ROTATE,
    rate_class=RateClass.GENERATE,
    request=RotateRequest,
    slow=True,
)
def rotate_key(service: Service, call: Call, request: RotateRequest) -> GeneratedKey:
    """Make the next version of a key. The answer has no secret key material."""
    material = next_material(service, call, request.key_id)
    with service.change(call) as change:
        return _answer(*rotate(service, call, change, request.key_id, material))


@operation(
    "GET",
    "/revocation_list",
    permission=Permission.REVOCATIONS_READ,
    rate_class=RateClass.MANAGE,
    checked_upfront=True,
)
def revocation_list(service: Service, call: Call, request: Request) -> RevocationList | TextAnswer:
    """Every revoked key with reason and times, signed so that it can be checked offline."""
    published = service.publisher.current(service.clock())
    return TextAnswer(published.body, "application/json", published.etag)


def _generate(
    service: Service,
    call: Call,
    request: GenerateRequest,
    suffix: str,
    kind: KeyType,
    material: bytes | None = None,
) -> tuple[Key, KeyVersion]:
    owner = _owner(service, call, request, suffix)
    call.key_id = flat_key_id(owner, suffix)
    # Before the transaction: it may take seconds.
    made = material if material is not None else service.key_pool.generate(kind)
    return _store(service, call, owner, kind, made, Origin.GENERATED)


def _owner(service: Service, call: Call, request: GenerateRequest, suffix: str) -> str:
    """The client that the key is for, which may be another than the caller where policy allows it."""
    owner = request.client_id or call.known_caller.client_id
    policy.require(call.known_caller, Permission.KEYS_CREATE, owner)
    require_create(call.known_caller, owner, flat_key_id(owner, suffix), service.circumstances(call))
    with service.vault.read() as snapshot:
        call.target = clients.get(snapshot, owner).client_id
    return owner


def _store(
    service: Service, call: Call, owner: str, kind: KeyType, material: bytes, origin: Origin
) -> tuple[Key, KeyVersion]:
    assert call.key_id is not None
    made_of = KeyMaterial.of(kind, material)
    with service.change(call) as change:
        now = service.clock()
        clients.get(change, owner)
        key = change.key_by_id(call.key_id)
        if key is None:
            spec = KeySpec(kind, owner, call.key_id, origin=origin)
            made = key_factory.new_key(change, service.cryptoperiods, spec, made_of, now)
        else:
            made = key_factory.next_version(change, service.cryptoperiods, key, kind, made_of, now)
        call.version = made[1].version
    return made


def _complete_exchange(service: Service, call: Call, request: GenerateDhRequest, peer_pem: str) -> CompletedExchange:
    owner = _owner(service, call, request, "session")
    peer_spki = der_of_pem(peer_pem, "peer_public_key")
    peer = load_public(peer_spki, "peer_public_key")
    group = agreement_type(peer)
    if group is None or group.name not in _GROUPS or request.group not in (None, group.name):
        raise ValidationFailed(
            f"peer_public_key: not a key of {request.group or 'a group known here: ' + ', '.join(_GROUPS)}."
        )
    ephemeral = group.generate()
    own, public_key = group.load(ephemeral), group.public_key(ephemeral)
    assert isinstance(own, Agreement)
    assert public_key is not None
    secret = own.exchange(peer)
    del ephemeral, own  # forward secrecy: from here on nobody can compute the secret again
    salt = secrets.token_bytes(32)
    info = b"kms dh session v1" + b"".join(
        len(part).to_bytes(2) + part for part in (owner.encode(), public_key, group.checked_public(peer_spki))
    )
    call.key_id = flat_key_id(owner, "session")
    key, version = _store(service, call, owner, key_type("xaes-256-gcm"), hkdf(secret, salt, info), Origin.AGREED)
    return CompletedExchange(
        client_id=owner,
        key_id=key.key_id,
        version=version.version,
        group=group.name,
        public_key=public_pem(public_key),
        kdf="HKDF-SHA-256",
        salt=salt,
        info=info,
        expires_at=version.expires_at,
    )


def _answer(
    key: Key, version: KeyVersion, *, symmetric_key: bytes | UnsetType = UNSET, group: str | UnsetType = UNSET
) -> GeneratedKey:
    return GeneratedKey(
        client_id=key.owner,
        key_id=key.key_id,
        version=version.version,
        symmetric_key=symmetric_key,
        group=group,
        public_key=public_pem(version.public_key) if version.public_key else UNSET,
        expires_at=version.expires_at,
    )


def _of_type(name: str, member: str, choices: str) -> KeyType:
    if name not in KEY_TYPES:
        raise ValidationFailed(f"{member}: must be one of {choices}.")
    return KEY_TYPES[name]


def _group(name: str) -> KeyType:
    if name not in _GROUPS:
        raise ValidationFailed(f"group: must be one of {', '.join(_GROUPS)}.")
    return key_type(name)
