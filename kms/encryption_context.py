"""The encryption context of AWS as associated data, and back: the same bytes for the same pairs in any order.

JSON in UTF-8 with the members sorted by name and no white space; no bytes at all for no pairs. So what was encrypted
without a context opens without associated data in every dialect.
"""

from __future__ import annotations

import msgspec


def associated_data_of(context: dict[str, str] | None) -> bytes:
    """The associated data of an encryption context."""
    return _encode(context) if context else b""


def context_of(associated_data: bytes) -> dict[str, str] | None:
    """The encryption context that `associated_data` encodes; None if it is not the encoding of one."""
    try:
        context = _decode(associated_data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return context if associated_data_of(context) == associated_data else None


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(dict[str, str]).decode
