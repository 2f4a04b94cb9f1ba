"""Encrypted files and directory trees: each file is there whole under its name, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from kms import files as private_files
from kms.client import uses
from kms.client.client import Client
from kms.client.envelope_format import DATA_KEY_BITS, MAGIC, Header, encoded_context, read_header
from kms.client.errors import KmsError, NotAnEnvelope, Refused
from kms.client.streams import Progress, decrypt_under, encrypt_under, require_context, require_key

SUFFIX = ".kms"
_AT_ONCE = 100  # data keys in one request, and files that are open meanwhile

T = TypeVar("T")
Pair = tuple[Path, Path]
"""Where a file is, and where what comes of it goes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file: its header, or why nothing came of it."""

    source: Path
    target: Path
    header: Header | None = None
    error: KmsError | None = None


def encrypt_files(
    client: Client,
    key_id: str,
    pairs: Iterable[Pair],
    *,
    context: Mapping[str, str] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Encrypt each file under a data key of its own. What concerns all of them is raised."""
    encoded = encoded_context(context)

    def encrypted(pair: Pair, data_key: Any) -> Header:
        with pair[0].open("rb") as source, appearing(pair[1], replace=replace) as target:
            return encrypt_under(data_key, key_id, encoded, source, target, progress)

    for some in _slices(pairs):
        data_keys = client.run_all(uses.data_key(key_id, DATA_KEY_BITS, encoded) for _ in some)
        for pair, data_key in zip(some, data_keys, strict=True):
            yield _outcome(pair, data_key, encrypted)


def decrypt_files(
    client: Client,
    pairs: Iterable[Pair],
    *,
    key_id: str | None = None,
    context: Mapping[str, str] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Decrypt each file that was encrypted for the pairs of `context`. What concerns all of them is raised."""

    def decrypted(pair: Pair, asked: Any) -> Header:
        source, header, data_key = asked
        if isinstance(data_key, Refused):
            raise data_key
        with appearing(pair[1], replace=replace) as target:
            decrypt_under(data_key, header, source, target, progress)
        return header  # type: ignore[no-any-return]

    for some in _slices(pairs):
        with ExitStack() as stack:
            opened = [_opened(stack, pair[0], key_id, context) for pair in some]
            headers = [each[1] for each in opened if not isinstance(each, KmsError)]
            wrapped = [uses.decrypt(each.key_id, each.wrapped_key, each.context) for each in headers]
            data_keys = iter(client.run_all(wrapped))
            for pair, one in zip(some, opened, strict=True):
                yield _outcome(pair, one if isinstance(one, KmsError) else (*one, next(data_keys)), decrypted)


def rewrap_files(client: Client, paths: Iterable[Path]) -> Iterator[Outcome]:
    """Encrypt the data key of each file anew with the latest version; their bodies stay where they are."""

    def rewrapped(pair: Pair, asked: Any) -> Header:
        header, wrapped = asked
        if isinstance(wrapped, Refused):
            raise wrapped
        after: Header = header.rewrapped(wrapped)
        _exchange_header(pair[0], header.packed(), after.packed())
        return after

    for some in _slices(paths):
        headers = [_header_of(path) for path in some]
        good = [each for each in headers if isinstance(each, Header)]
        wrapped = iter(client.run_all(uses.rewrap(each.key_id, each.wrapped_key, each.context) for each in good))
        for path, header in zip(some, headers, strict=True):
            asked = (header, next(wrapped)) if isinstance(header, Header) else header
            yield _outcome((path, path), asked, rewrapped)


def in_tree(source: Path, target: Path, *, encrypting: bool) -> Iterator[Pair]:
    """The files of the directory `source`, and where they go in `target`, with `SUFFIX` added or taken away.

    Links and whatever is no file are passed over, and when decrypting also what has not the suffix.
    """
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file() or not (encrypting or name.endswith(SUFFIX)):
                continue
            there = target / path.relative_to(source)
            yield path, there.with_name(name + SUFFIX if encrypting else name.removesuffix(SUFFIX))


def _outcome(pair: Pair, given: Any, act: Any) -> Outcome:
    """What came of one file, where it was `given` what it needs and not an error in place of that."""
    try:
        if isinstance(given, KmsError):
            raise given
        return Outcome(*pair, header=act(pair, given))
    except KmsError as error:
        return Outcome(*pair, error=error)
    except OSError as error:
        return Outcome(*pair, error=_fault(error))


def _opened(
    stack: ExitStack, path: Path, key_id: str | None, context: Mapping[str, str] | None
) -> tuple[BinaryIO, Header] | KmsError:
    try:
        source = stack.enter_context(path.open("rb"))
        header = read_header(source.read)
        require_key(header, key_id)
        require_context(header, context)
    except OSError as error:
        return _fault(error)
    except KmsError as error:
        return error
    return source, header


def _header_of(path: Path) -> Header | KmsError:
    """The header of a file, after what an interrupted exchange of it left was put right."""
    try:
        _finish_exchange(path)
        with path.open("rb") as file:
            return read_header(file.read)
    except OSError as error:
        return _fault(error)
    except KmsError as error:
        return error


@contextmanager
def appearing(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """As `kms.files.appearing`, in directories that are made. Raises KmsError where something is there already."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with private_files.appearing(path, replace=replace) as file:
            yield file
    except FileExistsError:
        raise KmsError(f"{path} is there already.") from None


def _exchange_header(path: Path, before: bytes, after: bytes) -> None:
    """Put `after` in the place of the header `before`, in a way that a crash leaves to be finished."""
    if len(before) != len(after):  # the key has another type by now
        with path.open("rb") as source, appearing(path, replace=True) as target:
            source.seek(len(before))
            target.write(after)
            shutil.copyfileobj(source, target)
        return
    with appearing(_journal_of(path), replace=False) as journal:
        journal.write(before + after)
    _finish_exchange(path)


def _finish_exchange(path: Path) -> None:
    """Carry out what stands in the journal beside the file, if there is one. Raises NotAnEnvelope."""
    journal = _journal_of(path)
    try:
        content = journal.read_bytes()
    except FileNotFoundError:
        return
    half = len(content) // 2
    before, after = content[:half], content[half:]
    if len(before) != len(after) or not (before.startswith(MAGIC) and after.startswith(MAGIC)):
        raise NotAnEnvelope(f"{journal} is not what a rewrap leaves; remove it.")
    with path.open("r+b") as file:
        found = file.read(half)
        if len(found) != half or any(byte not in two for byte, *two in zip(found, before, after, strict=True)):
            raise NotAnEnvelope(f"{journal} was left by a rewrap of another file that had this name; remove it.")
        file.seek(0)
        file.write(after)
        file.flush()
        os.fsync(file.fileno())
    journal.unlink()


def _journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".rewrap")


def _fault(error: OSError) -> KmsError:
    return KmsError(f"{error.filename or 'the file'}: {error.strerror}.")


def _slices(items: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
