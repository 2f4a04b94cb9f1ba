"""Wrapping of keys that the service does not store. None of this uses the database."""

from __future__ import annotations

from typing import Annotated

import msgspec

from kms.access.policy import Permission
from kms.crypto import envelope
from kms.crypto.primitives import Cipher, KeyWrapper
from kms.errors import DecryptionFailed, ValidationFailed
from kms.keys.lifecycle import require_usage
from kms.keys.model import Usage
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


class WrapRequest(Request):
    """`key` is the key to wrap, at most 64 KiB.

    For RSA keys `algorithm` is RSA_AES_KEY_WRAP_SHA_256 (default) or RSA-OAEP-256. Keys of the types aes-*-kw and
    aes-*-kwp wrap with the algorithm of their type; other symmetric keys wrap with the cipher that they encrypt with.
    """

    key: Annotated[bytes, msgspec.Meta(max_length=65_536)]
    algorithm: str | None = None


class WrapAnswer(UsedKey, kw_only=True):
    """The wrapped key in base64. Keys that wrap with their own cipher use the format of docs/reference/formats.md.

    For all others it is in the format of the standard.
    """

    wrapped_key: bytes


class UnwrapRequest(ProcessRequest, kw_only=True):
    """`wrapped_key` as `wrap` gave it. `version` is for standard formats, which do not name it."""

    wrapped_key: bytes
    algorithm: str | None = None


class UnwrapAnswer(UsedKey, kw_only=True):
    """The unwrapped key, in base64."""

    key: bytes


@key_operation("wrap", Permission.KEYS_WRAP, WrapRequest, example={"key": "AAECAwQFBgcICQoLDA0ODw=="})
def wrap(service: Service, call: Call, request: WrapRequest, key_id: str) -> WrapAnswer:
    """Wrap a key with the latest version of this one."""
    key, number, wrapper = key_to_protect(service, call, key_id, Usage.WRAP, KeyWrapper, Cipher)
    algorithm = _algorithm(wrapper, request.algorithm)
    if isinstance(wrapper, KeyWrapper):
        wrapped = wrapper.wrap(request.key, algorithm)
    else:
        assert isinstance(wrapper, Cipher)
        wrapped = envelope.seal(wrapper, key.uid, number, request.key, b"", envelope.WRAPPED_KEY)
    return WrapAnswer(key_id=key.key_id, version=number, wrapped_key=wrapped)


@key_operation(
    "unwrap",
    Permission.KEYS_UNWRAP,
    UnwrapRequest,
    example={"wrapped_key": FromAnswerOf("wrap", "wrapped_key", "AofCIj4XjJ3dq8EAAAABq5mLw7tKmQ==")},
)
def unwrap(service: Service, call: Call, request: UnwrapRequest, key_id: str) -> UnwrapAnswer:
    """Unwrap a key, and return it."""
    key = authorized_key_cached(service, call, Permission.KEYS_UNWRAP, key_id)
    require_usage(key, Usage.UNWRAP)
    parts = envelope.parse_or_none(request.wrapped_key, envelope.WRAPPED_KEY)
    if parts is not None and parts.key_uid == key.uid:
        if parts.version > key.latest_version or request.version not in (None, parts.version):
            raise DecryptionFailed
        request = msgspec.structs.replace(request, version=parts.version)
    _, number, wrapper = version_to_process(service, call, key_id, Usage.UNWRAP, request, KeyWrapper, Cipher)
    algorithm = _algorithm(wrapper, request.algorithm)
    if isinstance(wrapper, KeyWrapper):
        plain = wrapper.unwrap(request.wrapped_key, algorithm)
    elif parts is None or parts.key_uid != key.uid:
        raise DecryptionFailed
    else:
        assert isinstance(wrapper, Cipher)
        plain = envelope.open_(wrapper, parts, b"", envelope.WRAPPED_KEY)
    return UnwrapAnswer(key_id=key.key_id, version=number, key=plain)


def _algorithm(wrapper: object, asked: str | None) -> str:
    offered = wrapper.wrapping_algorithms if isinstance(wrapper, KeyWrapper) else ()
    if asked is not None and asked not in offered:
        raise ValidationFailed(f"algorithm: this key wraps with {', '.join(offered) or 'its own algorithm alone'}.")
    return asked or (offered[0] if offered else "")
