"""A small database behind the interfaces of SQLAlchemy that the vault uses: snapshots, one write lock, commits.

It is SQLite or PostgreSQL in what matters here: SQLite takes its lock when a transaction that writes begins;
PostgreSQL when the head is read for update, and a statement that waits there goes on with what it saw before, but for
the locked row. It can be away, cut off from a machine, and go back to what it was some commits ago.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Delete, Insert, Select, Table, Update

from kms.vault import tables
from kms.vault.statements import OLD
from tests.simulation import current
from tests.simulation.scheduler import Machine, Process
from tests.simulation.scheduler import Thread as Logical

State = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]
_LOCK_SECONDS = 10.0
_IDLE_SECONDS = 15.0
_HELD_SECONDS = 0.15
_REMEMBERED = 64
_SLOW = 6.0  # a commit takes long more often than a read


class DatabaseFault(Exception):
    """What the driver raises."""


class UniqueFault(Exception):
    """What the driver raises where there is such a row already."""


class Database:
    """The database of all machines. `state` is what is committed, `history` was before; `glances` as in `Vault`."""

    def __init__(self, *, is_postgresql: bool, glances: bool) -> None:
        self.is_postgresql, self.glances = is_postgresql, glances
        self.state: State = {str(table.name): {} for table in tables.metadata.sorted_tables}
        self.history: deque[State] = deque(maxlen=_REMEMBERED)
        self.away = False
        self.cut_off: set[Machine] = set()
        self.timeline = 1
        self.writer: Connection | None = None
        self.open: set[Connection] = set()
        self._waiting: list[Logical] = []
        self.holds_commits: Callable[[], bool] = lambda: False
        self.late: Callable[[], float] = lambda: 0.0
        self._held: list[tuple[Machine, Logical]] = []
        self.dialect = SimpleNamespace(
            name="postgresql" if is_postgresql else "sqlite",
            dbapi=SimpleNamespace(Error=DatabaseFault, IntegrityError=UniqueFault),
        )

    def lock(self, connection: Connection) -> None:
        """Take the write lock. Raises DatabaseFault."""
        world = current.scheduler
        until = world.now + _LOCK_SECONDS
        while self.writer is not None and self.writer is not connection:
            left = until - world.now
            if self.is_postgresql:
                idle = self.writer.last_heard + _IDLE_SECONDS - world.now
                if idle <= 0:
                    self.abort(self.writer)
                    continue
                left = min(left, idle)
            if until <= world.now:
                raise DatabaseFault("lock timeout")
            me = world.current
            self._waiting.append(me)
            if not world.block(left * me.process.machine.rate):
                self._waiting.remove(me)
        connection.require_open()
        self.writer = connection

    def hold(self, connection: Connection) -> None:
        """Take as long to commit as another machine takes to read what was before, but not for ever."""
        me = current.scheduler.current
        held = connection.process.machine, me
        self._held.append(held)
        current.scheduler.block(_HELD_SECONDS)
        self._held.remove(held)

    def head_was_read(self, connection: Connection) -> None:
        """Commits of other machines are held no longer; the answer with what was before them may be late."""
        overtaking = [thread for machine, thread in self._held if machine is not connection.process.machine]
        for thread in overtaking:
            current.scheduler.wake(thread)
        if overtaking and (late := self.late()):
            current.scheduler.sleep(late)

    def abort(self, connection: Connection) -> None:
        """End a transaction without committing it."""
        connection.is_broken = True
        self.unlock(connection)

    def unlock(self, connection: Connection) -> None:
        """A transaction is over."""
        self.open.discard(connection)
        if self.writer is connection:
            self.writer = None
            waiting, self._waiting = self._waiting, []
            for thread in waiting:
                current.scheduler.wake(thread)

    def forget(self, process: Process, *, at_once: bool) -> None:
        """A process died. A machine without power says nothing to its server, which has to find out."""
        self._waiting = [each for each in self._waiting if each.process is not process]
        self._held = [each for each in self._held if each[1].process is not process]
        for connection in list(self.open):
            if connection.process is process and (at_once or not self.is_postgresql):
                self.abort(connection)

    def go_back(self, commits: int) -> None:
        """Another server takes over, which has not got the last commits."""
        self.timeline += 1
        for connection in list(self.open):
            self.abort(connection)
        for _ in range(min(commits, len(self.history))):
            self.state = self.history.pop()


class Engine:
    """As SQLAlchemy's, for one process."""

    def __init__(self, database: Database, process: Process, *, writes: bool = False) -> None:
        self.database, self._process, self._writes = database, process, writes
        self.dialect = database.dialect

    def execution_options(self, *, kms_writes: bool = False, isolation_level: str = "") -> Engine:
        """The same engine for transactions of another kind."""
        return Engine(self.database, self._process, writes=kms_writes)

    def connect(self) -> Connection:
        """A connection."""
        return Connection(self.database, self._process, self._writes)


