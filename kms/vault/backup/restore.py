"""Restoring a backup into an empty database, of either kind: all of it becomes visible at once, or nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from sqlalchemy import Connection, Table, inspect, select, text
from sqlalchemy.exc import DBAPIError

from kms.config import Settings
from kms.errors import IntegrityFailure, Refusal, StartError
from kms.files import private_directory
from kms.vault import tables
from kms.vault.backup.container import BackupRefused, Header, Progress, Rows, read_header, records
from kms.vault.backup.content import Check, backed_up_tables, in_order_of, unsealing_tables
from kms.vault.backup.unsealing import opened
from kms.vault.change import Change
from kms.vault.database import connect, is_full
from kms.vault.head import ACCEPTED_BEYOND, Head
from kms.vault.host import Host, newest_seen
from kms.vault.opening import Unseal, make_head
from kms.vault.queue import Group
from kms.vault.schema import lock, migrate
from kms.vault.sealed_schema import write_schema
from kms.vault.sealing import DerivedKeys
from kms.vault.statements import cursor_of, statements_for


@dataclass(frozen=True, slots=True)
class Loaded:
    """A backup whose rows are in the database, not committed yet. `seen` is the newest counter that this host saw."""

    header: Header
    head: Head
    rows: int
    seen: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a loaded backup: whether it takes the place of newer states, and up to which.

    `newest_counter` and `newest_epoch` are of the newest state that is known; 0 where none is.
    """

    is_rollback: bool
    newest_counter: int = 0
    newest_epoch: int = 0


Judge = Callable[[Change, Loaded], Verdict]
"""Looks at a loaded backup, may change it, and records the audit entry. Raises to have nothing restored."""


def read_backup(settings: Settings, source: BinaryIO, progress: Progress, unseal: Unseal | None = None) -> Loaded:
    """Read the whole of a backup and check every row in it. Nothing is written.

    `unseal` is given where something else than the seal gives the keyset. Raises StartError.
    """
    header, keys = opened(settings, source, unseal)
    check = Check(keys)
    known = {str(table.name): table for table in backed_up_tables()}
    try:
        check.unsealing(header.unsealing_rows())
        for record in records(source, header, keys.vault_backup_key(header.root_key), progress):
            table = _table_of(known, record)
            check.rows(table, _rows_of(table, record))
        head = check.end()
    except IntegrityFailure as failure:
        raise BackupRefused(f"What is in this backup does not fit together. {failure.detail}") from None
    return Loaded(header, head, check.count, newest_seen(settings.data_dir, keys.vault_id)[0])


def records_in(source: BinaryIO, keys: DerivedKeys) -> int:
    """How many rows are in a backup of the vault of `keys`, once all of it was found authentic. Raises StartError."""
    header = read_header(source)
    apart = sum(len(record.rows) for record in header.unsealing_rows() if record.table != "vault")
    content = records(source, header, keys.vault_backup_key(header.root_key), lambda _: None)
    return apart + sum(len(record.rows) for record in content)


