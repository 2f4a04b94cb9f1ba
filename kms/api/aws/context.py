"""The encryption context of AWS as associated data: the same bytes for the same pairs in any order.

JSON in UTF-8 with the members sorted by name and no white space; no bytes at all for no pairs. So what was encrypted
without a context opens without associated data in every dialect.
"""

from __future__ import annotations

import msgspec


def associated_data(context: dict[str, str] | None) -> bytes:
    """The associated data of an encryption context."""
    return msgspec.json.encode(context, order="sorted") if context else b""
