"""Reads of one transaction. The authentication code of every row is checked before the row is returned."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, bindparam, select, true

from kms.errors import IntegrityFailure
from kms.keys.ids import is_alias, is_key_id
from kms.keys.model import Alias, Key, KeyVersion
from kms.vault import sealed_columns, tables
from kms.vault.head import Head
from kms.vault.integrity import check_row
from kms.vault.records import from_values, table_of
from kms.vault.sealing import DerivedKeys, SealBroken, SealContext
from kms.vault.statements import Rows, cursor_of, statements_for

T = TypeVar("T")

_ROWS_REMEMBERED = 2000
_COLUMNS_OF_KEYS = len(tables.keys.columns)
MOST_CHANGES_NAMED = 10_000
"""Of how many of the newest epochs the rows of `changes` are kept; who is behind by more forgets everything."""


class Snapshot:
    """Reads of one transaction."""

    def __init__(self, connection: Connection, keys: DerivedKeys) -> None:
        self.connection = connection
        self.derived_keys = keys
        self._statements = statements_for(connection.dialect)
        self._cursor = cursor_of(connection)

    def find(self, cls: type[T], *primary_key: Any) -> T | None:
        """The value of `cls` with that primary key. Raises IntegrityFailure."""
        columns = table_of(cls).primary_key.columns
        found = self.matching(
            cls, limit=1, **{column.name: value for column, value in zip(columns, primary_key, strict=True)}
        )
        return found[0] if found else None

    def matching(self, cls: type[T], *, order_by: str = "", limit: int | None = None, **equal: Any) -> list[T]:
        """The values of `cls` whose columns are as given; `order_by` is a column, with a dash before it downwards.

        As `select`, for what is read often: the statement is built once. Raises IntegrityFailure.
        """
        statement = self._statements.matching(table_of(cls), tuple(equal), order_by, limit)
        rows = statement.rows(self._cursor, equal)
        return [_checked(self.derived_keys, self.derived_keys.oldest, cls, row) for row in rows]  # type: ignore[arg-type]  # classes are hashable

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
        """The values of `cls` that meet `criteria`; `order_by` is a column or several. Raises IntegrityFailure."""
        order = order_by if isinstance(order_by, tuple) else (order_by,)
        query = select(table_of(cls)).where(*criteria).order_by(*order).limit(limit)
        rows = self.connection.execute(query).all()
        return [_checked(self.derived_keys, self.derived_keys.oldest, cls, tuple(row)) for row in rows]  # type: ignore[arg-type]  # classes are hashable

    def rows(self, table: Table) -> Rows:
        """All rows of a table without authentication codes, unchecked."""
        return self._statements.matching(table, (), "", None).rows(self._cursor, {})

    def key_by_id(self, key_id: str) -> Key | None:
        """The key of that id."""
        if not is_key_id(key_id):  # PostgreSQL would refuse some of them, such as one with a NUL, as faults
            return None
        found = self.matching(Key, key_id=key_id, limit=1)
        return found[0] if found else None

    def key_named(self, name: str) -> Key | None:
        """The key of that id or alias."""
        return self.key_by_id(name) or self._of_alias(name, lambda uid: self.find(Key, uid))

    def key_with_latest(self, name: str) -> tuple[Key, KeyVersion] | None:
        """The key of that id or alias, with its latest version."""
        found = self._with_latest("key_id", name) if is_key_id(name) else None
        return found or self._of_alias(name, lambda uid: self._with_latest("uid", uid))

    def _of_alias(self, name: str, find: Callable[[bytes], T | None]) -> T | None:
        alias = self.find(Alias, name) if is_alias(name) else None
        return find(alias.key_uid) if alias is not None else None

    def _with_latest(self, column: str, value: Any) -> tuple[Key, KeyVersion] | None:
        rows = self._statements.with_latest(column).rows(self._cursor, {column: value})
        return self._key_and_latest(rows[0]) if rows else None

    def keys_with_latest(
        self, *criteria: ColumnElement[bool], order_by: Any = None, limit: int | None = None
    ) -> list[tuple[Key, KeyVersion]]:
        """The keys that meet `criteria`, which may be about the latest version too, each with that version."""
        query = tables.keys_with_latest.where(*criteria).order_by(order_by).limit(limit)
        return [self._key_and_latest(tuple(row)) for row in self.connection.execute(query)]

    def keys_with_versions(
        self, *criteria: ColumnElement[bool], order_by: tuple[Any, ...], limit: int
    ) -> list[tuple[Key, KeyVersion]]:
        """Keys with each of their versions that meets `criteria`, which may be about both."""
        query = tables.keys_with_versions.where(*criteria).order_by(*order_by).limit(limit)
        return [self._key_and_latest(tuple(row)) for row in self.connection.execute(query)]

    def _key_and_latest(self, row: tuple[Any, ...]) -> tuple[Key, KeyVersion]:
        if row[_COLUMNS_OF_KEYS] is None:
            raise IntegrityFailure("The latest version of a key was removed outside the service.")
        key = _checked(self.derived_keys, self.derived_keys.oldest, Key, row[:_COLUMNS_OF_KEYS])
        return key, _checked(self.derived_keys, self.derived_keys.oldest, KeyVersion, row[_COLUMNS_OF_KEYS:])

    def versions(self, key: Key) -> list[KeyVersion]:
        """All versions of `key`, oldest first, and one whose material waits for the next rotation."""
        return self.matching(KeyVersion, key_uid=key.uid, order_by="version")

    def latest_versions(self, key: Key, limit: int, below: int | None = None) -> list[KeyVersion]:
        """The newest `limit` versions of `key`, or of those `below` a number; the oldest of them first."""
        if below is None:
            # One more, for the one that may wait beyond the latest: a statement without bounds is built once.
            found = self.matching(KeyVersion, key_uid=key.uid, order_by="-version", limit=limit + 1)
            return [each for each in found if each.version <= key.latest_version][:limit][::-1]
        column = tables.key_versions.c
        criteria = [column.key_uid == key.uid, column.version < min(below, key.latest_version + 1)]
        return self.select(KeyVersion, *criteria, order_by=column.version.desc(), limit=limit)[::-1]

    def material(self, key: Key, version: KeyVersion) -> bytes:
        """The unwrapped material of one version. Raises IntegrityFailure."""
        return unwrapped(self.derived_keys, key, version)

    def head(self) -> Head:
        """The head. Raises IntegrityFailure where there is none, or it is not one that the service wrote."""
        return Head.unsealed(self.derived_keys, self.sealed_head())

    def sealed_head(self) -> bytes:
        """The head as it is stored. Raises IntegrityFailure where there is none."""
        return self._only_head(self.rows(tables.head))

    @staticmethod
    def _only_head(rows: Rows) -> bytes:
        if len(rows) != 1:
            raise IntegrityFailure("The head of the vault was removed outside the service.")
        return bytes(rows[0][1])

    def head_and_nodes(self) -> tuple[bytes | None, Rows]:
        """The head as it is stored and the rows of the nodes, by one statement; None where there is not one head."""
        rows = self._statements.made(_head_and_nodes).rows(self._cursor, {})
        heads = {(row[0], bytes(row[1])) for row in rows}
        sealed = next(iter(heads))[1] if len(heads) == 1 else None
        return sealed, [row[2:] for row in rows if row[2] is not None]

    def outdated_since(self, seen: int, now: int) -> list[str] | None:
        """The names outdated after epoch `seen` up to epoch `now`; None if some of these rows are deleted already."""
        if now <= seen:
            return []
        if now - seen > MOST_CHANGES_NAMED:
            return None
        rows = self._statements.made(_changes_between).rows(self._cursor, {"seen": seen, "now": now})
        if [row[0] for row in rows] != list(range(seen + 1, now + 1)):
            return None
        found: list[str] = []
        for epoch, packed, code in rows:
            if not self.derived_keys.is_row_mac(bytes(code), change_content(epoch, bytes(packed))):
                return None
            found += _names_decoder.decode(packed)
        return found


def _head_and_nodes() -> Any:
    return select(tables.head, tables.nodes).select_from(tables.head.outerjoin(tables.nodes, true()))


def _changes_between() -> Any:
    column = tables.changes.c
    between = (column.epoch > bindparam("seen"), column.epoch <= bindparam("now"))
    return select(tables.changes).where(*between).order_by(column.epoch)


_names_decoder = msgspec.msgpack.Decoder(list[str])


def change_content(epoch: int, packed: bytes) -> bytes:
    """What is authenticated of the names that were outdated at an epoch."""
    return msgspec.msgpack.encode(("changes", epoch, packed))


@lru_cache(_ROWS_REMEMBERED)
def _checked(keys: DerivedKeys, _oldest: int, cls: type[T], row: tuple[Any, ...]) -> T:
    """The value that a row with its code stores. It depends on nothing but the arguments, so it can be remembered.

    `_oldest` is the oldest root key in use: what is under an older one is refused. Raises IntegrityFailure.
    """
    check_row(keys, table_of(cls), row)
    return from_values(cls, row)


def material_binding(key: Key, version: int, key_type: str) -> SealContext:
    """What the material of a version is bound to."""
    return sealed_columns.material(key.uid, key.sealed_as, version, key_type)


def unwrapped(keys: DerivedKeys, key: Key, version: KeyVersion) -> bytes:
    """The unsealed material of one version. No other function unseals material. Raises IntegrityFailure."""
    if version.material is None:
        raise IntegrityFailure("This version has no material.")
    try:
        return keys.open(version.material, material_binding(key, version.version, version.type))
    except SealBroken:
        raise IntegrityFailure("The material of this version was altered outside the service.") from None
