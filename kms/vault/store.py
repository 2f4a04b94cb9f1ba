"""The vault: snapshots to read, changes to write, one head over everything.

A change holds the only write lock there is (the host's turn and SQLite's own lock; on PostgreSQL the row of the
head), so that changes happen one after the other on both. When it has answered, no worker acts on what was
before (see `memory`): on this host at once, on others when their leases are over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kms.clock import Clock, steady_seconds
from kms.errors import AlreadyExists, IntegrityFailure, Refusal, Unavailable
from kms.vault import new_root_keys, sentences, tables
from kms.vault.change import Change
from kms.vault.database import is_full, is_read_only, writes_to_its_files
from kms.vault.head import Head, require_not_retired
from kms.vault.history import NOT_KNOWN, timeline_of
from kms.vault.host import Host
from kms.vault.keyset import Keyset
from kms.vault.nodes import Nodes
from kms.vault.one_file import make_one_file
from kms.vault.postgresql import end_silent_holder
from kms.vault.queue import Group, Turns
from kms.vault.schema import own_schema
from kms.vault.sealing import DerivedKeys, number_of_sealed
from kms.vault.transaction import Snapshot

if TYPE_CHECKING:
    from kms.vault.memory import Memory
    from kms.vault.rows import Keyslot
    from kms.vault.unsealed import Unsealed

_CLOCKS_DIFFER_BY = 1.02
"""Two per cent allow for the clocks of two hosts not going at the same speed."""


def _unobserved(_kind: str, _seconds: float) -> None:
    """Nobody wants to know."""


def _nobody_told(_reason: str) -> None:
    """Nobody wants to know."""


def _anyone_may_join(_change: Change) -> None:
    """Nothing keeps this host from it."""


class Vault:
    """An unsealed vault on one engine. `memories` are those of this process that are told of its commits.

    `observe` is told of each "read" and "change", and how many seconds it took; `distrusted` why the database is not
    trusted any more; `errors` counts what the database did not carry out. `unsealed` is for the processes that are
    forked from this one; `opened_by` is the keyslot that this process has opened. `glances` is set where the database
    may be far away; `before_joining` is called in the change that puts this host among the nodes.
    """

    def __init__(self, engine: Engine, derived_keys: DerivedKeys, lease: timedelta, host: Host) -> None:
        self.engine = engine
        self.derived_keys = derived_keys
        self.host = host
        self.lease_seconds = lease.total_seconds()
        is_postgresql = engine.dialect.name == "postgresql"
        self.nodes = Nodes(host.node_id, self.lease_seconds, own_schema().revision, always_beats=is_postgresql)
        self.memories: list[Memory] = []
        self.observe: Callable[[str, float], None] = _unobserved
        self.distrusted: Callable[[str], None] = _nobody_told
        self.errors = Counter(conflict=0, unavailable=0)
        derived_keys.find_missing = self._new_root_key
        self._reading = engine.execution_options(isolation_level="REPEATABLE READ") if is_postgresql else engine
        self._glancing = engine.execution_options(isolation_level="AUTOCOMMIT") if is_postgresql else engine
        self._writing = engine.execution_options(kms_writes=True)
        self._turns = Turns()
        self._open_group: Group | None = None
        self.unsealed: Unsealed | None = None
        self.opened_by: Keyslot | None = None
        self.glances = False
        self.before_joining: Callable[[Change], None] = _anyone_may_join
        self._is_full = False
        self._tells_timeline: bool | None = None
        self._last_head = b"", Head(0, 0, 0)  # what this process has sealed last it need not unseal

    def _new_root_key(self, number: int) -> Keyset:
        """The keyset with a root key that another process has made. Raises UnknownRootKey or Unavailable."""
        if self.unsealed is not None and number in (shared := self.unsealed.keyset()).root_keys:
            return shared
        # Another connection, because it may be asked for in the middle of a transaction.
        with self._database_faults(), self.engine.connect() as connection, connection.begin():
            return new_root_keys.learned(connection, self.derived_keys, number)

    def made_at(self) -> datetime:
        """When this vault was made. Raises Unavailable."""
        with self.read() as snapshot:
            (row,) = snapshot.rows(tables.vault)
        return datetime.fromtimestamp(row[3] / 1_000_000, UTC)

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A consistent snapshot, as a context manager. Raises Unavailable if the database cannot be reached."""
        began = steady_seconds()
        with self._database_faults(), self._reading.connect() as connection, connection.begin():
            yield Snapshot(connection, self.derived_keys)
        self.observe("read", steady_seconds() - began)

    def glance(self) -> tuple[bytes | None, bool] | None:
        """The head as it is stored, and whether this host is among the nodes then; None where `read` is as fast.

        One statement, so that a database that is far away is asked and answers once. Raises Unavailable.
        """
        if not self.glances:
            return None
        began = steady_seconds()
        with self._database_faults(), self._glancing.connect() as connection:
            sealed, rows = Snapshot(connection, self.derived_keys).head_and_nodes()
        self.observe("read", steady_seconds() - began)
        return sealed, self.nodes.note(Nodes.of(rows))

    @contextmanager
    def change(self) -> Iterator[Change]:
        """A change, as a context manager: committed at the end of the block, undone if the block raises.

        When it returns, no worker uses what it outdates. If the block raises a Refusal, it is passed on only after
        the changes on which it may depend are durable. Raises Unavailable, AlreadyExists or IntegrityFailure.
        """
        began = steady_seconds()
        group, change = self._join_group()
        try:
            with self._database_faults():
                yield change
        except BaseException as refusal:
            group.undo(change)
            rests_on_others = group.members > 0 and isinstance(refusal, Refusal)
            self._end_turn(group)
            if rests_on_others:  # what it was refused for may have been made by one of them, and not be durable yet
                group.committed.result()
            raise
        group.keep(change)
        self._end_turn(group)
        committed_at = group.committed.result()
        self.observe("change", steady_seconds() - began)
        if change.outdated and group.others_alive:
            self._outlast_leases(group.head, committed_at)

    def database_ahead(self, clock: Clock) -> timedelta:
        """By how much the database's clock is ahead of `clock`; none where it is this host's. Raises Unavailable."""
        if self.engine.dialect.name != "postgresql":
            return timedelta()
        with self.read() as snapshot:
            before = clock()
            there = snapshot.connection.execute(select(func.clock_timestamp())).scalar_one()
            after = clock()
        return timedelta(seconds=(there - before - (after - before) / 2).total_seconds())

    def _join_group(self) -> tuple[Group, Change]:
        """Take a turn in the open group or a new one."""
        self._turns.take()
        group, self._open_group = self._open_group, None
        try:
            with self._database_faults():
                group = group or self._new_group()
                return group, group.join()
        except BaseException as fault:
            if group is not None:
                group.fault = fault
                self._end_turn(group)
            else:
                self._turns.pass_on()
            raise

    def _new_group(self) -> Group:
        if self._tells_timeline is None:
            with self._reading.connect() as connection, connection.begin():
                self._tells_timeline = timeline_of(connection) != NOT_KNOWN
        with ExitStack() as held:
            held.enter_context(self.host.turn())
            connection = held.enter_context(self._writing.connect())
            transaction = connection.begin()
            if self.host.distrust is not None:
                raise IntegrityFailure(f"{self.host.distrust} Nothing is changed until an operator accepts it.")
            first = Change(connection, self.derived_keys)
            sealed, others_alive, timeline = first.locked_head(
                self.nodes.node_id, asks_timeline=bool(self._tells_timeline)
            )
            require_not_retired(sealed, self.derived_keys.oldest)
            head = self._last_head[1] if sealed == self._last_head[0] else Head.unsealed(self.derived_keys, sealed)
            head.require_not_before(self.host.counter, self.host.seen)
            if number_of_sealed(sealed) < self.derived_keys.keyset.newest:
                # It has learned it from a commit that a failover lost. Under it nobody else could read anything.
                raise Unavailable(
                    "This process has a root key that the database does not know of any more. Restart this node.",
                    retry_after=5,
                )
            first.epoch, first.digests = head.epoch, head.digests
            going_on = head.found_on(timeline)
            if going_on.switches != head.switches:
                # The row of a node that joined just before the failover may be lost, and that node hold a lease which
                # the former primary has granted.
                time.sleep(self.lease_seconds * _CLOCKS_DIFFER_BY)
            return Group(transaction, first, going_on, others_alive, held.pop_all())

    def _end_turn(self, group: Group) -> None:
        if group.may_grow and self._turns.hand_over(lambda: setattr(self, "_open_group", group)):
            return
        try:
            with self._database_faults():
                self._commit(group)
        except BaseException as fault:  # noqa: BLE001  # each of its members raises it
            group.close(fault)
        else:
            group.close()
        finally:
            self._turns.pass_on()

    def _commit(self, group: Group) -> None:
        """Make a group durable. Raises its fault, where it has one; what is not committed is undone as it closes."""
        if group.fault is not None:
            raise group.fault
        if not group.members:
            return
        group.first.require_transaction()
        head = group.next_head()
        sealed = head.sealed(self.derived_keys)
        with group.first.together():
            group.first.write_entries(group.entries, group.head.last_entry)
            if group.outdated:
                group.first.write_outdated(head.epoch, group.outdated)
            group.first.write_head(sealed)
        self._make_durable(group)
        self._note_full(False)
        self._last_head = sealed, head
        group.head = head
        self.host.saw(head.seen)
        for memory in list(self.memories):
            memory.committed(head, sealed, group.outdated)
        if group.outdated:
            self.host.announce(head.epoch)  # from here on every worker of this host knows

    def _make_durable(self, group: Group) -> None:
        try:
            group.transaction.commit()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self.errors["unavailable"] += 1  # a server that died after the commit and before its answer has done it
            raise Unavailable(sentences.UNKNOWN, retry_after=1) from error
        if not writes_to_its_files(group.first.connection):
            raise Unavailable(sentences.TAKEN_AWAY, retry_after=5)

    def _outlast_leases(self, made: Head, committed_at: float) -> None:
        # Every lease that another node was granted before the commit was taken from a read that began before it,
        # and ends at the latest `lease_seconds` after that read.
        time.sleep(max(0.0, committed_at + self.lease_seconds * _CLOCKS_DIFFER_BY - steady_seconds()))
        try:
            with self.read() as snapshot:
                after = snapshot.head()
        except Unavailable:
            raise Unavailable(sentences.CHANGED) from None
        if after.counter < made.counter:
            raise IntegrityFailure("The database went back: someone else writes to it.")
        after.require_not_before(0, made.seen)

    @contextmanager
    def untrusted(self) -> Iterator[Change]:
        """A change of a database that is not trusted. It does not update the head; the caller writes a new one."""
        with self._database_faults(), self.host.turn(), self._writing.connect() as connection, connection.begin():
            yield Change(connection, self.derived_keys)

    def require_newest(self) -> None:
        """Raise IntegrityFailure where the head is older than what this host has seen, altered, or missing."""
        known, seen, oldest = self.host.counter, self.host.seen, self.derived_keys.oldest
        with self.read() as snapshot:
            require_not_retired(snapshot.sealed_head(), oldest)
            head = snapshot.head()
        head.require_not_before(known, seen)

    def stop_trusting(self, reason: str) -> None:
        """Let no worker of this host use keys until an operator accepts the database as it is."""
        if self.host.distrust is None:
            self.host.distrust = reason
            structlog.get_logger().critical(
                "KEYS ARE NOT USED: the database is not what the service wrote; see `python -m kms vault accept`",
                reason=reason,
            )
            self.distrusted(reason)
        for memory in list(self.memories):
            memory.ends = 0.0

    @contextmanager
    def write_beside_the_head(self) -> Iterator[Connection]:
        """A transaction that leaves the head as it is, as a context manager, for what the head does not cover.

        Raises Unavailable.
        """
        with self._database_faults(), self._writing.connect() as connection, connection.begin():
            yield connection

    def checkpoint(self) -> None:
        """Make the database one file that holds every change, where it is of SQLite. Raises Unavailable.

        To be called once nothing else of this process uses it.
        """
        if self.engine.dialect.name == "sqlite":
            with self._database_faults():
                make_one_file(self.engine)

    def close(self) -> None:
        """Let go of the database and of what the host shares."""
        self.engine.dispose()
        self.host.close()

    @contextmanager
    def _database_faults(self) -> Iterator[None]:
        """Translate what a database may answer into refusals, without repeating any statement or value."""
        driver = self.engine.dialect.dbapi
        assert driver is not None
        try:
            yield
        except (IntegrityError, driver.IntegrityError):
            self.errors["conflict"] += 1
            raise AlreadyExists("Another call made the same thing at the same moment. Try again.") from None
        except (DBAPIError, PoolTimeout, driver.Error) as error:
            self.errors["unavailable"] += 1
            end_silent_holder(self.engine, error)
            if is_full(error):
                self._note_full(True)
                raise Unavailable(sentences.FULL, retry_after=5) from error
            if is_read_only(error):
                raise Unavailable(sentences.READ_ONLY, retry_after=5) from error
            raise Unavailable(sentences.BUSY, retry_after=1) from error

    def _note_full(self, full: bool) -> None:
        """Say in the log when the disk of the database is full, and when it no longer is."""
        if full != self._is_full:
            self._is_full = full
            if full:
                structlog.get_logger().warning("THE DISK OF THE DATABASE IS FULL: nothing can be changed")
            else:
                structlog.get_logger().warning("the database is written again")
