"""What is passed on to PostgreSQL, and when it is given up."""

from __future__ import annotations

import time
from contextlib import nullcontext

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from helpers.pgbouncer import pgbouncer
from helpers.support import free_port, new_database
from helpers.tcp_proxy import TcpProxy
from kms.errors import StartError
from kms.vault import postgresql
from kms.vault.database import connect, shown


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@a,b:5433/kms?target_session_attrs=read-write", "a,b:5433"),
        ("postgresql://u:p@a:1,b:2/kms", "a:1,b:2"),
        ("postgresql://u:p@/kms?host=a:1&host=b:2", "a:1,b:2"),
        ("postgresql://u:p,q@a:1/kms", "a:1"),
        ("postgresql://u:p@a/kms", "a"),
    ],
)
def test_a_url_with_several_hosts_is_shown_without_its_password(url: str, hosts: str) -> None:
    assert shown(url) == f"postgresql://u@{hosts}/kms"


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:secret@a:1,b:x/kms?no=such", "postgresql://u:secret@a:x/kms", "mysql://a,b/kms", "nonsense"],
)
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StartError, match="KMS_DATABASE_URL") as refused:
        connect(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("wanted", ["any", "standby", "prefer-standby", "read-only"])
def test_a_replica_may_not_be_asked_for(wanted: str) -> None:
    with pytest.raises(StartError, match="must be primary or read-write"):
        connect(f"postgresql://u@a,b/kms?target_session_attrs={wanted}")


@pytest.mark.parametrize("together", [True, False])
def test_a_transaction_that_is_idle_is_ended_also_after_several_statements_at_once(
    postgres: str, *, together: bool
) -> None:
    engine = connect(new_database(postgres))
    with engine.connect() as connection:
        connection.execute(text("SET idle_in_transaction_session_timeout = 300"))
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg.Connection)
        with driver.pipeline() if together else nullcontext():
            driver.cursor().executemany("SELECT pg_sleep(%s)", [(0.1,), (0.1,)])  # answered after all was sent
        time.sleep(1)
        with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
            connection.execute(text("SELECT 1"))
    engine.dispose()


def test_what_the_server_is_too_slow_to_take_is_sent_when_it_does(postgres: str) -> None:
    """It reads nothing while it sleeps, and 20 MB are more than the sockets between hold."""
    engine = connect(new_database(postgres))
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg.Connection)
        answer = driver.cursor()
        with driver.pipeline():
            driver.execute("SELECT pg_sleep(0.5)")
            answer.execute("SELECT length(%s)", [b"x" * 20_000_000])
        assert answer.fetchone() == (20_000_000,)
    engine.dispose()


def test_the_limits_hold_through_a_pooler(postgres: str) -> None:
    name = new_database(postgres).rpartition("/")[2]
    with pgbouncer(postgres) as pooler:
        engine = connect(f"{pooler.url}/{name}")
        with engine.connect() as connection:
            assert connection.execute(text("SHOW lock_timeout")).scalar() == "10s"
            assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "15s"
        engine.dispose()


def test_the_host_that_is_there_is_used_with_the_options_of_the_url(postgres: str) -> None:
    url = new_database(postgres)
    there, name = url.rpartition("@")[2].split("/")
    several = (
        f"postgresql://kms@127.0.0.1:{free_port()},{there}/{name}?options=-c%20work_mem%3D123kB&application_name=x"
    )
    engine = connect(several)
    with engine.connect() as connection:
        for setting, value in {
            "work_mem": "123kB",
            "application_name": "x",
            "default_transaction_isolation": "read committed",
            "lock_timeout": "10s",
            "tcp_keepalives_idle": "6",
            "tcp_user_timeout": "15000",
        }.items():
            assert connection.execute(text(f"SHOW {setting}")).scalar() == value
    engine.dispose()


def test_a_server_that_says_nothing_is_given_up(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql._Patient, "most_seconds", 1.0)
    url = new_database(postgres)
    address, name = url.rpartition("@")[2].split("/")
    proxy = TcpProxy((address.split(":")[0], int(address.split(":")[1]))).start()
    engine = connect(f"postgresql://kms@127.0.0.1:{proxy.port}/{name}")
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            proxy.freeze()
            with pytest.raises(DBAPIError, match="not answered for too long"):
                connection.execute(text("SELECT 1"))
        with engine.connect() as connection, postgresql.unhurried(connection):
            connection.execute(text("SELECT pg_sleep(1.5)"))  # a slow answer is waited for where it may be slow
    finally:
        engine.dispose()
        proxy.stop()
