"""Encryption: encrypt, decrypt, rewrap, data keys. None of them touches the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.decision import require_on_key
from kms.access.policy import Permission
from kms.crypto import envelope
from kms.crypto.primitives import Cipher, KeyWrapper
from kms.crypto.rsa import RsaKey
from kms.errors import DecryptionFailed, Refusal, ValidationFailed
from kms.keys.ids import KeyId
from kms.keys.lifecycle import require_usage
from kms.keys.model import Key, Usage
from kms.operations.core.declare import FromAnswerOf, Request
from kms.operations.core.key_access import (
    ProcessRequest,
    UsedKey,
    authorized_key_cached,
    key_operation,
    key_to_protect,
    version_to_process,
)
from kms.operations.core.service import Call, Service

Form = Literal["kms", "raw", "rsa-oaep-sha1"]
_SAMPLE = "AYfCIj4XjJ3dq8EAAAABq5mLw7tKmQ=="


class EncryptRequest(Request):
    """`plaintext` is what to encrypt. `associated_data` is not stored, and must be given again to decrypt.

    A ciphertext in the `format` `kms` names the key and its version. One in the format `raw` is only the output of
    the algorithm, with exactly the given associated data (for RSA the OAEP label). `rsa-oaep-sha1` is `raw` with
    SHA-1 instead of SHA-256. `context`, such as a user's name, is required for key types with derived keys and
    refused for all others.
    """

    plaintext: bytes
    associated_data: bytes = b""
    context: bytes = b""
    format: Form = "kms"


class EncryptAnswer(UsedKey, kw_only=True):
    """`ciphertext` in base64; docs/reference/formats.md describes the format `kms`."""

    ciphertext: bytes


class DecryptRequest(ProcessRequest, kw_only=True):
    """`ciphertext` as `encrypt` gave it, and the same associated data, context and format.

    `version` is for the format `raw`, by default the latest; a ciphertext in the format `kms` names its version.
    """

    ciphertext: bytes
    associated_data: bytes = b""
    context: bytes = b""
    format: Form = "kms"


class DecryptAnswer(UsedKey, kw_only=True):
    """The plaintext, in base64."""

    plaintext: bytes


class RewrapRequest(DecryptRequest, kw_only=True):
    """A ciphertext, and `to_key_id`, the key to encrypt it with: by default the same key, in its latest version.

    With another key, or with other associated data (`to_associated_data`), the caller needs `keys:decrypt` on the
    old key and `keys:encrypt` on the new one. All items of a batch must have the same `to_key_id`.
    """

    to_key_id: KeyId | None = None
    to_associated_data: bytes | UnsetType = UNSET


class MessageBinding(Protocol):
    """What a message is bound to."""

    @property
    def associated_data(self) -> bytes:
        """What must be given again to decrypt."""

    @property
    def context(self) -> bytes:
        """For key types with derived keys: the context that the message's key is derived for."""


def _encrypt_batch(
    service: Service, call: Call, items: Sequence[EncryptRequest | Refusal], key_id: str
) -> list[EncryptAnswer | Refusal]:
    """`encrypt` for each of the items that could be read."""
    try:
        key, number, cipher = key_to_protect(
            service, call, key_id, Usage.ENCRYPT, Cipher, items=items, count=len(items)
        )
    except Refusal as refusal:
        if not refusal.item_scoped:
            raise
        return [item if isinstance(item, Refusal) else refusal for item in items]
    encrypt_one, named = cipher.encryptor(envelope.header(key.uid, number)), key.key_id
    results: list[EncryptAnswer | Refusal] = []
    for item in items:
        if isinstance(item, Refusal):
            results.append(item)
            continue
        try:
            if item.format == "kms" and not item.context:
                sealed = encrypt_one(item.plaintext, item.associated_data)
            else:
                sealed = encrypted(cipher, key, number, item, item.plaintext, item.format)
        except ValidationFailed as refusal:
            results.append(refusal)
        else:
            results.append(EncryptAnswer(key_id=named, version=number, ciphertext=sealed))
    return results