class Connection:
    """A connection, and the transaction on it."""

    def __init__(self, database: Database, process: Process, writes: bool) -> None:
        self.database, self.process, self.writes = database, process, writes
        self.dialect = database.dialect
        self.connection = SimpleNamespace(dbapi_connection=object())
        self.is_broken = False
        self.last_heard = current.scheduler.now
        self._read: State | None = None
        self._written: State | None = None
        self._savepoints: dict[str, State] = {}

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.unlock(self)

    def begin(self) -> Transaction:
        """Begin."""
        self.travel()
        self.database.open.add(self)
        if self.writes and not self.database.is_postgresql:
            self.database.lock(self)
            self._written = self.database.state
        return Transaction(self)

    def travel(self) -> None:
        """A message from the process to the server, or back. Raises DatabaseFault."""
        current.scheduler.point()
        self.require_open()

    def require_open(self) -> None:
        """Raise DatabaseFault where the connection is lost."""
        database = self.database
        if self.is_broken or database.away or self.process.machine in database.cut_off:
            database.abort(self)
            raise DatabaseFault("the connection is lost")
        self.last_heard = current.scheduler.now

    @property
    def seen(self) -> State:
        """What a statement sees."""
        if self._written is not None:
            return self._written
        if self.writes:
            return self.database.state  # READ COMMITTED, before the lock
        if self._read is None:
            self._read = self.database.state
        return self._read

    def lock(self) -> None:
        """What the statement that reads the head for update does first."""
        self.database.lock(self)
        if self._written is None:
            self._written = self.database.state

    def write(self, table: Table, rows: dict[tuple[Any, ...], tuple[Any, ...]]) -> None:
        """Put `rows` in the place of what is in a table."""
        if self._written is None:
            self._written = self.database.state
        self._written = {**self._written, str(table.name): rows}

    def savepoint(self, statement: str) -> None:
        """Carry out what has to do with a savepoint."""
        name = statement.rsplit(" ", 1)[-1]
        if statement.startswith("ROLLBACK"):
            self._written = self._savepoints[name]
        elif statement.startswith("SAVEPOINT"):
            self._savepoints[name] = self.seen

    def commit(self) -> None:
        """Make it durable, and say so. Either message may be lost."""
        database = self.database
        if self._written is not None and database.holds_commits():
            database.hold(self)
        current.scheduler.point(_SLOW)
        self.require_open()
        if self._written is not None and self._written is not database.state:
            before = database.state
            database.history.append(before)
            database.state = self._written
            current.scheduler.say("the database COMMITS")
            current.committed(before, self._written)
        self._read = self._written = None
        self.writes = False
        database.unlock(self)
        current.scheduler.point(_SLOW)
        self.require_open()

    def execute(self, statement: Any, _values: Any = None) -> Any:
        """The statements that are not built beforehand: those of `nodes` and `accepting`."""
        self.travel()
        result = self._carry_out(statement)
        self.travel()
        return result

    def begin_nested(self) -> Any:
        """A part that fails alone; none does here."""
        return nullcontext()

    def _carry_out(self, statement: Any) -> Any:
        if isinstance(statement, Select) and not statement.get_final_froms():
            return SimpleNamespace(scalar_one=lambda: f"{self.database.timeline:08X}")
        if isinstance(statement, Select):
            return self._select(statement)
        table, values = statement.table, statement.compile().params
        rows = self.seen[str(table.name)]
        if isinstance(statement, Insert):
            row = tuple(values[column.name] for column in table.columns)
            return self.write(table, {**rows, (row[0],): row})
        assert isinstance(statement, Update | Delete)
        place = values.get("node_id_1")
        if isinstance(statement, Delete):
            return self.write(table, {key: row for key, row in rows.items() if place is not None and row[0] != place})
        assert table is tables.nodes
        before = rows.get((place,))
        if before is None:
            return None
        beats = before[2] + values.get("beats_1", 0)
        return self.write(
            table, {**rows, (place,): (*before[:2], beats, values.get("leaving", before[3]), *before[4:])}
        )

    def _select(self, statement: Any) -> Any:
        text = str(statement)
        (table,) = statement.get_final_froms()
        rows = list(self.seen[str(table.name)].values())
        if "coalesce" not in text:
            return rows
        last = max((row[0] for row in rows), default=0)
        return SimpleNamespace(one=lambda: (len(rows), last), scalar_one=lambda: last)


