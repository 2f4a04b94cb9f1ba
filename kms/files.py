"""Files that only this user may read: written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kms.errors import Refusal, StartError
from kms.mounted import is_out_of_reach

FileIdentity = tuple[int, int, int, int] | None


def fault_of(error: OSError) -> str:
    """What is wrong, in words for a person."""
    return "disk full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else error.strerror or type(error).__name__


def identity_of(path: Path) -> FileIdentity:
    """A value that changes when the file is written or replaced; None if it cannot be found. Links are followed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def faults_of_start(directory: Path) -> Iterator[None]:
    """Raise StartError for whatever keeps a service from starting on `directory`, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise StartError(f"Cannot use {error.filename or directory}: {fault_of(error)}.") from error
    except Refusal as refusal:
        raise StartError(refusal.detail) from refusal


def private_directory(path: Path) -> Path:
    """Make `path` with mode 0700, or tighten it to that.

    One that cannot be tightened, such as a mounted volume of another owner, may be open to its group, which is warned
    of. Raises StartError where it is open to all, or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            path.chmod(0o700)
        except OSError:
            _require_closed(path)
    except OSError as error:
        raise StartError(f"Cannot make the directory {path}: {fault_of(error)}.") from error
    return path


def tighten(path: Path, descriptor: int) -> None:
    """Give an open file mode 0600, or as `private_directory` does. Raises StartError or OSError."""
    try:
        os.fchmod(descriptor, 0o600)
    except OSError:
        _require_closed(path)


def _require_closed(path: Path) -> None:
    mode = path.stat().st_mode
    shown = f"{path} belongs to another user and has mode {stat.S_IMODE(mode):04o}"
    if mode & stat.S_IRWXO:
        raise StartError(f"{shown}: everybody can use it. Take that from others, or give it to this user.")
    if mode & stat.S_IRWXG and path not in _warned_of:
        import structlog  # here: the client library does without it

        _warned_of.add(path)
        structlog.get_logger().warning(f"{shown}: whoever is in its group can read and change what the service keeps")


_warned_of: set[Path] = set()


@contextmanager
def appearing(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file with mode 0600 that appears as `path` once it is whole and on disk, and otherwise not at all.

    What is no file, such as /dev/null or a named pipe, is written to as it is. Raises OSError: without `replace`
    FileExistsError where something of that name is.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as there:
            yield there
        return
    if not replace and path.exists():
        raise FileExistsError(errno.EEXIST, "is there already", str(path))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # made with 0600
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(temporary).replace(path)
        else:
            _name_anew(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_directory(path.parent)


def durable_directory(path: Path) -> None:
    """Make `path` with mode 0700, and all above it that is missing, so that a power cut leaves it. Raises OSError."""
    if path.is_dir():
        return
    durable_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    try:
        sync_directory(path.parent)
    except OSError:
        with suppress(OSError):
            path.rmdir()  # or it would be taken for durable next time
        raise


def sync_directory(path: Path) -> None:
    """Make durable which files are in a directory. Raises OSError."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _name_anew(temporary: str, path: Path) -> None:
    """Give a file its name, if nothing has that by now."""
    try:
        path.hardlink_to(temporary)  # unlike a renaming it fails where something of that name is
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
            raise
        Path(temporary).rename(path)  # a file system without links, such as that of a memory stick


def write_private(path: Path, content: bytes) -> None:
    """Write `content` to `path` as `appearing` does, replacing what was there in one step.

    Raises StartError where the directory does not allow it.
    """
    try:
        with appearing(path, replace=True) as file:
            file.write(content)
    except OSError as error:
        raise StartError(f"Cannot write {path}: {fault_of(error)}.") from error


def private_bytes(path: Path) -> bytes:
    """The content of a file that holds a secret. Raises StartError if it cannot be read, or is open to others.

    Members of the file's group may be able to read it. A file that its mode lets others read is accepted only on a
    mount that other users cannot reach.
    """
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except OSError as error:
        raise StartError(f"Cannot read {path}: {fault_of(error)}.") from error
    if mode & (stat.S_IWOTH | stat.S_IXOTH) or (mode & stat.S_IROTH and not is_out_of_reach(path)):
        raise StartError(f"{path} holds a secret and has mode {stat.S_IMODE(mode):04o}; make it 0600.")
    return content
