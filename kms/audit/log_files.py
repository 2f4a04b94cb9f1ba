"""The files of the log beside its tiles, and who may write them: one thread of one process of all hosts at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from kms.audit.note import Note
from kms.files import appearing, durable_directory, faults_of_start, private_directory

CHECKPOINT = "checkpoint"
COSIGNED = "checkpoint-cosigned"
KEY = "audit-key"  # for whoever has a copy of the log
STAGING = "staging"
_of_threads = Lock()


def content_of(directory: Path, name: str) -> bytes | None:
    """What is in a file of the log in `directory`; None where it is not there. Raises OSError."""
    try:
        return (directory / name).read_bytes()
    except FileNotFoundError:
        return None


def note_of(directory: Path, name: str) -> Note | None:
    """The note in a file of the log in `directory`; None where it is not there. Raises NoteMalformed, OSError."""
    content = content_of(directory, name)
    return Note.parse(content) if content is not None else None


def put(directory: Path, name: str, content: bytes) -> None:
    """Put a file into the log in `directory`, whole and on disk, in the place of one of that name. Raises OSError."""
    with appearing(directory / name, replace=True) as file:
        file.write(content)


@contextmanager
def exclusive(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the right to write in the log's `directory`; yields False where another process has it.

    With `wait` it is waited for. Threads of this process always wait for each other. Raises OSError.
    """
    with faults_of_start(directory):
        durable_directory(directory / STAGING)
    private_directory(directory / STAGING)
    with _of_threads, open(directory / STAGING / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
