"""What an entry shows of the address of a caller, and of the associated data of a message.

Both are personal data more often than not, and an entry cannot be taken back. Under a keyed hash whoever reads can
tell that two are equal; whether one is a given address only the service can tell, which has the key.
"""

from __future__ import annotations

import ipaddress
import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Literal

from kms.access import addresses

Shown = Literal["network", "full", "hashed", "none"]
"""What is shown of addresses: the IPv4 /24 or IPv6 /48, all of it, a keyed hash, or nothing."""

NOT_SHOWN = "none"
"""Stands for an address where nothing is to be shown of it."""
HASHED = "hashed:"
_HASH_BYTES = 16
_PREFIX_LENGTHS = {4: 24, 6: 48}
_SOURCES_REMEMBERED = 1 << 14


class Disclosure:
    """Writes addresses and associated data as the settings want them in entries.

    `key` is the service's for that (32 bytes). Without it, in a vault that nobody may change, hashes are of no use.
    """

    def __init__(self, shown: Shown, *, hashes_associated_data: bool, key: bytes | None) -> None:
        self.shown = shown
        self.hashes_associated_data = hashes_associated_data
        self._key = key or secrets.token_bytes(32)
        self._remembered: dict[str, str] = {}

    def source(self, source: str) -> str:
        """What an entry says for the address `source`. What is none, such as `local`, stays, and so does loopback."""
        found = self._remembered.get(source)
        if found is None:
            if len(self._remembered) >= _SOURCES_REMEMBERED:
                self._remembered.clear()
            found = self._remembered[source] = self._form(source, self.shown)
        return found

    def sources(self, source: str) -> frozenset[str]:
        """Everything that entries may say for the address `source`, whatever was set when they were written."""
        return frozenset({source, *(self._form(source, each) for each in ("network", "full", "hashed"))})

    def associated_data(self, associated_data: bytes) -> str | None:
        """The keyed hash of associated data, 16 bytes in unpadded base64url; None where there is none."""
        return self._hash(b"associated data", associated_data) if associated_data else None

    def _form(self, source: str, shown: str) -> str:
        address = addresses.address(source)
        if address is None or address.is_loopback:
            return source
        match shown:
            case "network":
                return str(ipaddress.ip_network((address, _PREFIX_LENGTHS[address.version]), strict=False))
            case "hashed":
                return HASHED + self._hash(b"source", address.packed)
            case "none":
                return NOT_SHOWN
            case _:
                return str(address)

    def _hash(self, what: bytes, content: bytes) -> str:
        found = blake2b(content, digest_size=_HASH_BYTES, key=self._key, person=what).digest()
        return urlsafe_b64encode(found).decode().rstrip("=")
