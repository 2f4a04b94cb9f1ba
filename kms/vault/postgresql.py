"""PostgreSQL: an engine that reads only from a primary, and that gives up on a database that says nothing.

- **Only a primary.** A replica lags. A lease or a row that was read there could be from before a revocation that has
  answered. libpq asks each server for what it is when it connects (`target_session_attrs`). PgBouncer may repeat what
  another server has said before a failover, so a statement asks again. A server never turns from a primary into a
  replica while it keeps its connections.
- **One isolation.** A change locks the head before it touches anything else and is made for READ COMMITTED: no two
  changes overlap, so there are neither serialisation failures nor deadlocks, whatever the server's default is.
- **A limit on silence.** A server that is frozen, or a proxy before one, still acknowledges what it is sent, so that
  no timeout of TCP ends the wait for its answer.
- **A limit on idleness.** A node that is stopped while it holds the lock on the head would hold up all changes of all
  nodes. PostgreSQL ends its transaction. It does not count the time in which it waits for the rest of statements that
  are sent together; then a node that waited for the lock in vain ends it. Of a machine that is gone, TCP tells it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from psycopg.generators import send
from psycopg.pq import ConnStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, SQLAlchemyError

from kms.clock import steady_seconds
from kms.errors import StartError

BUSY_SECONDS = 10
_RESTED_SECONDS = 1.0
_IDLE_SECONDS = 15
_SILENT_SECONDS = 12.0  # more than a statement may wait for a lock
_PING_SECONDS = 2.0
_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
    "lock_timeout": f"{BUSY_SECONDS}s",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "6",
    "tcp_keepalives_interval": "3",  # together as long as the next
    "tcp_user_timeout": f"{_IDLE_SECONDS}s",  # keepalives are not sent while an answer is under way
}
_OF_A_PRIMARY = ("primary", "read-write")
_FULL = "53100"
_LOCKED = "55P03"
_READ_ONLY = "25006"
_LOG = structlog.get_logger()


def parsed(url: str) -> URL:
    """`url` taken apart. One of several hosts, `postgresql://USER@A,B:5433/DATABASE`, has them in its query.

    Raises ArgumentError or ValueError, whose text may repeat a password.
    """
    authority = url.partition("://")[2].partition("/")[0]
    if not url.startswith(("postgresql", "postgres")) or "," not in authority.rpartition("@")[2]:
        return make_url(url)
    scheme, _, rest = url.partition("://")
    try:
        found: dict[str, Any] = dict(conninfo_to_dict(f"postgresql://{rest}"))
    except psycopg.Error:
        raise ArgumentError("not a URL of PostgreSQL") from None
    user, password, database = (found.pop(name, None) for name in ("user", "password", "dbname"))
    return URL.create(scheme, user, password, database=database, query={name: str(found[name]) for name in found})


def hosts(url: URL) -> str:
    """The hosts and ports that `url` names, with commas, as libpq takes them."""
    given, ports = url.query.get("host"), url.query.get("port")
    names = [part for each in _each(given) for part in each.split(",")]
    numbers = [part for each in _each(ports) for part in each.split(",")]
    if len(numbers) != len(names):
        numbers = (numbers or [""]) * len(names)
    return ",".join(f"{name}:{number}" if number else name for name, number in zip(names, numbers, strict=True))


def engine_for(url: URL, pool_size: int) -> Engine:
    """An engine whose connections are to a primary and end by themselves. Raises StartError."""
    wanted = url.query.get("target_session_attrs", _OF_A_PRIMARY[0])
    if wanted not in _OF_A_PRIMARY:
        raise StartError(
            f"KMS_DATABASE_URL: target_session_attrs must be {' or '.join(_OF_A_PRIMARY)}; a replica may be behind."
        )
    arguments: dict[str, Any] = {
        "connect_timeout": 5,
        "tcp_user_timeout": _IDLE_SECONDS * 1000,
        "target_session_attrs": wanted,
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if options := _each(url.query.get("options")):
        arguments["options"] = " ".join(options)
    # The pool would log a stack trace for each connection that was lost; whoever used it says what is wrong.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # a warm connection has its statements prepared and its pages at hand
        pool_timeout=BUSY_SECONDS,
        connect_args=arguments,
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, unnamed: Any, named: Any) -> _Patient:
        made = _Patient.connect(*unnamed, **named)
        try:
            made.set_autocommit(True)
            made.execute(  # PgBouncer refuses them as `options`
                "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)",
                (list(_SETTINGS), list(_SETTINGS.values())),
            )
            if made.execute("SELECT pg_is_in_recovery()").fetchone() != (False,):
                raise psycopg.OperationalError("the server behind this address is a replica")
            made.set_autocommit(False)
        except psycopg.Error:
            made.close()
            raise
        return made

    _ping_what_rested(engine)
    return engine


class _Patient(psycopg.Connection[Any]):
    """A connection that ends when the server has not answered for `most_seconds`."""

    most_seconds: float | None = _SILENT_SECONDS

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        """As its parent's; raises OperationalError after too long, and then the connection is closed."""
        limited = gen if self.most_seconds is None else self._limited(gen, steady_seconds() + self.most_seconds)
        return super().wait(limited, *args, **named)

    def _limited(self, gen: Any, deadline: float) -> Generator[Any, Any, Any]:
        """What `gen` does, which is sent what the socket is ready for, and nothing from time to time."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and steady_seconds() > deadline:
                    self.pgconn.finish()  # without the rollback that `close` would wait for
                    raise psycopg.OperationalError("the database has not answered for too long")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


def _exit_gen(pipeline: psycopg.Pipeline) -> Generator[Any, Any, Any]:
    """End a pipeline with Sync. Otherwise psycopg sends Flush after it.

    At Sync PostgreSQL begins to count how long the transaction is idle, and at whatever comes next it stops counting.
    After Flush it does not begin again: a client that was stopped there would keep its locks for ever.
    """
    try:
        pipeline._enqueue_sync()
        yield from pipeline._communicate_gen()
    finally:
        if pipeline.result_queue and pipeline.pgconn.status == ConnStatus.OK:
            yield from send(pipeline.pgconn)  # what the server was too slow to take is still in libpq
        yield from pipeline._fetch_gen(flush=False)


psycopg.Pipeline._exit_gen = _exit_gen  # type: ignore[assignment, method-assign]


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """For a statement that may take long, such as an index over a large table, as a context manager."""
    driver = connection.connection.dbapi_connection
    if not isinstance(driver, _Patient):
        yield
        return
    with _limited_to(driver, None):
        yield


@contextmanager
def _limited_to(connection: _Patient, seconds: float | None) -> Iterator[None]:
    """With another limit on the silence of a connection."""
    before, connection.most_seconds = connection.most_seconds, seconds
    try:
        yield
    finally:
        connection.most_seconds = before


def end_silent_holder(engine: Engine, error: BaseException) -> None:
    """Where `error` came of waiting for a lock: end who writes the head, and says nothing in the middle of it.

    That is a node that was stopped between statements that it sends together. It must have the same role here.
    """
    if getattr(getattr(error, "orig", error), "sqlstate", None) != _LOCKED:
        return
    try:
        with engine.connect() as connection:
            ended = connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity AS holder"
                    " WHERE datname = current_database() AND usename = current_user"
                    " AND state = 'active' AND wait_event = 'ClientRead'"
                    " AND query_start < clock_timestamp() - make_interval(secs => :seconds)"
                    " AND EXISTS (SELECT FROM pg_locks WHERE pid = holder.pid AND granted"
                    " AND relation = 'head'::regclass AND mode IN ('RowShareLock', 'RowExclusiveLock'))"
                ),
                {"seconds": BUSY_SECONDS},
            )
            is_ended = any(ended.scalars())
    except (SQLAlchemyError, psycopg.Error) as fault:
        _LOG.warning("a node that may hold up all changes cannot be looked for", reason=type(fault).__name__)
        return
    if is_ended:
        _LOG.warning("ended the transaction of a node that has stopped and held up all changes")


def is_full(error: BaseException) -> bool:
    """Whether the disk of the server is full."""
    return getattr(error, "sqlstate", None) == _FULL


def is_read_only(error: BaseException) -> bool:
    """Whether the server takes no writes, because it is a replica or was told so."""
    return getattr(error, "sqlstate", None) == _READ_ONLY


def _ping_what_rested(engine: Engine) -> None:
    """Make sure that a connection still works before it is used, unless it was used a moment ago."""

    @event.listens_for(engine, "checkin")
    def rest(_connection: Any, record: Any) -> None:
        record.info["rests_since"] = steady_seconds()

    @event.listens_for(engine, "checkout")
    def ping(connection: Any, record: Any, _proxy: Any) -> None:
        if steady_seconds() - record.info.get("rests_since", steady_seconds()) < _RESTED_SECONDS:
            return
        try:
            with _limited_to(connection, _PING_SECONDS):
                engine.dialect.do_ping(connection)
        except Exception as error:
            raise InvalidatePoolError from error  # the others are not better: the pool makes new ones


def _each(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """What a query names once, several times or not at all."""
    return (value,) if isinstance(value, str) else tuple(value or ())
