"""Who may write the checkpoint: one thread of one process at a time, of all hosts that share the log's directory."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from kms.files import private_directory

STAGING = "staging"
_of_threads = Lock()


@contextmanager
def exclusive(directory: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the right to write in the log's `directory`; yields False where another process has it.

    With `wait` it is waited for. Threads of this process always wait for each other. Raises OSError.
    """
    private_directory(directory / STAGING)
    with _of_threads, open(directory / STAGING / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
