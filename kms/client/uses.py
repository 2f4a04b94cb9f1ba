"""Uses of keys as values: `Client.run` carries one out, `Client.run_all` many at once.

Plaintexts, ciphertexts, messages and signatures are bytes; they travel as base64, which is not seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Use(Generic[T_co]):
    """One use of a key, not carried out yet. `read` makes the result of the JSON of the answer."""

    operation: str
    key_id: str
    members: Mapping[str, Any]
    read: Callable[[bytes], T_co]


class DataKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key for use in this program, and the same encrypted under the key `key_id` of the service."""

    key_id: str
    version: int
    plaintext: bytes = b""
    ciphertext: bytes

    def __repr__(self) -> str:
        return f"DataKey(key_id={self.key_id!r}, version={self.version})"


class Encapsulated(msgspec.Struct, frozen=True, kw_only=True):
    """A shared secret, and the ciphertext from which the holder of the private key gets it."""

    ciphertext: bytes
    shared_secret: bytes

    def __repr__(self) -> str:
        return f"Encapsulated(ciphertext={self.ciphertext!r})"


def encrypt(key_id: str, plaintext: bytes, associated_data: bytes = b"") -> Use[bytes]:
    """Encrypt; `associated_data` is not kept and must be given again to decrypt."""
    return _of_bytes("encrypt", key_id, "ciphertext", plaintext=plaintext, associated_data=associated_data)


def decrypt(key_id: str, ciphertext: bytes, associated_data: bytes = b"") -> Use[bytes]:
    """Decrypt what `encrypt` gave."""
    return _of_bytes("decrypt", key_id, "plaintext", ciphertext=ciphertext, associated_data=associated_data)


def rewrap(key_id: str, ciphertext: bytes, associated_data: bytes = b"") -> Use[bytes]:
    """Encrypt anew with the latest version, without seeing the plaintext."""
    return _of_bytes("rewrap", key_id, "ciphertext", ciphertext=ciphertext, associated_data=associated_data)


def data_key(key_id: str, bits: int = 256, associated_data: bytes = b"") -> Use[DataKey]:
    """Make a key of so many bits for use here."""
    members = {"bits": bits, "associated_data": associated_data}
    return Use("data_key", key_id, members, _reader(DataKey))


def sign(
    key_id: str,
    message: bytes | None = None,
    *,
    digest: bytes | None = None,
    algorithm: str | None = None,
    signature_format: str | None = None,
) -> Use[bytes]:
    """Sign the message or its digest; `algorithm` is a JOSE name, `signature_format` `p1363` or `der` (ECDSA)."""
    given = {"message": message, "digest": digest, "algorithm": algorithm, "signature_format": signature_format}
    return _of_bytes("sign", key_id, "signature", **given)


def verify(
    key_id: str,
    message: bytes | None = None,
    signature: bytes = b"",
    *,
    digest: bytes | None = None,
    algorithm: str | None = None,
    signature_format: str | None = None,
    version: int | None = None,
) -> Use[bool]:
    """Whether the signature is that of the message or digest by that version, the latest if none is named."""
    given = {"message": message, "digest": digest, "algorithm": algorithm, "signature_format": signature_format}
    members = _given(given | {"signature": signature, "version": version})
    return Use("verify", key_id, members, _member(bool, "valid"))


def mac(key_id: str, message: bytes) -> Use[bytes]:
    """The message authentication code, in full length."""
    return _of_bytes("mac", key_id, "mac", message=message)


def verify_mac(key_id: str, message: bytes, mac: bytes, version: int | None = None) -> Use[bool]:
    """Whether the code is that of the message, in constant time."""
    members = _given({"message": message, "mac": mac, "version": version})
    return Use("verify_mac", key_id, members, _member(bool, "valid"))


def wrap(key_id: str, key: bytes, algorithm: str | None = None) -> Use[bytes]:
    """Wrap a key that lives elsewhere."""
    return _of_bytes("wrap", key_id, "wrapped_key", key=key, algorithm=algorithm)


def unwrap(key_id: str, wrapped_key: bytes, algorithm: str | None = None, version: int | None = None) -> Use[bytes]:
    """The key that was wrapped."""
    return _of_bytes("unwrap", key_id, "key", wrapped_key=wrapped_key, algorithm=algorithm, version=version)


def derive(key_id: str, *, salt: bytes = b"", context: bytes = b"", length: int | None = None) -> Use[bytes]:
    """Derive `length` bytes by HKDF, with `salt`, and `context` as its info; the key must be one for derivation."""
    return _of_bytes("derive", key_id, "derived_key", salt=salt, context=context, length=length)


def agree(
    key_id: str, peer_public_key: str, *, salt: bytes = b"", info: bytes = b"", length: int | None = None
) -> Use[bytes]:
    """The key agreed on by this key and the peer's public key (PEM), derived by HKDF-SHA-256."""
    given = {"peer_public_key": peer_public_key, "salt": salt, "info": info, "length": length}
    return _of_bytes("agree", key_id, "derived_key", **given)


def encapsulate(key_id: str) -> Use[Encapsulated]:
    """A fresh shared secret for whoever holds the private key."""
    return Use("encapsulate", key_id, {}, _reader(Encapsulated))


def decapsulate(key_id: str, ciphertext: bytes) -> Use[bytes]:
    """The shared secret; for an altered ciphertext another one (FIPS 203)."""
    return _of_bytes("decapsulate", key_id, "shared_secret", ciphertext=ciphertext)


def seal(key_id: str, plaintext: bytes, info: bytes = b"") -> Use[bytes]:
    """Encrypt to a public key by HPKE (RFC 9180)."""
    return _of_bytes("seal", key_id, "ciphertext", plaintext=plaintext, info=info)


def open_sealed(key_id: str, ciphertext: bytes, info: bytes = b"") -> Use[bytes]:
    """What was sealed."""
    return _of_bytes("open_sealed", key_id, "plaintext", ciphertext=ciphertext, info=info)


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _of_bytes(operation: str, key_id: str, result: str, **members: Any) -> Use[bytes]:
    return Use(operation, key_id, _given(members), _member(bytes, result))


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    return msgspec.json.Decoder(kind).decode


def _member(kind: type[T], name: str) -> Callable[[bytes], T]:
    """Reads the member `name` of an answer."""
    decode = msgspec.json.Decoder(msgspec.defstruct("Answer", [(name, kind)])).decode
    return lambda answer: getattr(decode(answer), name)
