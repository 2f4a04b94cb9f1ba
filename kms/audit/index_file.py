"""The file of the index: one SQLite database with mode 0600 that is made anew whenever something is wrong with it.

It belongs to one host: SQLite's write-ahead log does not work over a network.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog

from kms.audit.tree import EMPTY_ROOT

FORMAT = 1  # a file with another is made anew
_WAIT_SECONDS = 10.0
_CACHE_SIZE = "PRAGMA cache_size = -32768"  # KiB: holds what is written of one part
_NOT_DAMAGE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,  # such as a full disk, where no file could be made anew
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_PROTOCOL,  # a lock of the write-ahead log that others held for too long
}
_LOG = structlog.get_logger()

T = TypeVar("T")

_SCHEMA = (
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER, root BLOB, begin INTEGER)",
    "CREATE TABLE leaves (part INTEGER, prefix INTEGER, place INTEGER, PRIMARY KEY (part, prefix, place))"
    " WITHOUT ROWID",
    "CREATE TABLE postings"
    " (part INTEGER, term INTEGER, bundle INTEGER, places BLOB, PRIMARY KEY (part, term, bundle)) WITHOUT ROWID",
    "CREATE TABLE spans (bundle INTEGER PRIMARY KEY, earliest TEXT, latest TEXT, requests BLOB)",
)


class IndexUnusable(Exception):
    """The index is missing, damaged or busy. Whoever folds makes it anew. The message is a sentence for people."""


class IndexMissing(IndexUnusable):
    """There is no index, or none yet."""

    def __init__(self) -> None:
        super().__init__("There is no index of the audit log yet: it is being made.")


class IndexState(NamedTuple):
    """How far the index has come: `size` entries, whose tree has `root`; those before `begin` are forgotten."""

    size: int
    root: bytes
    begin: int


def damaged(reason: str) -> sqlite3.DatabaseError:
    """What to raise where a row is not what the service wrote."""
    return sqlite3.DatabaseError(reason)


def state_in(database: sqlite3.Connection) -> IndexState:
    """What the file says of itself. Raises sqlite3.DatabaseError."""
    row = database.execute("SELECT size, root, begin FROM state WHERE id = 1").fetchone()
    match row:
        case (int(size), bytes(root), int(begin)) if size >= 0 and begin >= 0:
            return IndexState(size, root, begin)
    raise damaged("it does not say how far it has come")


class IndexFile:
    """Reads and changes the file at `path`.

    What changes it keeps it open until `close`; for that an object belongs to one process. Each reading opens the
    file for itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the file. Raises IndexUnusable, also for a sqlite3.DatabaseError in the block.

        A damaged file is removed, where that can be done, so that it is made anew.
        """
        read = _identity(self.path)
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)) as database:
                database.execute("PRAGMA query_only = 1")
                _distrust(database)
                if _format_of(database) == 0:
                    raise IndexMissing
                _require_format(database)
                database.execute("BEGIN")
                yield database
        except sqlite3.DatabaseError as error:
            if read is None:
                raise IndexMissing from None
            if _is_no_damage(error):
                raise _unusable(error) from error
            with suppress(OSError):
                self._discard(read)
            raise IndexUnusable("The index of the audit log is damaged: it is being made anew.") from error

    def changed(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """What `act` returns, which is called in a transaction, a second time with an empty file if this is damaged.

        Raises what it raises, OSError, and IndexUnusable where the file can neither be used nor made anew.
        """
        with self._locked():
            try:
                return self._changed(act)
            except sqlite3.DatabaseError as error:
                if _is_no_damage(error):
                    raise _unusable(error) from error
                _LOG.warning("the index of the audit log is damaged and is made anew", reason=str(error))
                self._remove()
            try:
                return self._changed(act)
            except sqlite3.DatabaseError as error:
                raise _unusable(error) from error

    def _changed(self, act: Callable[[sqlite3.Connection], T]) -> T:
        database = self._open()
        database.execute("BEGIN IMMEDIATE")
        try:
            result = act(database)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        return result

    def discard(self) -> None:
        """Remove the file, so that it is made anew. Raises OSError."""
        self._discard(None)

    def _discard(self, read: tuple[int, int] | None) -> None:
        with self._locked():
            if read in (None, _identity(self.path)):  # and not one that was made meanwhile
                self._remove()

    def close(self) -> None:
        """Let go of the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(sqlite3.Error):  # what it writes at its end may find no room
                writer.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among the processes that write the file or remove it."""
        with open(self.path.with_name(f"{self.path.name}.lock"), "ab", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _remove(self) -> None:
        self.close()
        for suffix in ("-wal", "-shm", "-journal", ""):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        if self._writer is not None:
            if _identity(self.path) == self._opened:
                return self._writer
            self.close()  # somebody else found it damaged
        os.close(_private(str(self.path), os.O_RDWR | os.O_CREAT))
        self.path.chmod(0o600)  # the files beside it get the same
        database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._writer, self._opened = database, _identity(self.path)
        _distrust(database)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")  # after a power cut the file is older, but not torn
        database.execute(_CACHE_SIZE)
        if _format_of(database) == 0:
            _fill(database)
        _require_format(database)
        return database


def _distrust(database: sqlite3.Connection) -> None:
    """What SQLite advises for files of unknown origin ("Defense Against The Dark Arts")."""
    database.execute("PRAGMA trusted_schema = 0")
    database.execute("PRAGMA cell_size_check = 1")


def _fill(database: sqlite3.Connection) -> None:
    with database:
        database.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute("INSERT INTO state VALUES (1, 0, ?, 0)", (EMPTY_ROOT,))
        database.execute(f"PRAGMA user_version = {FORMAT}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _is_no_damage(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in _NOT_DAMAGE and code != sqlite3.SQLITE_IOERR_SHORT_READ  # a file that was cut


def _unusable(error: sqlite3.DatabaseError) -> IndexUnusable:
    return IndexUnusable(f"The index of the audit log cannot be used now: {error}.")


def _require_format(database: sqlite3.Connection) -> None:
    if (found := _format_of(database)) != FORMAT:
        raise damaged(f"it has format {found}")


def _format_of(database: sqlite3.Connection) -> int:
    """0 for a file that is empty."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])
