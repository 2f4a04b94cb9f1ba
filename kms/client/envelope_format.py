"""The envelope format: data of any size, encrypted under a data key that a key of the service encrypts.

    magic                8 bytes   "kmsenv" 0x00 0x01
    length of key id     1 byte
    key id                         ASCII, of the key that encrypts the data key; only says whom to ask
    length of context    2 bytes
    context                        JSON in UTF-8, members sorted by name, no white space; no bytes for no pairs
    length of wrapped    2 bytes
    wrapped data key               a ciphertext of the service, which names key and version; its associated data is
                                   the context
    body                           Cobblestone-256 (c2sp.org/chunked-encryption) under the data key, its context being
                                   magic ‖ length of context ‖ context ‖ associated data

Integers are big-endian. The body has its own order and end. To encrypt the data key anew changes the header alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from kms.client.errors import NotAnEnvelope
from kms.encryption_context import associated_data_of

MAGIC = b"kmsenv\x00\x01"
DATA_KEY_BITS = 256
_LONGEST_KEY_ID = 255
_LONGEST_CONTEXT = 8192
_LONGEST_WRAPPED = 65_535
_VERSION_AT = slice(17, 21)  # of a ciphertext of the service


@dataclass(frozen=True)
class Header:
    """What stands before the body. `context` is the encoded one."""

    key_id: str
    context: bytes
    wrapped_key: bytes

    @property
    def version(self) -> int:
        """The version of the key that encrypted the data key."""
        return int.from_bytes(self.wrapped_key[_VERSION_AT])

    @property
    def context_pairs(self) -> dict[str, str]:
        """The context as names and values."""
        return msgspec.json.decode(self.context or b"{}", type=dict[str, str])

    def packed(self) -> bytes:
        """The bytes of the header."""
        key_id = self.key_id.encode("ascii")
        parts = [MAGIC, len(key_id).to_bytes(1), key_id, len(self.context).to_bytes(2), self.context]
        return b"".join([*parts, len(self.wrapped_key).to_bytes(2), self.wrapped_key])

    def bound(self, associated_data: bytes = b"") -> bytes:
        """What the body is bound to: all of the header that stays the same when the data key is encrypted anew."""
        return MAGIC + len(self.context).to_bytes(2) + self.context + associated_data

    def rewrapped(self, wrapped_key: bytes) -> Header:
        """With the data key encrypted anew."""
        return replace(self, wrapped_key=wrapped_key)


def encoded_context(context: Mapping[str, str] | None) -> bytes:
    """The pairs as the format has them. Raises ValueError for too many."""
    encoded = associated_data_of(dict(context or {}))
    if len(encoded) > _LONGEST_CONTEXT:
        raise ValueError(f"A context has at most {_LONGEST_CONTEXT} bytes.")
    return encoded


def read_header(read: Callable[[int], bytes]) -> Header:
    """The header at the place that `read` reads from, which is at the body then. Raises NotAnEnvelope."""

    def exactly(length: int) -> bytes:
        found = read(length)
        if len(found) < length:
            raise NotAnEnvelope("It was cut off in its header.")
        return found

    if read(len(MAGIC)) != MAGIC:
        raise NotAnEnvelope("It was not encrypted in the envelope format, or by a newer release.")
    try:
        key_id = exactly(exactly(1)[0]).decode("ascii")
        context = exactly(int.from_bytes(exactly(2)))
        header = Header(key_id, context, exactly(int.from_bytes(exactly(2))))
        # One form only, so that nobody is shown another context than the one that is bound.
        is_whole = encoded_context(header.context_pairs) == context
    except (ValueError, msgspec.DecodeError):
        is_whole = False
    if not is_whole:
        raise NotAnEnvelope("Its header is damaged.")
    return header