def _decrypt_batch(
    service: Service, call: Call, items: Sequence[DecryptRequest | Refusal], key_id: str
) -> list[DecryptAnswer | Refusal]:
    """`decrypt` for each of the items that could be read."""
    key = authorized_key_cached(service, call, Permission.KEYS_DECRYPT, key_id, items)
    require_usage(key, Usage.DECRYPT)
    opened: dict[bytes, tuple[int, Callable[[bytes, bytes], bytes]]] = {}  # by header: most have the same
    results: list[DecryptAnswer | Refusal] = []
    named = key.key_id
    for item in items:
        if isinstance(item, Refusal):
            results.append(item)
            continue
        try:
            if item.format != "kms" or item.version is not None or item.recover or item.context:
                number, plaintext = _decrypt(service, call, key, item)
            else:
                ciphertext = item.ciphertext
                header = ciphertext[: envelope.HEADER_BYTES]
                if header not in opened:
                    number, cipher = _opening(service, call, key, item, envelope.parse(ciphertext))
                    opened[header] = number, cipher.decryptor(header)
                number, decrypt_one = opened[header]
                plaintext = decrypt_one(ciphertext, item.associated_data)
        except Refusal as refusal:
            if not refusal.item_scoped:
                raise
            results.append(refusal)
        else:
            results.append(DecryptAnswer(key_id=named, version=number, plaintext=plaintext))
    return results


@key_operation(
    "encrypt",
    Permission.KEYS_ENCRYPT,
    EncryptRequest,
    example={"plaintext": "aGVsbG8=", "associated_data": "b3JkZXIgNDI="},
    batch_function=_encrypt_batch,
)
def encrypt(service: Service, call: Call, request: EncryptRequest, key_id: str) -> EncryptAnswer:
    """Encrypt with the latest version of a key."""
    key, number, cipher = key_to_protect(service, call, key_id, Usage.ENCRYPT, Cipher, items=[request])
    sealed = encrypted(cipher, key, number, request, request.plaintext, request.format)
    return EncryptAnswer(key_id=key.key_id, version=number, ciphertext=sealed)


@key_operation(
    "decrypt",
    Permission.KEYS_DECRYPT,
    DecryptRequest,
    example={"ciphertext": FromAnswerOf("encrypt", "ciphertext", _SAMPLE), "associated_data": "b3JkZXIgNDI="},
    batch_function=_decrypt_batch,
)
def decrypt(service: Service, call: Call, request: DecryptRequest, key_id: str) -> DecryptAnswer:
    """Decrypt with the version that encrypted."""
    key = authorized_key_cached(service, call, Permission.KEYS_DECRYPT, key_id, [request])
    number, plaintext = _decrypt(service, call, key, request)
    return DecryptAnswer(key_id=key.key_id, version=number, plaintext=plaintext)


@key_operation(
    "rewrap",
    Permission.KEYS_REWRAP,
    RewrapRequest,
    example={"ciphertext": FromAnswerOf("encrypt", "ciphertext", _SAMPLE), "associated_data": "b3JkZXIgNDI="},
)
def rewrap(service: Service, call: Call, request: RewrapRequest, key_id: str) -> EncryptAnswer:
    """Decrypt, and encrypt again with the key's latest version or another key; the plaintext is not returned."""
    key = authorized_key_cached(service, call, Permission.KEYS_REWRAP, key_id)
    target = key
    if request.to_key_id is not None or request.to_associated_data is not UNSET:
        # Who may rewrap to a key of their own can read the plaintext, and who may change the associated data can
        # pass a ciphertext off as another. Both need more than the permission to rewrap.
        authorized_key_cached(service, call, Permission.KEYS_DECRYPT, key_id)
        target = authorized_key_cached(service, call, Permission.KEYS_ENCRYPT, request.to_key_id or key_id)
        if call.target not in (None, target.key_id):
            raise ValidationFailed("to_key_id: the same for all items of a batch.")
        call.key_id, call.target = key.key_id, target.key_id
    _, plaintext = _decrypt(service, call, key, request, Permission.KEYS_REWRAP)
    if request.to_associated_data is not UNSET:
        request = msgspec.structs.replace(request, associated_data=request.to_associated_data)
    permission = Permission.KEYS_REWRAP if target is key else Permission.KEYS_ENCRYPT
    _, number, cipher = key_to_protect(service, call, target.key_id, Usage.ENCRYPT, Cipher, permission=permission)
    call.key_id = key.key_id
    sealed = encrypted(cipher, target, number, request, plaintext, request.format)
    return EncryptAnswer(key_id=target.key_id, version=number, ciphertext=sealed)


