"""The files of SQLite: after a stop the database is one file, and a log that is not its own is never applied to it.

While the database is open, SQLite keeps the newest changes in a log beside it (`kms.db-wal`). It applies whatever log
lies there to whatever database lies there: to a backup that was put back, too, which is silently undone by that, or
damaged. So a stop takes the database out of the mode with a log (bytes 18 and 19 of the file are 1, not 2; as they
are in what `VACUUM INTO` writes), and a log beside a database that is not in this mode is refused.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from sqlalchemy import Engine

from kms.clock import steady_seconds
from kms.errors import StartError
from kms.files import fault_of

_MODE = slice(18, 20)  # https://www.sqlite.org/fileformat2.html#file_format_version_numbers
_AGAIN_SECONDS = 0.02
_WITH_LOG = b"\x02\x02"


def log_of(database: Path) -> Path:
    """Where SQLite keeps the newest changes of `database` while it is open."""
    return database.with_name(f"{database.name}-wal")


def has_log(database: Path) -> bool:
    """Whether there are changes beside `database` that are not in its file, or not for certain."""
    return _size_and_identity(log_of(database)) is not None


def require_own_log(database: Path) -> None:
    """Raise StartError where the log beside `database` was not written for it as it is now. Nothing is changed."""
    log = log_of(database)
    before = _size_and_identity(log)
    if before is None:
        return
    try:
        with database.open("rb") as file:
            mode = file.read(_MODE.stop)[_MODE]
    except FileNotFoundError:
        mode = b""
    except OSError as error:
        raise StartError(f"Cannot read the database {database}: {fault_of(error)}.") from error
    # Looked at twice: another process may just have closed the database, or opened it.
    if mode == _WITH_LOG or _size_and_identity(log) != before:
        return
    if not mode:
        raise StartError(
            f"The database {database} is missing or empty, and {log.name} beside it holds its newest changes. Put "
            f"the database back; only if there is none, move {log.name} away."
        )
    raise StartError(
        f"{log} was not written for the database beside it, and applying it would undo a restore, or damage the "
        f"database. If you have put back a backup, remove {log.name} and {database.name}-shm, and start again. If "
        f"not, keep both files: somebody has put another {database.name} there."
    )


def begin_log(cursor: sqlite3.Cursor, patience_seconds: float) -> None:
    """Have the database in the mode with a log. Raises sqlite3.OperationalError.

    SQLite does not wait by itself while another process changes the mode, as at its start or stop.
    """
    deadline = steady_seconds() + patience_seconds
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or steady_seconds() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def make_one_file(engine: Engine) -> None:
    """Put every change into the database's file, and leave the mode with a log, if nobody else has it open.

    `engine`, of SQLite, is left without connections. Raises the errors of its driver where not every change could be
    put there.
    """
    engine.dispose()
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        cursor = driver.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (result,) = cursor.fetchall()
        is_busy = bool(result[0])
        cursor.execute("PRAGMA busy_timeout=0")  # who has it open keeps it open
        try:
            cursor.execute("PRAGMA journal_mode=DELETE")
        except engine.dialect.loaded_dbapi.OperationalError:
            if is_busy:
                raise
        finally:
            cursor.close()
            connection.invalidate()  # its settings are no longer those of the others


def _size_and_identity(log: Path) -> tuple[int, int, int] | None:
    """Which file that is; None where there is none, or it is empty."""
    try:
        status = log.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status.st_size else None
