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
from zlib import crc32

from kms.audit.entry import SUCCESS, entry_of
from kms.audit.index_file import damaged
from kms.audit.tiles import TILE_WIDTH

_MOST_LISTED = 31
_MARK_BYTES = 3
_NO_REQUEST = bytes(_MARK_BYTES)
_BITMAP_BYTES = TILE_WIDTH // 8
REFUSED = 0
"""The term of every outcome that is not a success. No value shares it, so that places can be ruled out by it."""

EVERY_PLACE = (1 << TILE_WIDTH) - 1


class Kind(StrEnum):
    """What a term is about. The values are a part of the index's format."""

    CLIENT = "c"
    KEY = "k"
    VERSION = "v"
    OPERATION = "o"
    OUTCOME = "r"  # of those that are not a success
    TARGET = "t"
    SESSION = "s"
    CREDENTIAL = "a"


@lru_cache(1 << 12)
def term(kind: Kind, value: str) -> int:
    """The term of a value, a signed integer of 64 bits, and never `REFUSED`."""
    hashed = blake2b(kind.encode() + value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(hashed, "big", signed=True) or 1


class Postings(NamedTuple):
    """What the index keeps of a bundle: its terms with their places, its smallest and largest time, its requests.

    Both times are empty where no entry can be read. A request has hardly more than one entry, and so no term, but
    three bytes of a checksum at the place of its entry.
    """

    places: list[tuple[int, bytes]]
    earliest: str
    latest: str
    requests: bytes


def postings_of(entries: Iterable[bytes]) -> Postings:
    """What is to be kept of a bundle of `entries`. Those that cannot be read have no terms."""
    members: tuple[defaultdict[str | int | None, bytearray], ...] = tuple(defaultdict(bytearray) for _ in _MEMBERS)
    clients, keys, versions, operations, outcomes, targets, sessions, credentials = members
    refused = bytearray()
    times, requests = [], []
    for place, line in enumerate(entries):
        entry = entry_of(line)
        if entry is None:
            requests.append(_NO_REQUEST)
            continue
        requests.append(_mark(entry.request_id))
        times.append(entry.time)
        clients[entry.client_id].append(place)
        keys[entry.key_id].append(place)
        for version in entry.used_versions:
            versions[version].append(place)
        operations[entry.operation].append(place)
        if entry.outcome != SUCCESS:
            outcomes[entry.outcome].append(place)
            refused.append(place)
        if entry.target is not None:
            targets[entry.target].append(place)
        sessions[entry.session].append(place)
        if entry.credential is not None:
            credentials[entry.credential].append(place)
    found: dict[int, bytearray] = {REFUSED: refused} if refused else {}
    for kind, values in zip(_MEMBERS, members, strict=True):
        for value, places in values.items():
            if value is not None:
                found.setdefault(term(kind, str(value)), bytearray()).extend(places)
    packed = [(each, _packed(places)) for each, places in found.items()]
    return Postings(packed, min(times, default=""), max(times, default=""), b"".join(requests))


def _mark(request_id: str) -> bytes:
    return crc32(request_id.encode()).to_bytes(4, "big")[:_MARK_BYTES]


def places_of_request(requests: object, request_id: str) -> int:
    """The places at which a bundle may have entries of a request, as bits. Raises sqlite3.DatabaseError."""
    if not isinstance(requests, bytes) or len(requests) > TILE_WIDTH * _MARK_BYTES:
        raise damaged("these are no requests of a bundle")
    mark, bits = _mark(request_id), 0
    at = requests.find(mark)
    while at >= 0:
        if at % _MARK_BYTES == 0:
            bits |= 1 << at // _MARK_BYTES
        at = requests.find(mark, at + 1)
    return bits


def _packed(places: Sequence[int]) -> bytes:
    if len(places) <= _MOST_LISTED:
        return bytes(places)
    return sum(1 << place for place in set(places)).to_bytes(_BITMAP_BYTES, "little")


def bits_of(packed: object) -> int:
    """The places as the bits of an integer. Raises sqlite3.DatabaseError for what is none."""
    if not isinstance(packed, bytes) or not 0 < len(packed) <= _BITMAP_BYTES:
        raise damaged("these are no places in a bundle")
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
