"""Which entries of a bundle have a client, a key, an operation …: what the index keeps, and searches narrow by.

A term stands for one value of one member, as eight bytes of a hash. For each bundle a term has the places, 0 to 255,
of the entries with that value: up to 31 of them as one byte each, more as a bitmap of 32 bytes. So terms of the same
bundle can be joined to the entries that have them all, and what two terms have in common needs no list of its own.
Two values may share a term: whoever reads an entry because of it compares the value itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from kms.audit.entry import SUCCESS, AuditEntry
from kms.audit.tiles import TILE_WIDTH

_MOST_LISTED = 31
_BITMAP_BYTES = TILE_WIDTH // 8
EVERY_PLACE = (1 << TILE_WIDTH) - 1


class Kind(StrEnum):
    """What a term is about. The values are a part of the index's format."""

    CLIENT = "c"
    KEY = "k"
    VERSION = "v"
    OPERATION = "o"
    OUTCOME = "r"  # of those that are not a success
    REFUSED = "R"  # every outcome that is not a success
    TARGET = "t"
    SESSION = "s"
    CREDENTIAL = "a"


@lru_cache(1 << 16)
def term(kind: Kind, value: str = "") -> int:
    """The term of a value, a signed integer of 64 bits."""
    hashed = blake2b(kind.encode() + value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(hashed, "big", signed=True)


class Postings(NamedTuple):
    """What the index keeps of a bundle: its terms with their places, and its smallest and largest time.

    Both times are empty where no entry can be read.
    """

    places: list[tuple[int, bytes]]
    earliest: str
    latest: str


def postings_of(entries: Iterable[bytes]) -> Postings:
    """What is to be kept of a bundle of `entries`. Those that cannot be read have no terms."""
    members: tuple[defaultdict[str | int | None, bytearray], ...] = tuple(defaultdict(bytearray) for _ in _MEMBERS)
    clients, keys, versions, operations, outcomes, targets, sessions, credentials = members
    refused = bytearray()
    times = []
    for place, line in enumerate(entries):
        try:
            entry = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        times.append(entry.time)
        clients[entry.client_id].append(place)
        keys[entry.key_id].append(place)
        versions[entry.version].append(place)
        operations[entry.operation].append(place)
        if entry.outcome != SUCCESS:
            outcomes[entry.outcome].append(place)
            refused.append(place)
        if entry.target is not None:
            targets[entry.target].append(place)
        sessions[entry.session].append(place)
        if entry.credential is not None:
            credentials[entry.credential].append(place)
    found = [
        (term(kind, str(value)), _packed(places))
        for kind, values in zip(_MEMBERS, members, strict=True)
        for value, places in values.items()
        if value is not None
    ]
    if refused:
        found.append((term(Kind.REFUSED), _packed(refused)))
    return Postings(found, min(times, default=""), max(times, default=""))


def entry_in(line: bytes) -> AuditEntry | None:
    """The entry that a line is; None where it cannot be read."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _packed(places: Sequence[int]) -> bytes:
    if len(places) <= _MOST_LISTED:
        return bytes(places)
    return sum(1 << place for place in places).to_bytes(_BITMAP_BYTES, "little")


def bits_of(packed: object) -> int:
    """The places as the bits of an integer. Raises ValueError for what is no places."""
    if not isinstance(packed, bytes) or not 0 < len(packed) <= _BITMAP_BYTES:
        raise ValueError("these are no places in a bundle")
    if len(packed) == _BITMAP_BYTES:
        return int.from_bytes(packed, "little")
    bits = 0
    for place in packed:
        bits |= 1 << place
    return bits


_MEMBERS = (
    Kind.CLIENT,
    Kind.KEY,
    Kind.VERSION,
    Kind.OPERATION,
    Kind.OUTCOME,
    Kind.TARGET,
    Kind.SESSION,
    Kind.CREDENTIAL,
)
_decode = msgspec.json.Decoder(AuditEntry).decode