def encrypted(
    cipher: Cipher, key: Key, number: int, bound: MessageBinding, plaintext: bytes, form: Form = "kms"
) -> bytes:
    """The ciphertext of `plaintext` in one of the forms. Raises ValidationFailed."""
    if bound.context:
        cipher = cipher.in_context(bound.context)
    if form == "kms":
        return envelope.seal(cipher, key.uid, number, plaintext, bound.associated_data)
    _require_foreign(key, bound.associated_data)
    return _in_form(cipher, form).encrypt(plaintext, bound.associated_data)


def _decrypt(
    service: Service,
    call: Call,
    key: Key,
    request: DecryptRequest,
    permission: Permission = Permission.KEYS_DECRYPT,
) -> tuple[int, bytes]:
    if request.format != "kms":
        _require_foreign(key, request.associated_data)
        number, cipher = _processing(service, call, key, request, permission)
        if isinstance(cipher, KeyWrapper) and Usage.UNWRAP in key.usages and not request.associated_data:
            # RSA wraps keys as it encrypts, by OAEP without a label: who may open the one could open the other.
            require_on_key(call.known_caller, Permission.KEYS_UNWRAP, key, service.circumstances(call))
        return number, _in_form(cipher, request.format).decrypt(request.ciphertext, request.associated_data)
    require_usage(key, Usage.DECRYPT)  # before the ciphertext is looked at
    parts = envelope.parse(request.ciphertext)
    number, cipher = _opening(service, call, key, request, parts, permission)
    return number, envelope.open_(cipher, parts, request.associated_data)


def _in_form(cipher: Cipher, form: Form) -> Cipher:
    if form == "rsa-oaep-sha1":
        if not isinstance(cipher, RsaKey):
            raise ValidationFailed("format: rsa-oaep-sha1 is for RSA keys.")
        return cipher.with_sha1()
    return cipher


def _require_foreign(key: Key, associated_data: bytes) -> None:
    """Raise ValidationFailed for associated data that begins like a header of the format `kms` for this key.

    In the format `raw` it would let data be decrypted as a wrapped key, or a wrapped key as data.
    """
    if associated_data[:17] in (envelope.ENCRYPTED + key.uid, envelope.WRAPPED_KEY + key.uid):
        raise ValidationFailed("associated_data: not a header of this key's own ciphertexts; use the format kms.")


def _opening(
    service: Service,
    call: Call,
    key: Key,
    request: DecryptRequest,
    parts: envelope.Envelope,
    permission: Permission = Permission.KEYS_DECRYPT,
) -> tuple[int, Cipher]:
    """The number of the version that made a ciphertext in the format `kms`, and the cipher of that version."""
    if parts.key_uid != key.uid or not 1 <= parts.version <= key.latest_version:
        raise DecryptionFailed
    if request.version not in (None, parts.version):
        raise ValidationFailed("version: the ciphertext itself says which version made it.")
    named = msgspec.structs.replace(request, version=parts.version)
    return _processing(service, call, key, named, permission)


def _processing(
    service: Service, call: Call, key: Key, request: DecryptRequest, permission: Permission
) -> tuple[int, Cipher]:
    _, number, cipher = version_to_process(
        service, call, key.key_id, Usage.DECRYPT, request, Cipher, items=[request], permission=permission
    )
    return number, cipher.in_context(request.context) if request.context else cipher
