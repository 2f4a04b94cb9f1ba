"""Engines by URL, and SQLite with full durability; PostgreSQL is in `postgresql`."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kms.errors import StartError
from kms.files import fault_of, tighten
from kms.vault import postgresql
from kms.vault.postgresql import BUSY_SECONDS

_SQLITE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


_WRONG_URL = "KMS_DATABASE_URL must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST[,HOST…]/DATABASE."


def shown(url: str) -> str:
    """`url` as it may be shown: without the password, and a file with its whole path. Raises StartError."""
    try:
        parsed = postgresql.parsed(url)
    except (ArgumentError, ValueError):
        raise StartError(_WRONG_URL) from None
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
    _owner_only(Path(path))
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=0, pool_use_lifo=True, connect_args={"timeout": BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says, not where the driver guesses
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
        cursor.execute("PRAGMA case_sensitive_like=ON")  # as PostgreSQL's is, and as grants compare
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once: two changes that both read first cannot deadlock.
        writing = connection.get_execution_options().get("kms_writes", False)
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.cursor().execute("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _owner_only(path: Path) -> None:
    """Make the database file with mode 0600 before SQLite would with another, and tighten an existing one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        tighten(path, descriptor)
        os.close(descriptor)
    except OSError as error:
        raise StartError(f"Cannot open the database {path}: {fault_of(error)}.") from error
