"""Which schema the database has, and which older releases can work with it: sealed in the check value of the vault.

Nobody who writes to the database can set the schema back, or let in a release that would misread it. The sealed text
is the revision; after a space the oldest revision whose release can work beside it, where that is an older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from kms.vault import tables
from kms.vault.sealing import DerivedKeys, SealContext

_FIRST_REVISION = "0001"  # what vaults are at whose check value says nothing


@dataclass(frozen=True, slots=True)
class Schema:
    """A `revision` of the schema, with which every release works whose newest one is `compatible_from` or later."""

    revision: str
    compatible_from: str

    @property
    def sealed_as(self) -> bytes:
        """The text that is sealed."""
        text = self.revision
        return (text if self.compatible_from == text else f"{text} {self.compatible_from}").encode()

    @staticmethod
    def of(text: str) -> Schema:
        """The schema of a sealed text."""
        revision, _, compatible_from = (text or _FIRST_REVISION).partition(" ")
        return Schema(revision, compatible_from or revision)


def check_context(seal: str, created_at: int) -> SealContext:
    """What the check value of the vault's own row is bound to: the rest of the row."""
    return ("vault check", seal, created_at)


def read_schema(connection: Connection, derived_keys: DerivedKeys) -> Schema:
    """The schema that the database had when a release last changed it. Raises SealBroken."""
    return schema_in(connection.execute(select(tables.vault)).mappings().one(), derived_keys)


def schema_in(row: Mapping[Any, Any], derived_keys: DerivedKeys) -> Schema:
    """What `read_schema` reads, in the vault's own row. Raises SealBroken."""
    bound_to = check_context(row["seal"], row["created_at"])
    return Schema.of(derived_keys.open(bytes(row["check_value"]), bound_to).decode())


def write_schema(connection: Connection, derived_keys: DerivedKeys, schema: Schema, seal: str | None = None) -> None:
    """Seal another schema, with another stored form of the vault's `seal` where given."""
    row = connection.execute(select(tables.vault)).mappings().one()
    seal = row["seal"] if seal is None else seal
    check_value = derived_keys.seal(schema.sealed_as, check_context(seal, row["created_at"]))
    connection.execute(update(tables.vault).values(seal=seal, check_value=check_value))
