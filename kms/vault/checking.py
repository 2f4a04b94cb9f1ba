"""Comparing the whole vault with its head, a slice at a time, so that nobody who uses keys notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Table, func, select

from kms.errors import IntegrityFailure
from kms.vault import tables
from kms.vault.folded import audit_log
from kms.vault.head import TableDigest, digest_of
from kms.vault.integrity import check_row
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_ROWS_AT_ONCE = 500


def wrong_tables(vault: Vault, pause: Callable[[], None] = lambda: None) -> list[str]:
    """The names of the tables whose rows are not those that the service wrote; empty when all is well.

    `pause` is called between two slices. Raises Unavailable.
    """
    return [str(table.name) for table in tables.authenticated_tables() if not fits(vault, table, pause)]


def fits(vault: Vault, table: Table, pause: Callable[[], None] = lambda: None) -> bool:
    """Whether the rows of `table` are those that the head stands for."""
    with vault.read() as snapshot:
        return fits_in(snapshot, table, pause)


def fits_in(snapshot: Snapshot, table: Table, pause: Callable[[], None] = lambda: None) -> bool:
    """As `fits`, of what `snapshot` reads: what else it reads of `table` is then complete, and nothing beyond."""
    try:
        head = snapshot.head()
    except IntegrityFailure:
        return False
    if table is tables.audit_outbox:
        number = table.c.sequence
        query = select(func.count(), func.min(number), func.max(number)).select_from(table)
        count, first, last = snapshot.connection.execute(query).one()
        try:
            log = audit_log(snapshot)
        except IntegrityFailure:
            return True  # that table is named for it
        if count + log.entries_folded != head.last_entry - head.lost_entries:
            return False
        return not count or bool(first > log.last_folded and last == head.last_entry)
    expected, found = head.digest(table), TableDigest()
    streamed = snapshot.connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(select(table))
    for rows in streamed.partitions():
        part = digest_of(snapshot.derived_keys, table, rows)
        found = found.plus(part.count, part.total)
        pause()
    return found == expected


def altered_rows(vault: Vault) -> Iterator[str]:
    """Every row whose authentication code is wrong, as `table primary-key`."""
    with vault.read() as snapshot:
        for table in tables.authenticated_tables():
            for row in snapshot.connection.execute(select(table)):
                try:
                    check_row(vault.derived_keys, table, row)
                except IntegrityFailure:
                    yield f"{table.name} {shown(table, row._mapping)}"


def shown(table: Table, row: Mapping[Any, Any]) -> str:
    """The primary key of a row, for people."""
    values = [row[column.name] for column in table.primary_key.columns]
    return " ".join(bytes(v).hex() if isinstance(v, (bytes, memoryview)) else str(v) for v in values)
