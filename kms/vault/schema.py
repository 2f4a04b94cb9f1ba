"""The schema is made and migrated by Alembic, under a lock, at start; adjacent releases work side by side.

Each file in migrations/versions says in `compatible_from` the oldest revision whose release can work with the schema
that it makes. A migration that only adds (tables, columns with a default, indexes) names the one before it. A file
without that line makes a schema that no older release can use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, select, text

from kms.errors import StartError, Unavailable
from kms.vault import tables
from kms.vault.postgresql import unhurried
from kms.vault.sealed_schema import Schema, read_schema, write_schema

if TYPE_CHECKING:
    from kms.vault.change import Change

_MIGRATIONS = Path(__file__).parent / "migrations"
_COMPATIBLE_FROM = re.compile(r'^compatible_from = "(\d{4})"$', re.MULTILINE)
_LOCK = 0x6B6D735F  # any number that no other program on the database uses as its advisory lock


def own_schema() -> Schema:
    """The newest schema that this release knows."""
    newest = _files()[-1]
    # Read, not imported: a migration imports Alembic, which most starts do without, and without its 10 MiB.
    found = _COMPATIBLE_FROM.search(newest.read_text())
    return Schema(newest.name[:4], found[1] if found else newest.name[:4])


def lock(connection: Connection) -> None:
    """Keep every other process from opening and migrating, until the commit."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def lock_changes(connection: Connection) -> None:
    """Keep every change of a running service waiting, until the commit.

    Before a migration, because changes take the head first: who took it after the tables that are altered would wait
    crosswise.
    """
    if connection.dialect.name == "postgresql" and inspect(connection).has_table("head"):
        connection.execute(select(tables.head.c.id).with_for_update())


def migrate(connection: Connection, sealed: Schema | None = None) -> Schema:
    """Bring the schema up to date inside the transaction of `connection`, which holds the `lock`.

    `sealed` is what the vault says that it is at. Gives what it is at then. Raises StartError for a database that a
    newer release has migrated to what this one cannot use, and for one that was set back outside the service, which
    would forget what came with the later revision.
    """
    own, at_least = own_schema(), sealed.revision if sealed else ""
    is_versioned = inspect(connection).has_table("alembic_version")
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if is_versioned else None
    if current is not None and current < at_least:
        raise StartError(f"The schema was set back to {current} outside the service; it was at {at_least}.")
    if current is not None and current not in {path.name[:4] for path in _files()}:
        if sealed is None or current != sealed.revision or own.revision < sealed.compatible_from:
            raise StartError(too_new(sealed or Schema.of(current)))
        return sealed
    if current != own.revision:
        with unhurried(connection):
            _upgrade(connection)
    if sealed is not None and sealed.revision == own.revision:
        return max(own, sealed, key=lambda each: each.compatible_from)
    return own


def keep_out_older_releases(change: Change) -> None:
    """Let no release with an older schema work with this database from now on, as long as this schema is the newest.

    For what an older one would not enforce.
    """
    own = own_schema().revision
    if read_schema(change.connection, change.derived_keys) != Schema(own, own):
        write_schema(change.connection, change.derived_keys, Schema(own, own))


def require_usable(sealed: Schema) -> None:
    """Raise Unavailable where a newer release has changed the schema to what this one cannot use."""
    if own_schema().revision < sealed.compatible_from:
        raise Unavailable(too_new(sealed))


def too_new(schema: Schema) -> str:
    """Why this release cannot work with `schema`."""
    own = own_schema().revision
    return (
        f"The database is at schema {schema.revision}, made by a newer release; this one has {own}, "
        f"and only releases with {schema.compatible_from} or later can work with it. Run a newer one."
    )


def _files() -> list[Path]:
    return sorted((_MIGRATIONS / "versions").glob("[0-9]*.py"))


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
