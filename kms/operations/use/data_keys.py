"""Data keys and data key pairs: made for use outside the service, returned in plaintext and encrypted."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.crypto.pkcs8 import public_pem
from kms.crypto.primitives import Cipher
from kms.crypto.registry import key_type
from kms.errors import ValidationFailed
from kms.keys.lifecycle import require_usage
from kms.keys.model import Usage
from kms.operations.core.declare import Request, operation
from kms.operations.core.key_access import UsedKey, authorized_key_cached, key_operation, key_to_protect
from kms.operations.core.service import Call, Service
from kms.operations.core.types import KeyTypeName
from kms.operations.use.encrypting import encrypted


class DataKeyRequest(Request):
    """`bits` is the size of the data key. `with_plaintext` false returns it only encrypted, for later use.

    `associated_data` and `context` are as for `encrypt`.
    """

    bits: Annotated[int, msgspec.Meta(ge=128, le=8192, multiple_of=8)] = 256
    with_plaintext: bool = True
    associated_data: bytes = b""
    context: bytes = b""


class DataKeyAnswer(UsedKey, kw_only=True):
    """The data key in plaintext (base64), and `ciphertext`, from which `decrypt` recovers it.

    `decrypt` needs the same associated data and context.
    """

    plaintext: bytes | UnsetType = UNSET
    ciphertext: bytes


class DataKeyPairRequest(Request):
    """`type` is the key type of the pair; the other members are as for a data key."""

    type: KeyTypeName
    with_plaintext: bool = True
    associated_data: bytes = b""
    context: bytes = b""


class DataKeyPairAnswer(UsedKey, kw_only=True):
    """`public_key` is PEM; `plaintext` is the private key (PKCS#8 DER in base64), `ciphertext` the same encrypted."""

    type: str
    public_key: str
    plaintext: bytes | UnsetType = UNSET
    ciphertext: bytes


@key_operation("data-key", Permission.KEYS_ENCRYPT, DataKeyRequest, example={"bits": 256})
def data_key(service: Service, call: Call, request: DataKeyRequest, key_id: str) -> DataKeyAnswer:
    """Make a data key: a symmetric key for use outside the service, in plaintext and encrypted under this key."""
    key, number, cipher = key_to_protect(service, call, key_id, Usage.ENCRYPT, Cipher, items=[request])
    plaintext = os.urandom(request.bits // 8)
    sealed = encrypted(cipher, key, number, request, plaintext)
    shown = plaintext if request.with_plaintext else UNSET
    return DataKeyAnswer(key_id=key.key_id, version=number, plaintext=shown, ciphertext=sealed)


@operation(
    "POST",
    "/api/v1/keys/<key_id>/data-key-pair",
    permission=Permission.KEYS_ENCRYPT,
    rate_class=RateClass.GENERATE,
    request=DataKeyPairRequest,
    slow=True,
    batched=True,
    example={"type": "ec-p256", "with_plaintext": False},
)
def data_key_pair(service: Service, call: Call, request: DataKeyPairRequest, key_id: str) -> DataKeyPairAnswer:
    """Make a data key pair for use outside; its private key is returned in plaintext and encrypted under this key."""
    key = authorized_key_cached(service, call, Permission.KEYS_ENCRYPT, key_id, [request])
    require_usage(key, Usage.ENCRYPT)
    kind = key_type(request.type)
    plaintext = service.key_pool.generate(kind)
    call.at = service.clock()  # that took a while
    public_key = kind.public_key(plaintext)
    if public_key is None:
        raise ValidationFailed(f"type: keys of type {kind.name} are no pairs; data-key makes symmetric ones.")
    key, number, cipher = key_to_protect(service, call, key_id, Usage.ENCRYPT, Cipher, items=[request])
    sealed = encrypted(cipher, key, number, request, plaintext)
    return DataKeyPairAnswer(
        key_id=key.key_id,
        version=number,
        type=kind.name,
        public_key=public_pem(public_key),
        plaintext=plaintext if request.with_plaintext else UNSET,
        ciphertext=sealed,
    )
