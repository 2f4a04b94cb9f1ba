"""The socket on which a sealed service takes shares: `kms-data/run/unseal.sock`, for its own user and root.

One question and one answer on each connection, both a line of JSON: `{"share": TEXT}`, `{"reset": true}` or `{}`, and
`{"progress": TEXT, "refused": TEXT or null}`.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from kms.errors import StartError
from kms.vault.shares import ShareRefused

_NAME = "unseal.sock"
_LONGEST = 4096
_SECONDS = 5.0
_LOOK_SECONDS = 0.2
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client wants: to give a share, to have all forgotten, or, with neither, to know the progress."""

    share: str | None = None
    reset: bool = False


class Answer(msgspec.Struct, frozen=True):
    """The progress, and why what was asked for was refused, for people."""

    progress: str
    refused: str | None = None


class Unsealable(Protocol):
    """What shares are given to."""

    @property
    def progress(self) -> str:
        """How many were given, for people."""

    @property
    def is_done(self) -> bool:
        """Whether there were enough."""

    def give(self, text: str) -> str:
        """Take a share; returns the progress. Raises ShareRefused."""

    def reset(self) -> str:
        """Forget all of them; returns the progress."""


def serve(directory: Path, unsealing: Unsealable, progressed: Callable[[str], None]) -> None:
    """Take shares until there are enough. `progressed` is told of each change. Raises OSError."""
    with _listening(directory) as listening:
        listening.settimeout(_LOOK_SECONDS)
        while not unsealing.is_done:
            with suppress(TimeoutError):
                connection, _ = listening.accept()
                with connection, suppress(OSError):  # who does not wait for the answer gets none
                    connection.sendall(msgspec.json.encode(_answer(connection, unsealing, progressed)) + b"\n")


def _answer(connection: socket.socket, unsealing: Unsealable, progressed: Callable[[str], None]) -> Answer:
    if not _is_trusted(connection):
        structlog.get_logger().error("another user was at the unseal socket")
        return Answer("", "Only the user of the service, and root, may unseal it.")
    try:
        question = msgspec.json.decode(_line(connection), type=Question)
    except (msgspec.DecodeError, OSError):
        return Answer(unsealing.progress, "The question cannot be read.")
    try:
        if question.share is not None:
            progressed(unsealing.give(question.share))
        elif question.reset:
            progressed(unsealing.reset())
    except ShareRefused as refused:
        structlog.get_logger().warning("a share was refused", reason=str(refused))
        progressed(unsealing.progress)
        return Answer(unsealing.progress, str(refused))
    except StartError as error:
        return Answer(unsealing.progress, str(error))
    return Answer(unsealing.progress)


def ask(directory: Path, question: Question) -> Answer:
    """Ask the sealed service with that run directory. Raises FileNotFoundError where there is none, or OSError."""
    with socket.socket(socket.AF_UNIX) as connection, _short(directory) as short:
        connection.settimeout(_SECONDS * 4)
        connection.connect(str(short / _NAME))
        connection.sendall(msgspec.json.encode(question) + b"\n")
        try:
            return msgspec.json.decode(_line(connection, _SECONDS * 4), type=Answer)
        except msgspec.DecodeError as error:
            raise OSError("the service gave no answer") from error


@contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    path, unfinished = directory / _NAME, directory / f"{_NAME}.unfinished"
    for each in (path, unfinished):
        each.unlink(missing_ok=True)  # of a service that was killed; nobody else runs on this directory
    with socket.socket(socket.AF_UNIX) as listening:
        with _short(directory) as short:  # only its owner may enter the directory
            listening.bind(str(short / unfinished.name))
        unfinished.chmod(0o600)
        listening.listen(8)
        unfinished.rename(path)  # whoever sees the socket can ask
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _short(directory: Path) -> Iterator[Path]:
    """Another path to a directory, because that of a socket has 107 bytes at most."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _is_trusted(connection: socket.socket) -> bool:
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid in (0, os.geteuid())


def _line(connection: socket.socket, seconds: float = _SECONDS) -> bytes:
    """The line that the other side sends. Raises OSError where it takes its time."""
    ends, content = time.monotonic() + seconds, b""
    while not content.endswith(b"\n") and len(content) < _LONGEST:
        connection.settimeout(max(0.01, ends - time.monotonic()))
        part = connection.recv(_LONGEST)
        if not part or time.monotonic() > ends:
            break
        content += part
    return content
