"""The schema is made and migrated by Alembic, under a lock, at start."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

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
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    head = str(script.get_current_head())
    if current is not None and current < at_least:
        raise StartError(f"The schema was set back to {current} outside the service; it was at {at_least}.")
    if current == head:
        return head
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise StartError(f"The database is at schema {current}, made by a newer release; run that one.")
    command.upgrade(config, "head")
    return head