class Transaction:
    """As SQLAlchemy's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._is_over = False

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and not self._is_over:
                self.commit()
        finally:
            self.close()

    def commit(self) -> None:
        """Commit."""
        self._is_over = True
        self._connection.commit()

    def close(self) -> None:
        """Undo what is not committed."""
        self._is_over = True
        self._connection.database.unlock(self._connection)


class Cursor:
    """The driver's cursor: `transaction` and `change` use it for what is built beforehand, and for savepoints."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.found: list[tuple[Any, ...]] = []

    def execute(self, statement: str) -> None:
        """A savepoint."""
        self.connection.travel()
        self.connection.savepoint(statement)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """What the last statement found."""
        return self.found

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first of what it found."""
        return self.found[0] if self.found else None


class Statement:
    """One statement that is built beforehand."""

    def __init__(self, kind: str, table: Table, columns: tuple[str, ...] = ()) -> None:
        self._act = getattr(self, f"_{kind}")
        self._table, self._name = table, str(table.name)
        self._columns = [column.name for column in table.columns]
        self._places = [self._columns.index(name) for name in columns]
        self._equal = columns
        self._key = [self._columns.index(column.name) for column in table.primary_key.columns]
        self._key_names = [column.name for column in table.primary_key.columns]

    def run(self, cursor: Cursor, values: dict[str, Any]) -> None:
        """Carry it out."""
        cursor.connection.travel()
        cursor.found = self._act(cursor.connection, values) or []
        cursor.connection.travel()

    def run_many(self, cursor: Cursor, many: list[dict[str, Any]]) -> None:
        """Carry it out for each of the values."""
        for values in many:
            self.run(cursor, values)

    def rows(self, cursor: Cursor, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """The rows that it gives."""
        self.run(cursor, values)
        return cursor.found

    def _insert(self, connection: Connection, values: dict[str, Any]) -> None:
        row = tuple(values[name] for name in self._columns)
        rows = connection.seen[self._name]
        key = tuple(row[at] for at in self._key)
        if key in rows:
            raise UniqueFault
        connection.write(self._table, {**rows, key: row})

    def _replace(self, connection: Connection, values: dict[str, Any]) -> None:
        row = tuple(values[name] for name in self._columns)
        rows = dict(connection.seen[self._name])
        rows.pop(tuple(values[OLD + name] for name in self._key_names), None)
        rows[tuple(row[at] for at in self._key)] = row
        connection.write(self._table, rows)

    def _delete(self, connection: Connection, values: dict[str, Any]) -> None:
        rows = dict(connection.seen[self._name])
        rows.pop(tuple(values[name] for name in self._key_names), None)
        connection.write(self._table, rows)

    def _matching(self, connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        wanted = [values[name] for name in self._equal]
        rows = connection.seen[self._name].values()
        if self._table is tables.head:
            connection.database.head_was_read(connection)
        if not wanted:
            return list(rows)
        return [row for row in rows if [row[at] for at in self._places] == wanted]

    def _look_at_head_and_nodes(self, connection: Connection, _values: dict[str, Any]) -> list[tuple[Any, ...]]:
        seen = connection.seen
        connection.database.head_was_read(connection)
        nothing = (None,) * len(tables.nodes.columns)
        return [(*head, *node) for head in seen["head"].values() for node in seen["nodes"].values() or [nothing]]

    def _lock_head(self, connection: Connection, _values: dict[str, Any]) -> list[tuple[Any, ...]]:
        connection.lock()
        return list(connection.seen["head"].values())

    def _lock_head_and_look(self, connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """One statement for both: what it says of nodes it saw before it waited for the lock."""
        others, timeline = self._look(connection, values)
        return [(*row, others, int(timeline, 16)) for row in self._lock_head(connection, values)]

    def _look_for_others(self, connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [self._look(connection, values)[:1]]

    def _look_for_others_and_ask(self, connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [self._look(connection, values)]

    @staticmethod
    def _look(connection: Connection, values: dict[str, Any]) -> tuple[bool, str]:
        others = any(row[0] != values["node_id"] for row in connection.seen["nodes"].values())
        return others, f"{connection.database.timeline:08X}"

    def _write_head(self, connection: Connection, values: dict[str, Any]) -> None:
        connection.write(tables.head, {(1,): (1, values["sealed"])})

    def _changes_between(self, connection: Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        rows = connection.seen["changes"]
        return [rows[(epoch,)] for epoch in range(values["seen"] + 1, values["now"] + 1) if (epoch,) in rows]

    def _prune_changes(self, connection: Connection, values: dict[str, Any]) -> None:
        rows = connection.seen["changes"]
        connection.write(tables.changes, {key: row for key, row in rows.items() if key[0] > values["seen"]})

    def _delete_folded(self, connection: Connection, values: dict[str, Any]) -> None:
        rows = connection.seen["audit_outbox"]
        connection.write(tables.audit_outbox, {key: row for key, row in rows.items() if key[0] > values["last"]})


_MADE = {
    "_locked_head": ("lock_head", tables.head),
    "_others_and_timeline": ("look_for_others_and_ask", tables.nodes),
    "_others": ("look_for_others", tables.nodes),
    "_locked_head_and_others": ("lock_head_and_look", tables.head),
    "_head_and_nodes": ("look_at_head_and_nodes", tables.head),
    "_new_head": ("write_head", tables.head),
    "_changes_between": ("changes_between", tables.changes),
    "_old_changes": ("prune_changes", tables.changes),
    "_folded_entries": ("delete_folded", tables.audit_outbox),
}


class Statements:
    """As `kms.vault.statements.Statements`."""

    def __init__(self) -> None:
        self._built: dict[Any, Statement] = {}

    def insert(self, table: Table) -> Statement:
        """Add a row."""
        return self._of("insert", table)

    def replace(self, table: Table) -> Statement:
        """Put a row in the place of another."""
        return self._of("replace", table)

    def delete(self, table: Table) -> Statement:
        """Remove a row."""
        return self._of("delete", table)

    def matching(self, table: Table, columns: tuple[str, ...], _order: str, _limit: int | None) -> Statement:
        """The rows with the given values in these columns."""
        return self._of("matching", table, columns)

    def made(self, build: Any) -> Statement:
        """What the vault builds itself, by the name of the function that does."""
        return self._of(*_MADE[build.__name__])

    def _of(self, kind: str, table: Table, columns: tuple[str, ...] = ()) -> Statement:
        asked = kind, table.name, columns
        if asked not in self._built:
            self._built[asked] = Statement(kind, table, columns)
        return self._built[asked]
