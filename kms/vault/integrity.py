"""Nobody who can only write to the database can change what a key may do.

Each row carries an HMAC over all its columns: an altered row is refused when it is read, and the others go on
working. That alone would let an old copy of a row be put back, or a row be removed; against that stands the head
(see `head`).
"""

from __future__ import annotations

import hmac
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
    """The bytes that stand for a row: MessagePack of the table's name and every column but `mac`, in order.

    Columns that a later schema added follow as a map, of those only that do not hold their default. So a
    migration, which has no key to authenticate with, leaves the codes of old rows as they were.
    """
    layout = _layout(table)
    stood: list[Any] = [layout.name, *values[: layout.first]]
    if layout.added:
        added = zip(layout.added, values[layout.first : -1], strict=True)
        later = {name: value for (name, default), value in added if value != default}
        if later:
            stood.append(later)
    return msgspec.msgpack.encode(stood)


def check_row(keys: DerivedKeys, table: Table, values: Sequence[Any]) -> None:
    """Raise IntegrityFailure unless a row, its values in the order of the columns, carries its code."""
    code = values[-1]
    if not isinstance(code, bytes) or not hmac.compare_digest(code, keys.row_mac(canonical(table, values))):
        raise IntegrityFailure(f"A row of {table.name} was altered outside the service; it is not used.")
