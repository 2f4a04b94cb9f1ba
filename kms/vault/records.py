"""Domain values to rows and back.

A stored class is a frozen dataclass whose fields are columns of one table. Times become microseconds since
1970, periods seconds, sets sorted words, maps JSON: forms that are the same on every database and that an
authentication code can cover.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from sqlalchemy import Table

from kms.enums import TextEnum
from kms.keys.model import Alias, Key, KeyVersion
from kms.vault import names, tables

T = TypeVar("T")
Row = dict[str, Any]
_Places = tuple[tuple[int, Callable[[Any], Any] | None], ...]
_Writers = tuple[tuple[int, Callable[[Any], Any]], ...]
_Readers = tuple[tuple[str, Callable[[Any], Any]], ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: dict[type, Table] = {Key: tables.keys, KeyVersion: tables.key_versions, Alias: tables.aliases}
_BESIDE_USE = (
    "labels",
    "description",
    "replica_labels",
    "replica_descriptions",
    "rotation_period",
    "next_rotation_at",
)
names.bears(Key, lambda key: names.of_key(key.uid), but=_BESIDE_USE)
names.bears(KeyVersion, lambda version: names.of_key(version.key_uid))
names.bears(Alias, lambda alias: names.of_alias(alias.alias))


def stored_in(table: Table) -> Callable[[type[T]], type[T]]:
    """Class decorator: values of this dataclass are rows of `table`."""

    def register(cls: type[T]) -> type[T]:
        _TABLES[cls] = table
        return cls

    return register


def table_of(cls: type) -> Table:
    """The table that stores values of `cls`."""
    return _TABLES[cls]


def microseconds(moment: datetime) -> int:
    """`moment` as stored: microseconds since 1970-01-01T00:00:00Z."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(stored: int) -> datetime:
    """The moment that is stored as so many microseconds."""
    return _EPOCH + timedelta(microseconds=stored)


def to_row(value: object) -> Row:
    """The columns of `value` in the order of its table, without its authentication code."""
    names, read, writers = _writing(type(value))  # type: ignore[arg-type]  # every class is hashable
    values = list(read(value))
    for at, write in writers:
        values[at] = write(values[at])
    return dict(zip(names, values, strict=True))


def from_values(cls: type[T], values: Sequence[Any]) -> T:
    """The value of class `cls` that a row stores, its values in the order of the table's columns."""
    readers: _Places = _places(cls)  # type: ignore[arg-type]  # every class is hashable
    return cls(*[values[at] if read is None else read(values[at]) for at, read in readers])


def from_row(cls: type[T], row: Mapping[Any, Any]) -> T:
    """The value of class `cls` that `row` stores, perhaps from before a column was added."""
    readers: _Readers = _readers(cls)  # type: ignore[arg-type]  # every class is hashable
    return cls(**{name: read(row[name]) for name, read in readers if name in row})


@cache
def _writing(cls: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], _Writers]:
    """The columns of a class, what takes their values, and what those become that are not stored as they are."""
    hints = get_type_hints(cls)
    columns = tuple(column.name for column in table_of(cls).columns if column.name != "mac")
    writers = ((at, _writer(hints[name])) for at, name in enumerate(columns))
    return columns, attrgetter(*columns), tuple((at, write) for at, write in writers if write is not _as_it_is)


def _writer(hint: Any) -> Callable[[Any], Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not type(None))
        write = _writer(inner)
        return write if write is _as_it_is else lambda value: None if value is None else write(value)
    if origin is frozenset:
        return lambda value: " ".join(sorted(value))
    if origin is dict:
        return lambda value: msgspec.json.encode(value, order="sorted").decode()
    if hint is datetime:
        return microseconds
    if hint is timedelta:
        return lambda value: int(value.total_seconds())
    if isinstance(hint, type) and issubclass(hint, TextEnum):
        return str
    return _as_it_is


@cache
def _places(cls: type) -> _Places:
    names = [column.name for column in table_of(cls).columns]
    return tuple((names.index(name), None if read is _as_it_is else read) for name, read in _readers(cls))


@cache
def _readers(cls: type) -> _Readers:
    hints = get_type_hints(cls)
    return tuple((field.name, _reader(hints[field.name])) for field in fields(cls))


def _reader(hint: Any) -> Callable[[Any], Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not type(None))
        read = _reader(inner)
        return read if read is _as_it_is else lambda value: None if value is None else read(value)
    if origin is frozenset:
        member = _reader(get_args(hint)[0])
        return cache(lambda value: frozenset(member(word) for word in value.split()))
    if origin is dict:
        return msgspec.json.decode
    if hint is datetime:
        return moment_of
    if hint is timedelta:
        return lambda value: timedelta(seconds=value)
    if isinstance(hint, type) and issubclass(hint, TextEnum):
        return {str(member): member for member in hint}.__getitem__  # calling the class takes ten times as long
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value
