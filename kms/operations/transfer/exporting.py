"""Export of keys: only of those that are exportable, and wrapped under a public key that the caller gives."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import UNSET, UnsetType

from kms.access.decision import require_on_key
from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto import goodkey, pkcs8, xwing
from kms.crypto.hpke import HpkeKey
from kms.crypto.registry import KEY_TYPES, key_type
from kms.crypto.rsa import RSA_AES, RSA_OAEP, RsaKey
from kms.errors import Conflict, OperationNotSupported, ValidationFailed
from kms.keys.lifecycle import require_in_force, require_in_range
from kms.keys.model import KeyVersion, Usage
from kms.operations.core.declare import FromAnswerOf, Request, operation
from kms.operations.core.key_access import UsedKey, VersionNumber, authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.transfer.importing import HPKE, Format

_SMALLEST_RSA, _LARGEST_RSA = 2048, 8192


class ExportKeyRequest(Request):
    """`recipient_public_key` is the public key (PEM) under which the exported key is wrapped.

    For an RSA recipient `algorithm` is RSA_AES_KEY_WRAP_SHA_256 (default) or RSA-OAEP-256; for all others it is HPKE
    with an empty info, in the suite of the recipient's key type. `plaintext` true, without a recipient, returns the
    key unwrapped; it needs the permission `keys:export-plaintext`, which only administrators grant.
    """

    recipient_public_key: str | None = None
    algorithm: str | None = None
    version: VersionNumber | None = None
    format: Format | None = None
    plaintext: bool = False


class ExportKeyAnswer(UsedKey, kw_only=True):
    """The key: `wrapped_key`, or `key` if plaintext was asked for; both in base64.

    `format` is the encoding of the key inside the wrapping; `suite` is the HPKE suite, if HPKE was used.
    """

    type: str
    format: str
    algorithm: str | UnsetType = UNSET
    suite: str | UnsetType = UNSET
    wrapped_key: bytes | UnsetType = UNSET
    key: bytes | UnsetType = UNSET


@operation(
    "POST",
    "/api/v1/keys/<key_id>/export",
    permission=Permission.KEYS_EXPORT,
    rate_class=RateClass.GENERATE,
    request=ExportKeyRequest,
    example={
        "recipient_public_key": FromAnswerOf("create_wrapping_key", "public_key", "-----BEGIN PUBLIC KEY-----…")
    },
)
def export_key(service: Service, call: Call, request: ExportKeyRequest, key_id: str) -> ExportKeyAnswer:
    """Export a key, wrapped under a public key."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_EXPORT, key_id)
        if not key.exportable:
            raise Conflict(f"{key.key_id} is not exportable.")
        number = request.version or key.latest_version
        require_in_range(key, number, Usage.UNWRAP)  # as for any other processing: not what is revoked or too old
        version, latest = (snapshot.find(KeyVersion, key.uid, each) for each in (number, key.latest_version))
        assert version is not None
        assert latest is not None
        require_in_force(key, version, latest, Usage.UNWRAP, service.clock())
        if version.material is None:
            raise OperationNotSupported(f"{key.key_id} is a public key alone; public-key shows it.")
        kind = key_type(version.type)
        form = request.format or kind.formats[0]
        material = kind.exported(snapshot.material(key, version), form)
    call.version = number
    answer = ExportKeyAnswer(key_id=key.key_id, version=number, type=kind.name, format=form)
    if request.plaintext:
        if request.recipient_public_key is not None or request.algorithm is not None:
            raise ValidationFailed("plaintext: comes without recipient_public_key and algorithm.")
        require_on_key(call.known_caller, Permission.KEYS_EXPORT_PLAINTEXT, key, service.circumstances(call))
        answer.key, call.target = material, "plaintext"
        return answer
    if request.recipient_public_key is None:
        raise ValidationFailed("recipient_public_key: the key leaves only wrapped under a public key.")
    spki = pkcs8.der_of_pem(request.recipient_public_key, "recipient_public_key")
    recipient = _recipient(spki)
    call.target = f"recipient sha256:{sha256(spki).hexdigest()}"
    algorithms = (RSA_AES, RSA_OAEP) if isinstance(recipient, RsaKey) else (HPKE,)
    answer.algorithm = request.algorithm or algorithms[0]
    if answer.algorithm not in algorithms:
        raise ValidationFailed(f"algorithm: to this recipient {' or '.join(algorithms)}.")
    if isinstance(recipient, RsaKey):
        answer.wrapped_key = recipient.wrap(material, answer.algorithm)
    else:
        answer.suite, answer.wrapped_key = recipient.suite, recipient.seal(material, b"")
    return answer


def _recipient(spki: bytes) -> RsaKey | HpkeKey:
    public = xwing.load_public(spki, "recipient_public_key")
    if isinstance(public, RSAPublicKey) and _SMALLEST_RSA <= public.key_size <= _LARGEST_RSA:
        goodkey.validate(public)
        return RsaKey(public)
    for kind in KEY_TYPES.values():
        if Usage.SEAL in kind.every_usage and kind.owns(public):
            recipient = kind.load_public(kind.checked_public(spki))
            assert isinstance(recipient, HpkeKey)
            return recipient
    raise ValidationFailed("recipient_public_key: RSA of 2048 to 8192 bits, or a key that HPKE can encrypt to.")
