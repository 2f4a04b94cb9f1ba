"""Engines: SQLite with full durability, PostgreSQL that gives up in time."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError

from kms.clock import steady_seconds
from kms.errors import StartError
from kms.files import fault_of, tighten

_BUSY_SECONDS = 10
_RESTED_SECONDS = 1.0
_IDLE_SECONDS = 15  # who holds the lock on the head and does nothing, as a node that is stopped, must not hold up all
_POSTGRESQL = {
    "connect_timeout": 5,
    "tcp_user_timeout": _IDLE_SECONDS * 1000,
    "options": f"-c lock_timeout={_BUSY_SECONDS * 1000} "
    f"-c idle_in_transaction_session_timeout={_IDLE_SECONDS * 1000}",
}
_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
_POSTGRESQL_FULL = "53100"
_FILES = "files"


_WRONG_URL = "KMS_DATABASE_URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE."


def shown(url: str) -> str:
    """`url` as it may be shown: without the password, and a file with its whole path. Raises StartError."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StartError(_WRONG_URL) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return f"sqlite:///{Path(parsed.database).resolve()}"
    # Without the query, which may hold a password too.
    return URL.create(
        parsed.get_backend_name(), parsed.username, host=parsed.host, port=parsed.port, database=parsed.database
    ).render_as_string()


def connect(url: str, pool_size: int = 20) -> Engine:
    """An engine for `url`, which is SQLite or PostgreSQL. Raises StartError."""
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite(url, parsed.database, pool_size)
        if backend == "postgresql":
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=pool_size,
                max_overflow=0,
                pool_use_lifo=True,  # a warm connection has its statements prepared and its pages at hand
                pool_timeout=_BUSY_SECONDS,
                connect_args=_POSTGRESQL,
            )
            _ping_what_rested(engine)
            return engine
    except (ArgumentError, NoSuchModuleError):
        pass  # the message of the exception repeats the URL and with it a password
    raise StartError(_WRONG_URL)


def is_full(error: BaseException) -> bool:
    """Whether a database refused to write because its disk is full."""
    cause = getattr(error, "orig", None) or error
    code = getattr(cause, "sqlite_errorcode", None)
    return code in _SQLITE_FULL or getattr(cause, "sqlstate", None) == _POSTGRESQL_FULL


def _ping_what_rested(engine: Engine) -> None:
    """Make sure that a connection still works before it is used, unless it was used a moment ago."""

    @event.listens_for(engine, "checkin")
    def rest(_connection: Any, record: Any) -> None:
        record.info["rests_since"] = steady_seconds()

    @event.listens_for(engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if steady_seconds() - record.info.get("rests_since", steady_seconds()) < _RESTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError from error  # the pool makes another


def _sqlite(url: str, path: str | None, pool_size: int) -> Engine:
    if path in (None, "", ":memory:"):
        raise StartError("A database in memory keeps no keys; KMS_DATABASE_URL=sqlite:///PATH names a file.")
    assert path is not None
    _owner_only(Path(path))
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=0, pool_use_lifo=True, connect_args={"timeout": _BUSY_SECONDS}
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
    cursor.execute("PRAGMA journal_mode=WAL")
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
