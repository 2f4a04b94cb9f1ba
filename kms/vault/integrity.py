"""Authentication codes of rows: somebody who can only write to the database cannot change what a key may do.

Each row has an HMAC over all its columns. An altered row is refused when it is read; the others still work. The codes
alone would not detect that an old copy of a row was put back, or that a row was removed; the head does (see `head`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Table

from kms.errors import IntegrityFailure
from kms.vault.sealing import DerivedKeys


@dataclass(frozen=True)
class _Layout:
    """How the columns of a table lie: the first ones, those that later schemas added, and last the code."""

    name: str
    first: int
    added: tuple[tuple[str, Any], ...]


@cache
def _layout(table: Table) -> _Layout:
    columns = list(table.columns)
    added = tuple((column.name, column.info["default"]) for column in columns if "default" in column.info)
    first = len(columns) - len(added) - 1
    if any("default" in column.info for column in columns[:first]) or columns[-1].name != "mac":
        raise TypeError(f"the columns of {table.name} do not lie as they must")
    return _Layout(str(table.name), first, added)


def canonical(table: Table, values: Sequence[Any]) -> bytes:
    """The bytes of a row that its code authenticates: MessagePack of the table's name and all columns except `mac`.

    Columns that a later schema added come last, as a map of those that do not hold their default value. So the codes
    of old rows stay valid after a migration, which has no key to compute new ones.
    """
    layout = _layout(table)
    stood: list[Any] = [layout.name, *values[: layout.first]]
    if layout.added:
        added = zip(layout.added, values[layout.first : -1], strict=True)
        later = {name: value for (name, default), value in added if value != default}
        if later:
            stood.append(later)
    return msgspec.msgpack.encode(stood)


def check_row(keys: DerivedKeys, table: Table, values: Sequence[Any]) -> bytes:
    """The canonical bytes of a row that carries its code, its values in the order of the columns.

    Raises IntegrityFailure.
    """
    code, content = values[-1], canonical(table, values)
    if not isinstance(code, bytes) or not keys.is_row_mac(code, content):
        raise IntegrityFailure(f"A row of {table.name} was altered outside the service; it is not used.")
    return content
