"""Streams of any size in the envelope format, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag

from kms.client.client import Client
from kms.client.envelope_format import DATA_KEY_BITS, Header, encoded_context, read_header
from kms.client.errors import KmsError, NotAuthentic
from kms.client.uses import DataKey

_PIECE = 1 << 20

Progress = Callable[[int], None]
"""Is told how many bytes of the source were read since the last time."""


def encrypt_stream(
    client: Client,
    key_id: str,
    source: BinaryIO,
    target: BinaryIO,
    *,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Header:
    """Encrypt `source` to its end into `target`, under a data key of its own; gives the header."""
    encoded = encoded_context(context)
    return encrypt_under(client.data_key(key_id, DATA_KEY_BITS, encoded), key_id, encoded, source, target, progress)


def encrypt_under(
    data_key: DataKey, key_id: str, context: bytes, source: BinaryIO, target: BinaryIO, progress: Progress | None
) -> Header:
    """As `encrypt_stream`, under a data key that was made for the encoded `context` and for nothing else."""
    header = Header(key_id, context, data_key.ciphertext)
    encryptor = Cobblestone256Encryptor(data_key.plaintext, header.bound())
    target.write(header.packed())
    while piece := _read(source):
        target.write(encryptor.update(piece))
        if progress is not None:
            progress(len(piece))
    target.write(encryptor.finalize())
    return header


def decrypt_stream(
    client: Client,
    source: BinaryIO,
    target: BinaryIO,
    *,
    key_id: str | None = None,
    context: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Header:
    """Decrypt `source` to its end into `target`; gives the header.

    Its context must contain the pairs in `context`, and may contain others. Each piece is verified before it is
    written, but whether the stream is complete is known only at its end: if NotAuthentic is raised, what was written
    before is a genuine beginning. Raises NotAnEnvelope, NotAuthentic, and the errors of the service.
    """
    header = read_header(source.read)
    require_key(header, key_id)
    require_context(header, context)
    data_key = client.decrypt(header.key_id, header.wrapped_key, header.context)
    decrypt_under(data_key, header, source, target, progress)
    return header


def decrypt_under(
    data_key: bytes, header: Header, source: BinaryIO, target: BinaryIO, progress: Progress | None
) -> None:
    """As `decrypt_stream`, for what follows `header`, whose data key is known."""
    decryptor = Cobblestone256Decryptor(data_key, header.bound())
    try:
        while piece := _read(source):
            target.write(decryptor.update(piece))
            if progress is not None:
                progress(len(piece))
        target.write(decryptor.finalize())
    except (InvalidTag, ValueError):
        raise NotAuthentic("It was altered or cut off.") from None


def _read(source: BinaryIO) -> bytes:
    """The next piece, no bytes at the end. Raises KmsError for a source that gives nothing for now."""
    piece: bytes | None = source.read(_PIECE)
    if piece is None:  # which must not count as its end
        raise KmsError("The source is set to non-blocking, and has nothing at the moment.")
    return piece


def require_key(header: Header, key_id: str | None) -> None:
    """Raise NotAuthentic unless what follows `header` was encrypted under that key, if one is named."""
    if key_id is not None and header.key_id != key_id:
        raise NotAuthentic(f"It was encrypted under {header.key_id}, not under {key_id}.")


def require_context(header: Header, context: Mapping[str, str] | None) -> None:
    """Raise NotAuthentic unless what follows `header` was encrypted for these pairs."""
    pairs = header.context_pairs
    for name, value in (context or {}).items():
        if pairs.get(name) != value:
            raise NotAuthentic(f"It was not encrypted for {name}={value}.")
