"""The vault: snapshots to read, changes to write, and the root key's keyring between them and the rows.

A change is one transaction. It holds the only write lock there is (SQLite's own; on PostgreSQL the row of the
epoch), so that changes happen one after the other on both. It keeps the codes and tallies of its rows, moves
the epoch on, and, where it takes something away, returns only when every lease granted before its commit has
ended (see `lease`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kms.errors import AlreadyExists, IntegrityFailure, Unavailable
from kms.keys.ids import is_alias, is_key_id
from kms.keys.model import Alias, Key, KeyVersion
from kms.secret import Secret
from kms.vault import tables
from kms.vault.integrity import Tally, authenticated, canonical, check_row, in_order, tally_of
from kms.vault.records import Row, from_values, table_of, to_row
from kms.vault.rows import Epoch, OutboxEntry
from kms.vault.sealing import Bound, RootKeyring, SealBroken

T = TypeVar("T")

_BUSY = "The database is busy or away; nothing was changed. Try again."
_ROWS_AT_ONCE = 500
_ROWS_REMEMBERED = 2000
_COLUMNS_OF_KEYS = len(tables.keys.columns)


class Snapshot:
    """Reads of one transaction. Every row that comes out has had its authentication code checked."""

    def __init__(self, connection: Connection, keyring: RootKeyring) -> None:
        self.connection = connection
        self.keyring = keyring

    def find(self, cls: type[T], *primary_key: Any) -> T | None:
        """The value of `cls` with that primary key. Raises IntegrityFailure."""
        columns = table_of(cls).primary_key.columns
        return self.first(cls, *(column == value for column, value in zip(columns, primary_key, strict=True)))

    def first(self, cls: type[T], *criteria: ColumnElement[bool]) -> T | None:
        """The only value of `cls` that meets `criteria`, or None."""
        values = self.select(cls, *criteria, limit=1)
        return values[0] if values else None

    def select(
        self,
        cls: type[T],
        *criteria: ColumnElement[bool],
        order_by: Any = None,
        limit: int | None = None,
    ) -> list[T]:
        """The values of `cls` that meet `criteria`. Raises IntegrityFailure."""
        query = select(table_of(cls)).where(*criteria).order_by(order_by).limit(limit)
        rows = self.connection.execute(query).all()
        return [_checked(self.keyring, cls, tuple(row)) for row in rows]  # type: ignore[arg-type]  # classes are hashable

    def key_by_id(self, key_id: str) -> Key | None:
        """The key of that id."""
        if not is_key_id(key_id):  # PostgreSQL would refuse some of them, such as one with a NUL, as faults
            return None
        return self.first(Key, tables.keys.c.key_id == key_id)

    def key_named(self, name: str) -> Key | None:
        """The key of that id or alias."""
        return self._named(name, partial(self.first, Key))

    def key_with_latest(self, name: str) -> tuple[Key, KeyVersion] | None:
        """The key of that id or alias, with its latest version."""
        return self._named(name, lambda criterion: next(iter(self.keys_with_latest(criterion)), None))

    def _named(self, name: str, find: Callable[[ColumnElement[bool]], T | None]) -> T | None:
        column = tables.keys.c
        found = find(column.key_id == name) if is_key_id(name) else None
        if found is None and is_alias(name) and (alias := self.find(Alias, name)) is not None:
            found = find(column.uid == alias.key_uid)
        return found

    def keys_with_latest(
        self, *criteria: ColumnElement[bool], order_by: Any = None, limit: int | None = None
    ) -> list[tuple[Key, KeyVersion]]:
        """The keys that meet `criteria`, which may be about the latest version too, each with that version."""
        query = tables.keys_with_latest.where(*criteria).order_by(order_by).limit(limit)
        found = []
        for row in map(tuple, self.connection.execute(query)):
            if row[_COLUMNS_OF_KEYS] is None:
                raise IntegrityFailure("The latest version of a key was removed outside the service.")
            key = _checked(self.keyring, Key, row[:_COLUMNS_OF_KEYS])
            found.append((key, _checked(self.keyring, KeyVersion, row[_COLUMNS_OF_KEYS:])))
        return found

    def versions(self, key: Key) -> list[KeyVersion]:
        """All versions of `key`, oldest first."""
        column = tables.key_versions.c
        return self.select(KeyVersion, column.key_uid == key.uid, order_by=column.version)

    def latest_versions(self, key: Key, limit: int, below: int | None = None) -> list[KeyVersion]:
        """The newest `limit` versions of `key`, or of those `below` a number; the oldest of them first."""
        column = tables.key_versions.c
        criteria = [column.key_uid == key.uid] + ([column.version < below] if below is not None else [])
        return self.select(KeyVersion, *criteria, order_by=column.version.desc(), limit=limit)[::-1]

    def material(self, key: Key, version: KeyVersion) -> bytes:
        """The unwrapped material of one version. Raises IntegrityFailure."""
        return unwrapped(self.keyring, key, version)

    def epoch(self) -> int:
        """How many changes have made cached answers wrong. Raises IntegrityFailure."""
        return self.select(Epoch)[0].epoch


@lru_cache(_ROWS_REMEMBERED)
def _checked(keyring: RootKeyring, cls: type[T], row: tuple[Any, ...]) -> T:
    """The value that a row with its code stores. It depends on nothing but the arguments, so it can be remembered.

    Raises IntegrityFailure.
    """
    check_row(keyring, table_of(cls), row)
    return from_values(cls, row)


class Change(Snapshot):
    """Writes of one transaction."""

    def __init__(self, connection: Connection, keyring: RootKeyring) -> None:
        super().__init__(connection, keyring)
        self.outdates = False
        self._terms: dict[Table, list[tuple[int, int]]] = {}

    def insert(self, *values: object) -> None:
        """Add rows. Raises AlreadyExists where another call was faster."""
        for cls, some in groupby(values, type):
            table, rows = table_of(cls), [to_row(value) for value in some]
            for row in rows:
                self._count(table, row, +1)
            self.connection.execute(insert(table), [authenticated(self.keyring, table, row) for row in rows])

    def replace(self, old: T, new: T) -> T:
        """Put `new` where `old`, read in this change, stands. Gives `new` back."""
        self.replace_all([(old, new)])
        return new

    def replace_all(self, pairs: Sequence[tuple[T, T]]) -> None:
        """`replace` for each of the pairs, all of one class."""
        if not pairs:
            return
        table, rows = table_of(type(pairs[0][0])), []
        keys = {column: f"old_{column.name}" for column in table.primary_key.columns}
        for old, new in pairs:
            before, after = to_row(old), to_row(new)
            self._count(table, before, -1)
            self._count(table, after, +1)
            place = {parameter: before[column.name] for column, parameter in keys.items()}
            rows.append(authenticated(self.keyring, table, after) | place)
        statement = update(table).where(*(column == bindparam(parameter) for column, parameter in keys.items()))
        self.connection.execute(statement.values({each.name: bindparam(each.name) for each in table.columns}), rows)

    def delete(self, *values: object) -> None:
        """Remove rows read in this change."""
        for value in values:
            table, row = table_of(type(value)), to_row(value)
            self._count(table, row, -1)
            self.connection.execute(delete(table).where(_is(table, row)))

    def seal_material(self, key: Key, version: int, key_type: str, material: bytes) -> bytes:
        """`material` sealed for its place in the table of versions."""
        return self.keyring.seal(material, material_binding(key, version, key_type))

    def record(self, entry: str) -> None:
        """Put an audit entry into the outbox: it is there exactly if the change is."""
        self.insert(OutboxEntry(next_serial(self, tables.audit_outbox.c.sequence), entry))

    def flush_tallies(self) -> None:
        """Bring the tallies up to the rows written; the last thing before the commit."""
        for table, terms in sorted(self._terms.items(), key=lambda item: item[0].name):
            tally = read_tally(self, str(table.name))
            for sign, term in terms:
                tally = tally.plus(term) if sign > 0 else tally.minus(term)
            write_tally(self, str(table.name), tally)
        self._terms.clear()

    def move_epoch(self) -> int:
        """Count this change; workers drop what they have cached when they see it."""
        (before,) = self.select(Epoch)
        return self.replace(before, Epoch(before.id, before.epoch + 1)).epoch

    def _count(self, table: Table, row: Row, sign: int) -> None:
        term = self.keyring.tally_term(canonical(table, in_order(table, row)))
        self._terms.setdefault(table, []).append((sign, term))


class Vault:
    """An unsealed vault on one engine."""

    def __init__(self, engine: Engine, keyring: RootKeyring, lease: timedelta) -> None:
        self.engine = engine
        self.keyring = keyring
        self.lease_seconds = lease.total_seconds()

    @property
    def root_key(self) -> Secret:
        """What the seal gave, for the workers that are started from this process."""
        return self.keyring.root_key

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A consistent view. Raises Unavailable where the database is."""
        with _database_faults(), self.engine.connect() as connection:
            yield Snapshot(connection, self.keyring)

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A transaction that commits when the block ends and leaves nothing behind when it raises.

        Where the block sets `outdates`, because it changes what a worker may have cached, this returns only
        when no worker can still answer from what it had. Raises Unavailable, AlreadyExists or IntegrityFailure.
        """
        with _database_faults(), self.engine.connect() as connection:
            connection = connection.execution_options(kms_writes=True)
            with connection.begin():
                connection.execute(select(tables.epoch.c.epoch).with_for_update())
                change = Change(connection, self.keyring)
                yield change
                epoch = change.move_epoch() if change.outdates else None
                change.flush_tallies()
        if epoch is not None:
            self._outlast_leases(epoch)

    def _outlast_leases(self, epoch: int) -> None:
        # Every lease granted before the commit was taken from a read that began before it, and ends at the
        # latest `lease_seconds` after that read; two per cent allow for clocks of different speed.
        time.sleep(self.lease_seconds * 1.02)
        with self.read() as snapshot:
            if snapshot.epoch() < epoch:
                raise IntegrityFailure("The epoch went back: someone else writes to the database.")

    def check_tallies(self) -> list[str]:
        """The names of tables whose rows are not those that the service wrote; empty when all is well."""
        wrong = []
        with _database_faults(), self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            snapshot = Snapshot(connection, self.keyring)
            for table in tables.authenticated_tables():
                try:
                    expected = read_tally(snapshot, str(table.name))
                except IntegrityFailure:
                    wrong.append(str(table.name))
                    continue
                rows = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table))
                if tally_of(self.keyring, table, rows) != expected:
                    wrong.append(str(table.name))
        return wrong

    def altered_rows(self) -> Iterator[str]:
        """Every row whose authentication code is wrong, as `table primary-key`."""
        with self.read() as snapshot:
            for table in tables.authenticated_tables():
                for row in snapshot.connection.execute(select(table)):
                    try:
                        check_row(self.keyring, table, row)
                    except IntegrityFailure:
                        yield f"{table.name} {_shown(table, row._mapping)}"


def material_binding(key: Key, version: int, key_type: str) -> Bound:
    """What the material of a version is bound to."""
    return ("key version", key.uid, key.key_id, version, key_type)


def unwrapped(keyring: RootKeyring, key: Key, version: KeyVersion) -> bytes:
    """The material of one version: the one door through which it leaves the vault. Raises IntegrityFailure."""
    if version.material is None:
        raise IntegrityFailure("This version has no material.")
    try:
        return keyring.open(version.material, material_binding(key, version.version, version.type))
    except SealBroken:
        raise IntegrityFailure("The material of this version was altered outside the service.") from None


def read_tally(snapshot: Snapshot, table: str) -> Tally:
    """The tally of `table`. Raises IntegrityFailure where it is missing or altered."""
    row = tables.tallies.c
    sealed = snapshot.connection.execute(select(row.sealed).where(row.table_name == table)).scalar()
    if sealed is None:
        raise IntegrityFailure(f"The tally of {table} was removed outside the service.")
    return Tally.unsealed(snapshot.keyring, table, bytes(sealed))


def write_tally(change: Change, table: str, tally: Tally) -> None:
    """Store the tally of `table`."""
    change.connection.execute(
        update(tables.tallies)
        .where(tables.tallies.c.table_name == table)
        .values(sealed=tally.sealed(change.keyring, table))
    )


def next_serial(change: Change, column: ColumnElement[int]) -> int:
    """One more than the largest value of `column`; safe because changes are one after the other."""
    return int(change.connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()) + 1


@contextmanager
def _database_faults() -> Iterator[None]:
    """Translate what a database may answer into refusals, without repeating any statement or value."""
    try:
        yield
    except IntegrityError:
        raise AlreadyExists("Another call made the same thing at the same moment. Try again.") from None
    except (DBAPIError, PoolTimeout) as error:
        raise Unavailable(_BUSY, retry_after=1) from error


def _is(table: Table, row: Mapping[Any, Any]) -> ColumnElement[bool]:
    return and_(*(column == row[column.name] for column in table.primary_key.columns))


def _shown(table: Table, row: Mapping[Any, Any]) -> str:
    values = [row[column.name] for column in table.primary_key.columns]
    return " ".join(bytes(v).hex() if isinstance(v, (bytes, memoryview)) else str(v) for v in values)
