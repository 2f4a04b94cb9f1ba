"""Statements that are built once for each table and shape, and given to the driver as they are.

SQLAlchemy builds a statement anew for each call, which costs a change more than its commit. So the shapes that every
change is made of are compiled by it once, for the dialect in use, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Boolean, Connection, Dialect, Executable, Table, bindparam, delete, insert, select, update
from sqlalchemy.sql.compiler import SQLCompiler

from kms.vault import tables

Values = dict[str, Any]
Rows = list[tuple[Any, ...]]
_DIALECTS_REMEMBERED = 8  # a process has one engine; tests have many
OLD = "old_"
"""Before the names of the primary key's columns, the row that is to be replaced."""


class Statement:
    """One compiled statement; its parameters go by name."""

    def __init__(self, dialect: Dialect, executable: Executable, result: Sequence[Table] = ()) -> None:
        compiled = executable.compile(dialect=dialect)  # type: ignore[attr-defined]  # every executable here has it
        assert isinstance(compiled, SQLCompiler)
        self._sql = str(compiled)
        self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
        order = compiled.positiontup if compiled.positional else None
        self._in_order = None if order is None else _getter(order)
        columns = [column for table in result for column in table.columns]
        is_sqlite = dialect.name == "sqlite"  # it has no booleans, and codes are over what the types say
        self._booleans = [at for at, each in enumerate(columns) if is_sqlite and isinstance(each.type, Boolean)]

    def run(self, cursor: Any, values: Values) -> None:
        """Carry it out."""
        cursor.execute(self._sql, self._bound(values))

    def run_many(self, cursor: Any, many: Iterable[Values]) -> None:
        """Carry it out for each of the values."""
        cursor.executemany(self._sql, [self._bound(values) for values in many])

    def rows(self, cursor: Any, values: Values) -> Rows:
        """The rows that it gives."""
        cursor.execute(self._sql, self._bound(values))
        rows: Rows = cursor.fetchall()
        return [self._with_booleans(row) for row in rows] if self._booleans else rows

    def _bound(self, values: Values) -> Any:
        if self._fixed:
            values = {**self._fixed, **values}
        return self._in_order(values) if self._in_order is not None else values

    def _with_booleans(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = list(row)
        for at in self._booleans:
            if changed[at] is not None:
                changed[at] = bool(changed[at])
        return tuple(changed)


def _getter(order: Sequence[str]) -> Callable[[Values], tuple[Any, ...]]:
    """A function that returns the values of these names in a row, as a tuple in this order."""
    if len(order) > 1:
        return itemgetter(*order)
    return lambda values: tuple(values[name] for name in order)


class Statements:
    """The statements of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.insert = cache(self._insert)
        self.replace = cache(self._replace)
        self.delete = cache(self._delete)
        self.matching = cache(self._matching)
        self.with_latest = cache(self._with_latest)
        self.made = cache(self._made)

    def _insert(self, table: Table) -> Statement:
        """Add a row."""
        return Statement(
            self._dialect, insert(table).values({each.name: bindparam(each.name) for each in table.columns})
        )

    def _replace(self, table: Table) -> Statement:
        """Put a row in the place of that whose primary key is given with `OLD` before the names."""
        place = (each == bindparam(OLD + each.name) for each in table.primary_key.columns)
        values: Values = {each.name: bindparam(each.name) for each in table.columns}
        return Statement(self._dialect, update(table).where(*place).values(values))

    def _delete(self, table: Table) -> Statement:
        """Remove the row with that primary key."""
        place = (each == bindparam(each.name) for each in table.primary_key.columns)
        return Statement(self._dialect, delete(table).where(*place))

    def _matching(self, table: Table, columns: tuple[str, ...], order: str, limit: int | None) -> Statement:
        """The rows with the given values in these columns; `order` is a column, with a dash before it downwards."""
        query = select(table).where(*(table.c[name] == bindparam(name) for name in columns))
        if order:
            column = table.c[order.removeprefix("-")]
            query = query.order_by(column.desc() if order.startswith("-") else column)
        return Statement(self._dialect, query.limit(limit), [table])

    def _with_latest(self, column: str) -> Statement:
        """The key in which that column has the given value, with its latest version."""
        query = tables.keys_with_latest.where(tables.keys.c[column] == bindparam(column)).limit(1)
        return Statement(self._dialect, query, [tables.keys, tables.key_versions])

    def _made(self, build: Callable[[], Executable]) -> Statement:
        """What `build` makes."""
        return Statement(self._dialect, build())


@lru_cache(_DIALECTS_REMEMBERED)
def statements_for(dialect: Dialect) -> Statements:
    """The statements of `dialect`."""
    return Statements(dialect)


def cursor_of(connection: Connection) -> Any:
    """The driver's own cursor on `connection`."""
    driver = connection.connection.dbapi_connection
    assert driver is not None
    return driver.cursor()
