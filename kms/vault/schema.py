"""The schema is made and migrated by Alembic, under a lock, at start."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from kms.errors import StartError

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6B6D735F  # any number that no other program on the database uses as its advisory lock


def migrate(connection: Connection, at_least: str = "") -> str:
    """Bring the schema up to date inside the transaction of `connection`, one process at a time.

    Gives the revision it is at. Raises StartError for a database that a newer release has migrated, and for one
    that was set back to before the revision `at_least`, which would forget what came with it.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    revisions = known_revisions()
    is_versioned = inspect(connection).has_table("alembic_version")
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if is_versioned else None
    if current is not None and current < at_least:
        raise StartError(f"The schema was set back to {current} outside the service; it was at {at_least}.")
    if current is not None and current not in revisions:
        raise StartError(f"The database is at schema {current}, made by a newer release; run that one.")
    if current != revisions[-1]:
        _upgrade(connection)
    return revisions[-1]


def known_revisions() -> list[str]:
    """The revisions of the schema that this release knows, the newest last."""
    return sorted(path.name[:4] for path in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def revision_of(connection: Connection) -> str:
    """The revision of a schema that a migration made."""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _upgrade(connection: Connection) -> None:
    from alembic import command  # here: most starts do without it, and without the 10 MiB that it takes
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