def restore(
    settings: Settings, source: BinaryIO, judge: Judge, progress: Progress, unseal: Unseal | None = None
) -> Loaded:
    """Restore the backup in `source` into the empty database of `settings`, and have `judge` decide on it.

    Whoever calls this holds the data directory, so that no service runs on it. One transaction holds everything, and
    is committed after the end of the file was found authentic and its rows to be those that its head stands for.
    `unseal` is as for `read_backup`. Raises StartError, and then the database is as empty as before.
    """
    header, keys = opened(settings, source, unseal)
    private_directory(settings.data_dir)
    seen, epoch_seen = newest_seen(settings.data_dir, keys.vault_id)
    engine = connect(settings.database, pool_size=1)
    driver = engine.dialect.dbapi
    assert driver is not None
    try:
        with engine.connect().execution_options(kms_writes=True) as connection, connection.begin() as transaction:
            lock(connection)
            schema = migrate(connection)  # one process at a time: whoever looks now looks alone
            _require_empty(connection)
            content = records(source, header, keys.vault_backup_key(header.root_key), progress)
            head, rows = _load(connection, header, keys, content)
            if header.schema != schema.revision:
                make_head(connection, keys, _tables_of(head))
                write_schema(connection, keys, schema)
                head = Head.unsealed(keys, connection.execute(select(tables.head.c.sealed)).scalar_one())
            loaded = Loaded(header, head, rows, seen)
            change = Change(connection, keys)
            change.epoch = head.epoch
            verdict = judge(change, loaded)
            if change.entries:  # entries that are not in the backup may have had the numbers that are next
                head = head.numbered_beyond()
            group = Group(transaction, change, head, others_alive=False, held=ExitStack())
            group.keep(change)
            after = _moved(group.next_head(), verdict, seen, epoch_seen)
            change.write_entries(change.entries, head.last_entry)
            change.put_head(after.sealed(keys))
            host = Host(settings.data_dir, keys.vault_id)
    except (DBAPIError, driver.Error) as error:
        what = "its disk is full" if is_full(error) else str(getattr(error, "orig", None) or error).strip()
        raise StartError(f"The database cannot be written ({what}). Nothing was restored.") from None
    except Refusal as refusal:
        raise BackupRefused(f"Nothing was restored. {refusal.detail}") from None
    finally:
        engine.dispose()
    host.saw(after.seen)
    host.announce(after.epoch)
    host.distrust = None
    host.close()
    return loaded


def _require_empty(connection: Connection) -> None:
    """Raise StartError unless there is nothing of a vault in the database."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # a pipe may be slow
    there = set(inspect(connection).get_table_names())
    for table in tables.metadata.sorted_tables:
        if str(table.name) in there and connection.execute(select(*table.primary_key.columns).limit(1)).first():
            raise StartError(
                "There is a vault in this database already. A backup is restored into an empty database only: name "
                "another one, or move the old one away."
            )


def _load(connection: Connection, header: Header, keys: DerivedKeys, content: Iterator[Rows]) -> tuple[Head, int]:
    """Put everything into the database as it comes, and hold it to the head. Returns that, and how many rows."""
    of_unsealing = {str(table.name): table for table in unsealing_tables()}
    check = Check(keys)
    check.unsealing(header.unsealing_rows())
    for record in header.unsealing_rows():
        _insert(connection, _table_of(of_unsealing, record), record)
    known = {str(table.name): table for table in backed_up_tables()}
    for record in content:
        table = _table_of(known, record)
        check.rows(table, _insert(connection, table, record))
    return check.end(), check.count


def _insert(connection: Connection, table: Table, record: Rows) -> list[list[Any]]:
    rows = _rows_of(table, record)
    names = [str(column.name) for column in table.columns]
    statement = statements_for(connection.dialect).insert(table)
    statement.run_many(cursor_of(connection), [dict(zip(names, row, strict=True)) for row in rows])
    return rows


def _rows_of(table: Table, record: Rows) -> list[list[Any]]:
    try:
        return in_order_of(table, record)
    except (KeyError, IndexError):
        raise BackupRefused(f"This backup has other columns of {table.name} than this release knows.") from None


def _table_of(known: dict[str, Table], record: Rows) -> Table:
    try:
        return known[record.table]
    except KeyError:
        raise BackupRefused(f"This backup has a table {record.table} that this release does not know.") from None


def _tables_of(head: Head) -> set[str]:
    """The tables that the head has a digest of: those that a later schema added get an empty one."""
    return set(head.digests)


def _moved(head: Head, verdict: Verdict, seen: int, epoch_seen: int) -> Head:
    """`head` as it is to be committed: after a rollback so far ahead that every node notices, as `accept` does.

    Its history is not that of the nodes which saw what is lost, so it begins anew.
    """
    if not verdict.is_rollback:
        return head
    return replace(
        head,
        counter=max(head.counter, seen, verdict.newest_counter) + ACCEPTED_BEYOND,
        epoch=max(head.epoch, epoch_seen, verdict.newest_epoch) + ACCEPTED_BEYOND,
        switches=(),
        history_from=None,
    )
