"""Engines by URL, and SQLite with full durability; PostgreSQL is in `postgresql`."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError

from kms.errors import StartError
from kms.files import fault_of, tighten
from kms.vault import postgresql
from kms.vault.one_file import begin_log, has_log, log_of, require_own_log
from kms.vault.postgresql import BUSY_SECONDS

_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_FILES = "files"


_WRONG_URL = "KMS_DATABASE_URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST[,HOST…]/DATABASE."


def shown(url: str) -> str:
    """`url` as it may be shown: without the password, and a file with its whole path. Raises StartError."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return f"sqlite:///{Path(parsed.database).resolve()}"
    # Without the query, which may hold a password too.
    several = postgresql.hosts(parsed)
    if several:
        user = f"{quote(parsed.username)}@" if parsed.username else ""
        return f"{parsed.get_backend_name()}://{user}{several}/{parsed.database or ''}"
    return URL.create(
        parsed.get_backend_name(), parsed.username, host=parsed.host, port=parsed.port, database=parsed.database
    ).render_as_string()


def place_of(url: str, data_dir: Path) -> int:
    """A number of 64 bits, never 0, for where a database is, whoever uses it and with whatever options.

    The file of SQLite is named from the data directory if it is in there, because people move that as a whole.
    Raises StartError.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        path, folder = Path(parsed.database or "").resolve(), data_dir.resolve()
        place = f"sqlite {path.relative_to(folder) if path.is_relative_to(folder) else path}"
    else:
        hosts = postgresql.hosts(parsed) or f"{parsed.host or ''}:{parsed.port or ''}"
        place = f"{parsed.get_backend_name()} {sorted(hosts.split(','))} {parsed.database or parsed.username}"
    return int.from_bytes(sha256(place.encode()).digest()[:8]) or 1


def left_log(url: str) -> Path | None:
    """The log that a killed service has left beside its database, of SQLite; None where there is none."""
    database = file_of(url)
    return log_of(database) if database is not None and has_log(database) else None


def file_of(url: str) -> Path | None:
    """The file of a database of SQLite; None where it is another's. Raises StartError."""
    parsed = _parsed(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _parsed(url: str) -> URL:
    try:
        return postgresql.parsed(url)
    except (ArgumentError, ValueError):  # whose text may repeat a password
        raise StartError(_WRONG_URL) from None


def connect(url: str, pool_size: int = 20) -> Engine:
    """An engine for `url`, which is SQLite or PostgreSQL. Raises StartError."""
    try:
        parsed = postgresql.parsed(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite(url, parsed.database, pool_size)
        if backend == "postgresql":
            return postgresql.engine_for(parsed, pool_size)
    except (ArgumentError, NoSuchModuleError, ValueError):
        pass  # the message of the exception repeats the URL and with it a password
    raise StartError(_WRONG_URL)


def is_full(error: BaseException) -> bool:
    """Whether a database refused to write because its disk is full."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlite_errorcode", None) in _SQLITE_FULL or postgresql.is_full(cause)


def is_read_only(error: BaseException) -> bool:
    """Whether a database takes no writes."""
    cause = getattr(error, "orig", None) or error
    return getattr(cause, "sqlite_errorname", "").startswith("SQLITE_READONLY") or postgresql.is_read_only(cause)


def _sqlite(url: str, path: str | None, pool_size: int) -> Engine:
    if path in (None, "", ":memory:"):
        raise StartError("A database in memory keeps no keys; KMS_DATABASE_URL=sqlite:///PATH names a file.")
    assert path is not None
    require_own_log(Path(path))
    _owner_only(Path(path))
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=0, pool_use_lifo=True, connect_args={"timeout": BUSY_SECONDS}
    )

    @event.listens_for(engine, "do_connect")
    def require_file(*_: Any) -> None:
        if not Path(path).exists():  # SQLite would make an empty one
            raise sqlite3.OperationalError("the file of the database is not there")

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says, not where the driver guesses
        try:
            _prepare(connection.cursor())
        except UnicodeDecodeError as error:  # what SQLite says of a damaged schema repeats it
            raise sqlite3.DatabaseError("the file of the database is damaged") from error
        record.info[_FILES] = _files_at(path)

    @event.listens_for(engine, "checkout")
    def look(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info[_FILES] != _files_at(path):
            raise DisconnectionError("the files of the database are others")  # the pool makes another

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: two changes that both read first cannot deadlock.
        writing = connection.get_execution_options().get("kms_writes", False)
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.cursor().execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _prepare(cursor: sqlite3.Cursor) -> None:
    begin_log(cursor, BUSY_SECONDS)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
    cursor.execute("PRAGMA case_sensitive_like=ON")  # as PostgreSQL's is, and as grants compare
    cursor.execute("PRAGMA user_version")  # a read opens the write-ahead log, and makes it where there is none
    cursor.close()


def writes_to_its_files(connection: Connection) -> bool:
    """Whether what `connection` commits is in the files that bear their names; true where they are not of SQLite.

    Who removes or replaces a file that is open leaves the old one to the process that has it open, until it ends.
    """
    files = connection.connection.info.get(_FILES)
    path = connection.engine.url.database
    return files is None or path is None or files == _files_at(path)


def _files_at(path: str) -> list[tuple[int, int] | None]:
    """Which files are there: the database and its write-ahead log."""
    return [_file_at(path), _file_at(f"{path}-wal")]


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _owner_only(path: Path) -> None:
    """Make the database file with mode 0600 before SQLite would with another, and tighten an existing one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        tighten(path, descriptor)
        os.close(descriptor)
    except OSError as error:
        raise StartError(f"Cannot open the database {path}: {fault_of(error)}.") from error
