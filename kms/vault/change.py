"""Writes of one transaction, and what they do to the head."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any, TypeVar

import msgspec
from psycopg import Connection as PostgresConnection
from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, insert, select, update

from kms.errors import TooLarge, Unavailable
from kms.keys.model import Key
from kms.vault import names, tables
from kms.vault.head import TableDigest
from kms.vault.history import NOT_KNOWN, timeline_column
from kms.vault.integrity import canonical
from kms.vault.records import table_of, to_row
from kms.vault.rows import OutboxEntry
from kms.vault.sealing import DerivedKeys
from kms.vault.statements import OLD, Values, cursor_of
from kms.vault.transaction import MOST_CHANGES_NAMED, Snapshot, change_content, material_binding

T = TypeVar("T")

MOST_ENTRY_BYTES = (1 << 16) - 1
"""How long an audit entry may be: in the log two bytes say so (c2sp.org/tlog-tiles)."""
_CHANGES_FORGOTTEN_AT_ONCE = 256


class Change(Snapshot):
    """The writes of one transaction, and what they change in the head, which is written at the commit.

    `epoch` and `digests` are those of the head that it began with. The same commit may hold earlier changes: what
    they outdate has an epoch only once it is committed, and is `outdated_before` until then.
    `oldest_root_key`, where it is set, is the oldest root key that is in use afterwards.
    `memo` is for what callers read once in a change that makes many of the same kind, and that nothing in it changes.
    """

    def __init__(self, connection: Connection, keys: DerivedKeys) -> None:
        super().__init__(connection, keys)
        self.epoch = 0
        self.digests: Mapping[str, TableDigest] = {}
        self.outdated: set[str] = set()
        self.outdated_before: frozenset[str] = frozenset()
        self.entries: list[str] = []
        self._at_next_entry: list[Callable[[str], None]] = []
        self.terms: dict[str, tuple[int, int]] = {}
        self.oldest_root_key = 0
        self.memo: dict[object, Any] = {}

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of this change, as a context manager: if its block raises, the part is undone and the rest stays."""
        entries, terms, waiting = len(self.entries), dict(self.terms), list(self._at_next_entry)
        self._cursor.execute("SAVEPOINT part_begins")
        try:
            yield
        except BaseException:
            self._cursor.execute("ROLLBACK TO SAVEPOINT part_begins")
            del self.entries[entries:]
            self._at_next_entry = waiting
            self.terms = terms  # names that were outdated for nothing do no harm
            raise
        finally:
            self._cursor.execute("RELEASE SAVEPOINT part_begins")

    def insert(self, *values: object) -> None:
        """Insert rows. Raises AlreadyExists if there is a row with the same primary key or unique value."""
        with self.together():
            for cls, some in groupby(values, type):
                table, rows = table_of(cls), []
                for value in some:
                    row = to_row(value)
                    rows.append(self._counted(table, row, +1))
                    self.outdated.update(names.outdated_by_adding(value))
                self._write(self._statements.insert(table), rows)

    def replace(self, old: T, new: T) -> T:
        """Replace the row `old`, which must have been read in this change, by `new`; returns `new`."""
        self.replace_all([(old, new)])
        return new

    def replace_all(self, pairs: Sequence[tuple[T, T]]) -> None:
        """`replace` for each of the pairs, all of one class."""
        if not pairs:
            return
        table, rows = table_of(type(pairs[0][0])), []
        place = [column.name for column in table.primary_key.columns]
        for old, new in pairs:
            before = to_row(old)
            self._counted(table, before, -1)
            row = self._counted(table, to_row(new), +1)
            rows.append(row | {OLD + name: before[name] for name in place})
            self.outdated.update(names.outdated_by_replacing(old, new))
        self._write(self._statements.replace(table), rows)

    def renew(self, table: Table, pairs: Sequence[tuple[Values, Values]]) -> None:
        """Write rows, as they were read in this change and as they are now, under the newest root key.

        They mean what they meant before, so this outdates nothing.
        """
        place = [column.name for column in table.primary_key.columns]
        rows = []
        for before, after in pairs:
            content = canonical(table, [*after.values()])
            if table is not tables.audit_outbox:  # which has no digest
                name = str(table.name)
                count, total = self.terms.get(name, (0, 0))
                term = self.derived_keys.digest_term
                self.terms[name] = count, total + term(content) - term(canonical(table, [*before.values()]))
            mac = self.derived_keys.row_mac(content)
            rows.append({**after, "mac": mac} | {OLD + name: before[name] for name in place})
        self._write(self._statements.replace(table), rows)

    def delete(self, *values: object) -> None:
        """Remove rows read in this change."""
        for cls, some in groupby(values, type):
            table, rows = table_of(cls), []
            for value in some:
                row = to_row(value)
                self._counted(table, row, -1)
                rows.append({column.name: row[column.name] for column in table.primary_key.columns})
                self.outdated.update(names.outdated_by_removing(value))
            self._write(self._statements.delete(table), rows)

    def seal_material(self, key: Key, version: int, key_type: str, material: bytes) -> bytes:
        """`material` sealed for its place in the table of versions."""
        return self.derived_keys.seal(material, material_binding(key, version, key_type))

    def record(self, entry: str) -> None:
        """Put an audit entry into the outbox; it is committed together with the change.

        Raises TooLarge for one above `MOST_ENTRY_BYTES`, and then the change must not be made.
        """
        if len(entry.encode()) > MOST_ENTRY_BYTES:
            raise TooLarge("What this changes cannot be recorded: the names in it are too long together.")
        self.entries.append(entry)
        waiting, self._at_next_entry = self._at_next_entry, []
        for act in waiting:
            act(entry)

    def at_next_entry(self, act: Callable[[str], None]) -> None:
        """Have `act` called with the next audit entry of this change, as a part of the change."""
        self._at_next_entry.append(act)

    def write_entries(self, entries: Sequence[str], last_entry: int) -> None:
        """Write audit entries whose numbers go on from `last_entry`."""
        table = tables.audit_outbox
        rows = [to_row(OutboxEntry(last_entry + number, entry)) for number, entry in enumerate(entries, 1)]
        self._write(self._statements.insert(table), [self._with_code(table, row) for row in rows])

    def delete_entries(self, last: int) -> None:
        """Remove the audit entries up to number `last`, which are in the tree of the audit log."""
        self._statements.made(_folded_entries).run(self._cursor, {"last": last})

    def write_outdated(self, epoch: int, outdated: Collection[str]) -> None:
        """Write the names that a commit outdates, and from time to time delete old rows of them."""
        packed = msgspec.msgpack.encode(sorted(outdated))
        code = self.derived_keys.row_mac(change_content(epoch, packed))
        self._write(self._statements.insert(tables.changes), [{"epoch": epoch, "names": packed, "code": code}])
        if epoch % _CHANGES_FORGOTTEN_AT_ONCE == 0:
            before = {"seen": epoch - MOST_CHANGES_NAMED}
            self._statements.made(_old_changes).run(self._cursor, before)

    def locked_head(self, node_id: str = "", *, asks_timeline: bool = False) -> tuple[bytes, bool, int]:
        """The sealed head, locked until this transaction ends, whether there are nodes other than `node_id`, and the
        timeline that the database is on: `NOT_KNOWN` unless it is asked.

        Raises IntegrityFailure unless there is exactly one head.
        """
        others = cursor_of(self.connection)
        look = _others_and_timeline if asks_timeline else _others
        with self.together():
            self._statements.made(_locked_head).run(self._cursor, {})
            # A statement of its own: on PostgreSQL one that waits for a lock goes on with what it saw before it
            # waited, and would not see a node that joined meanwhile.
            self._statements.made(look).run(others, {"node_id": node_id})
        others_alive, *timeline = others.fetchone()
        sealed = self._only_head(self._cursor.fetchall())
        return sealed, bool(others_alive), int(timeline[0], 16) if timeline else NOT_KNOWN

    def put_head(self, sealed: bytes) -> None:
        """Put a head where there may be none or several."""
        self.connection.execute(delete(tables.head))
        self.connection.execute(insert(tables.head).values(id=1, sealed=sealed))

    def write_head(self, sealed: bytes) -> None:
        """Put the head in the place of the one before."""
        self._statements.made(_new_head).run(self._cursor, {"sealed": sealed})

    def together(self) -> AbstractContextManager[Any]:
        """Several writes in one round trip, where the database is elsewhere; what fails does so at the end."""
        driver = self.connection.connection.dbapi_connection
        return driver.pipeline() if isinstance(driver, PostgresConnection) else nullcontext()

    def require_transaction(self) -> None:
        """Raise Unavailable where the database has ended the transaction by itself, as SQLite does on a full disk."""
        driver = self.connection.connection.dbapi_connection
        if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
            raise Unavailable("The database has undone this change. Is its disk full?", retry_after=1)

    def savepoint(self) -> None:
        """Mark where this change begins."""
        self._cursor.execute("SAVEPOINT change_begins")

    def back_to_savepoint(self) -> None:
        """Undo what was done since."""
        self._cursor.execute("ROLLBACK TO SAVEPOINT change_begins")

    def _counted(self, table: Table, row: Values, sign: int) -> Values:
        """Count `row` into (`sign` +1) or out of (-1) its table's digest; returns it, when added with its code."""
        content = canonical(table, [*row.values(), None])
        name = str(table.name)
        count, total = self.terms.get(name, (0, 0))
        self.terms[name] = count + sign, total + sign * self.derived_keys.digest_term(content)
        return {**row, "mac": self.derived_keys.row_mac(content)} if sign > 0 else row

    def _with_code(self, table: Table, row: Values) -> Values:
        return {**row, "mac": self.derived_keys.row_mac(canonical(table, [*row.values(), None]))}

    def _write(self, statement: Any, rows: list[Values]) -> None:
        if len(rows) == 1:
            statement.run(self._cursor, rows[0])
        elif rows:
            statement.run_many(self._cursor, rows)


def next_serial(change: Change, column: ColumnElement[int]) -> int:
    """One more than the largest value of `column`; safe because changes are one after the other."""
    return int(change.connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()) + 1


def _old_changes() -> Any:
    return delete(tables.changes).where(tables.changes.c.epoch <= bindparam("seen"))


def _folded_entries() -> Any:
    return delete(tables.audit_outbox).where(tables.audit_outbox.c.sequence <= bindparam("last"))


def _locked_head() -> Any:
    return select(tables.head).with_for_update(of=tables.head)


def _others() -> Any:
    return select(_a_node_other_than())


def _others_and_timeline() -> Any:
    return select(_a_node_other_than(), timeline_column())


def _a_node_other_than() -> Any:
    return select(tables.nodes.c.node_id).where(tables.nodes.c.node_id != bindparam("node_id")).exists()


def _new_head() -> Any:
    return update(tables.head).values(sealed=bindparam("sealed"))
