"""What is in a backup: which tables, and the check of their rows as they go by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select

from kms.errors import IntegrityFailure
from kms.vault import tables
from kms.vault.backup.container import Rows
from kms.vault.head import Head, TableDigest
from kms.vault.integrity import check_row
from kms.vault.sealing import DerivedKeys

ROWS_AT_ONCE = 500

_UNSEALING = {"vault", "keyslots", "root_keys"}
_LEFT_OUT = {
    "nodes",  # the hosts that serve from the database now: from the restored one nobody does
    "claims",  # what is due when. A task whose claim is missing is done at the next chance
    "changes",  # what outdates caches: nobody has cached anything of the restored database
}


def unsealing_tables() -> list[Table]:
    """The tables that it takes to unseal a vault; what is secret in them is wrapped."""
    return [table for table in tables.metadata.sorted_tables if table.name in _UNSEALING]


def backed_up_tables() -> list[Table]:
    """The tables whose rows are in the sealed part, the head first: what follows is held to it."""
    apart = _UNSEALING | _LEFT_OUT | {"head"}
    return [tables.head, *(table for table in tables.metadata.sorted_tables if table.name not in apart)]


def rows_of(connection: Connection, table: Table) -> Iterator[Rows]:
    """All rows of `table`, some at once, so that the memory does not depend on how many there are."""
    columns = [str(column.name) for column in table.columns]
    streamed = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table))
    for some in streamed.partitions():
        yield Rows(str(table.name), columns, [list(row) for row in some])


class Check:
    """Holds rows that go by to the head, which comes first."""

    def __init__(self, keys: DerivedKeys) -> None:
        self._keys = keys
        self._digests: dict[str, TableDigest] = {}
        self._folded = 0
        self.head: Head | None = None
        self.count = 0

    def rows(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Take rows of `table`, their values in the order of its columns. Raises IntegrityFailure."""
        self.count += len(rows)
        if table is tables.head:
            if self.head is not None or len(rows) != 1:
                raise IntegrityFailure("There is not exactly one head.")
            self.head = Head.unsealed(self._keys, bytes(rows[0][1]))
            return
        if table is tables.audit_log:
            at = [column.name for column in table.columns].index("entries_folded")
            self._folded = sum(row[at] for row in rows)
        name = str(table.name)
        # One canonical form serves both the code and the digest: it is most of the work.
        total = sum(self._keys.digest_term(check_row(self._keys, table, row)) for row in rows)
        self._digests[name] = self._digests.get(name, TableDigest()).plus(len(rows), total)

    def unsealing(self, header: Iterable[Rows]) -> None:
        """Take the rows that the header has. Raises IntegrityFailure."""
        named = {str(table.name): table for table in unsealing_tables()}
        for record in header:
            table = named[record.table]
            if "mac" in table.columns:  # the vault's own row is authentic as its check value opens
                self.rows(table, in_order_of(table, record))

    def end(self) -> Head:
        """The head, once all rows have gone by. Raises IntegrityFailure unless they are those it stands for."""
        if self.head is None:
            raise IntegrityFailure("The head of the vault is missing.")
        for table in tables.digested_tables():
            found = self._digests.get(str(table.name), TableDigest())
            # A table that a later schema added has no digest yet, and then no rows.
            if found != (self.head.digest(table) or TableDigest()):
                raise IntegrityFailure(f"The rows of {table.name} are not those that the service wrote.")
        entries = self._digests.get(str(tables.audit_outbox.name), TableDigest()).count + self._folded
        if entries != self.head.last_entry - self.head.lost_entries:
            raise IntegrityFailure("Entries of the audit log are missing.")
        return self.head


def in_order_of(table: Table, record: Rows) -> list[list[Any]]:
    """The rows of a record in the order of the columns of `table`, those that it does not have with their default.

    Raises KeyError for a column that the table does not have, or a missing one that is no added one.
    """
    known = {column.name: column for column in table.columns}
    if set(record.columns) - set(known):
        raise KeyError(record.table)
    at = {name: number for number, name in enumerate(record.columns)}
    order = [(at.get(name), None if name in at else column.info["default"]) for name, column in known.items()]
    return [[default if place is None else row[place] for place, default in order] for row in record.rows]
