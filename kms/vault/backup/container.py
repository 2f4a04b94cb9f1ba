"""The file of a backup: a header in clear, then records in a sealed stream that is bound to the header.

The stream is Cobblestone-256 (c2sp.org/chunked-encryption, SHA-512 and AES-256-GCM in chunks of 16 KiB): its order,
its end and its key are authenticated, so a file that was altered, cut off, put together from two, or that somebody
added to is refused, and what is read of it before that is genuine. docs/reference/formats.md has the bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from kms.errors import StartError

MAGIC = b"kms vault backup v1\n"
_LONGEST_HEADER = 1 << 16
_LENGTH_BYTES = 4
_PIECE = 1 << 18
_COMPRESSION = 1  # halves the file, in a twentieth of the time that the backup takes

Write = Callable[[bytes], Any]
Progress = Callable[[int], None]
"""Is told how many bytes of the file were read or written since the last time."""


class BackupRefused(StartError):
    """A file is not a backup, or not one that this vault's key made, or it was altered or cut off."""


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """A record: some rows of one table, their values in the order of `columns`."""

    table: str
    columns: list[str]
    rows: list[list[Any]]


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in clear, so that the backup can be told from others and its seal can be opened.

    `made_at` is RFC 3339, `schema` the revision of the schema, `counter` and `epoch` are those of the head, and
    `root_key` is the number of the root key under which the head and the backup are sealed. `unsealing` is a
    MessagePack array of the records whose rows say how the vault is unsealed; what is secret in them is wrapped.
    """

    vault_id: str
    made_at: str
    schema: str
    counter: int
    epoch: int
    root_key: int
    unsealing: bytes

    def unsealing_rows(self) -> list[Rows]:
        """The records in `unsealing`. Raises BackupRefused."""
        try:
            return msgspec.msgpack.decode(self.unsealing, type=list[Rows])
        except (msgspec.DecodeError, ValueError):  # the latter for what is no UTF-8
            raise BackupRefused("The header of this backup was altered.") from None

    def packed(self) -> bytes:
        """The magic and the header as a line of JSON: what the stream is bound to."""
        return MAGIC + msgspec.json.encode(self) + b"\n"


class Sealer:
    """Writes a backup: the header at once, then what is added, and the end when `finish` is called."""

    def __init__(self, write: Write, header: Header, key: bytes) -> None:
        self._write = write
        self.size = 0
        packed = header.packed()
        if len(packed) > _LONGEST_HEADER:
            raise BackupRefused("What this vault is unsealed with is too long for the header of a backup.")
        self._encryptor = Cobblestone256Encryptor(key, packed)
        self._put(packed)

    def add(self, record: Rows) -> None:
        """Add a record."""
        encoded = zlib.compress(msgspec.msgpack.encode(record), _COMPRESSION)
        self._put(self._encryptor.update(len(encoded).to_bytes(_LENGTH_BYTES) + encoded))

    def finish(self) -> None:
        """Write the end, without which nobody takes the file for a backup."""
        self._put(self._encryptor.finalize())

    def _put(self, content: bytes) -> None:
        self._write(content)
        self.size += len(content)


def read_header(source: BinaryIO) -> Header:
    """The header at the beginning of `source`, not authentic until a record was read. Raises BackupRefused."""
    if source.read(len(MAGIC)) != MAGIC:
        raise BackupRefused("This is not a backup of a vault, or one in a format of a newer release.")
    line = source.readline(_LONGEST_HEADER)
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BackupRefused("The header of this backup was altered or cut off.") from None
    if header.packed() != MAGIC + line:
        raise BackupRefused("The header of this backup was altered.")
    return header


def records(source: BinaryIO, header: Header, key: bytes, progress: Progress) -> Iterator[Rows]:
    """The records after the header, each authentic. Raises BackupRefused, at the end where the end is missing."""
    decryptor = Cobblestone256Decryptor(key, header.packed())
    pending = bytearray()
    try:
        while piece := source.read(_PIECE):
            progress(len(piece))
            pending += decryptor.update(piece)
            yield from _taken(pending)
        pending += decryptor.finalize()
        yield from _taken(pending)
    except (InvalidTag, ValueError, msgspec.DecodeError, zlib.error):
        raise BackupRefused("This backup was altered or cut off, or another vault's key made it.") from None
    if pending:
        raise BackupRefused("This backup ends in the middle of a record.")


def _taken(pending: bytearray) -> Iterator[Rows]:
    """Take the records that are whole."""
    at = 0
    while len(pending) - at >= _LENGTH_BYTES:
        begins = at + _LENGTH_BYTES
        ends = begins + int.from_bytes(pending[at:begins])
        if len(pending) < ends:
            break
        yield _decoder.decode(zlib.decompress(pending[begins:ends]))
        at = ends
    del pending[:at]


_decoder = msgspec.msgpack.Decoder(Rows)
