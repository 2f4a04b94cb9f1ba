"""Which database the running service of a data directory uses; it is written in the lock file of that directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kms.errors import StartError
from kms.files import fault_of, private_directory
from kms.vault.database import shown


def hold(directory: Path) -> int:
    """Lock the folder `directory` of a running service for as long as this process lives; returns the open lock file.

    Raises StartError where another service holds it, or it cannot be locked.
    """
    path = private_directory(directory) / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(f"Cannot write {path}: {fault_of(error)}.") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(f"Another service is running on {directory.parent}.") from None
    return lock


def say(lock: int, url: str) -> None:
    """Write into the locked file `lock` from which database its holder serves, without the password.

    Raises StartError.
    """
    text = shown(url).encode()
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, text, 0)
    except OSError as error:
        raise StartError(f"Cannot write to the data directory: {error.strerror}.") from error


def served_from(lock: Path) -> str | None:
    """The database of the service that holds the file `lock`, as `shown` has it; None where no service does.

    Raises StartError.
    """
    try:
        with lock.open("rb") as file:
            try:
                # Shared, so that two who look do not take each other for the service.
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartError(f"Cannot read {lock}: {error.strerror}.") from error
    return None
