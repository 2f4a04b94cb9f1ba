"""A primary that dies and a standby that is promoted, behind a database URL that names both."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import DBAPIError

from helpers.pgbouncer import pgbouncer
from helpers.postgres_server import PostgresServer, require_postgres
from helpers.running import Running, Start, wait_until
from helpers.tcp_proxy import TcpProxy
from helpers.trio import FLAGS, encrypts, seconds_until, with_root_key
from kms.config import Settings
from kms.errors import StartError
from kms.vault.database import connect
from kms.vault.opening import open_vault

pytestmark = pytest.mark.slow
_ATTRIBUTES = "target_session_attrs=read-write"


@dataclass
class Replicated:
    """A primary, its standby, and a URL with both."""

    primary: PostgresServer
    standby: PostgresServer

    @property
    def url(self) -> str:
        """The URL of a database on whichever takes writes."""
        ports = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://kms@{ports}/vault?{_ATTRIBUTES}"

    def wait_for_standby(self) -> None:
        """Until it has everything."""
        wait_until(lambda: self.primary.ask("SELECT sent_lsn = replay_lsn FROM pg_stat_replication") == [(True,)])

    def follow_again(self) -> None:
        """Where the dead primary was, a new standby follows the one that took its place."""
        port = self.primary.port
        self.primary.remove()
        self.primary, self.standby = self.standby, self.standby.standby(port=port)


@pytest.fixture(scope="module")
def replicated() -> Iterator[Replicated]:
    require_postgres()
    primary = PostgresServer.new(max_connections="60").initialize().start()
    primary.ask("CREATE DATABASE vault")
    made = Replicated(primary, primary.standby())
    yield made
    made.primary.remove()
    made.standby.remove()


@pytest.fixture(scope="module")
def node(start: Start, replicated: Replicated) -> Running:
    started = start(*FLAGS, "--database-url", replicated.url)
    for key_id in ("kept", "taken", "lost"):
        assert started.curl("POST", "/api/v1/keys", {"key_id": key_id}).status == 201
    return started


def test_a_replica_is_never_read(replicated: Replicated, node: Running) -> None:
    replicated.wait_for_standby()
    settings = Settings(data_dir=node.folder / "kms-data", database_url=f"{replicated.standby.url}/vault")
    with pytest.raises(StartError, match="standby"):
        open_vault(settings)


def test_a_replica_is_not_read_through_a_pooler_that_still_takes_it_for_the_primary(replicated: Replicated) -> None:
    proxy = TcpProxy(("127.0.0.1", replicated.primary.port)).start()
    try:
        with pgbouncer(f"postgresql://kms@127.0.0.1:{proxy.port}") as pooler:
            engine = connect(f"{pooler.url}/vault?{_ATTRIBUTES}")
            engine.connect().close()
            engine.dispose()
            proxy.target = ("127.0.0.1", replicated.standby.port)
            proxy.cut()
            with pytest.raises(DBAPIError, match="is a replica"):
                engine.connect()
    finally:
        proxy.stop()


def test_the_service_goes_on_where_nothing_was_lost(replicated: Replicated, node: Running) -> None:
    assert node.curl("POST", "/api/v1/keys/taken/revoke", {}).status == 200
    replicated.wait_for_standby()
    replicated.primary.stop(signal.SIGKILL)
    replicated.standby.ask("SELECT pg_promote()")
    uses = seconds_until(lambda: encrypts(node, "kept") == 200)
    changes = seconds_until(lambda: node.curl("POST", "/api/v1/keys/kept/rotate", {}).status == 200)
    print(f"TIMES failover: uses after {uses:.2f} s, changes after {uses + changes:.2f} s")
    assert encrypts(node, "taken") == 403
    assert "internal-error" not in node.log.read_text()


def test_a_replica_that_lost_a_revocation_is_not_trusted(replicated: Replicated, node: Running) -> None:
    replicated.follow_again()
    replicated.wait_for_standby()
    replicated.standby.stop()  # what follows never reaches it
    assert node.curl("POST", "/api/v1/keys/lost/revoke", {}).status == 200
    replicated.primary.stop(signal.SIGKILL)
    replicated.standby.start().ask("SELECT pg_promote()")
    wait_until(lambda: "integrity-failure" in node.curl("POST", "/api/v1/keys/lost/encrypt", {"plaintext": ""}).text)
    assert encrypts(node, "kept") == 503
    assert "KEYS ARE NOT USED" in node.log.read_text()


def _signal(node: Running, how: signal.Signals) -> None:
    for pid in (node.process.pid, *node.worker_pids()):
        os.kill(pid, how)


def test_what_was_lost_is_noticed_also_after_more_changes_than_were_lost(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    require_postgres()
    primary = PostgresServer.new(max_connections="60").initialize().start()
    primary.ask("CREATE DATABASE vault")
    made = Replicated(primary, primary.standby())
    try:
        a = start(*FLAGS, "--database-url", made.url)
        folders = [with_root_key(tmp_path_factory.mktemp(name), a) for name in ("b", "c")]
        c = start(*FLAGS, "--database-url", made.url, folder=folders[1], login=False)
        c.token = a.token
        for key_id in ("kept", "lost"):
            assert a.curl("POST", "/api/v1/keys", {"key_id": key_id}).status == 201
        made.wait_for_standby()
        made.standby.stop()
        assert a.curl("POST", "/api/v1/keys/lost/revoke", {}).status == 200
        assert encrypts(c, "lost") == 403
        for node in (a, c):  # as if they did not reach the database
            _signal(node, signal.SIGSTOP)
        made.primary.stop(signal.SIGKILL)
        made.standby.start().ask("SELECT pg_promote()")
        b = start(*FLAGS, "--database-url", made.url, folder=folders[0], login=False)
        b.token = a.token
        for _ in range(20):
            assert b.curl("POST", "/api/v1/keys/kept/rotate", {}).status == 200
        for node in (a, c):
            _signal(node, signal.SIGCONT)
        for node in (a, c):
            wait_until(
                lambda node=node: (  # type: ignore[misc]
                    "lost changes" in node.log.read_text()
                    and "integrity-failure" in node.curl("POST", "/api/v1/keys/lost/encrypt", {"plaintext": ""}).text
                ),
                node.log.read_text,
            )
            assert node.curl("POST", "/api/v1/keys/kept/rotate", {}).status == 503
        assert b.curl("POST", "/api/v1/keys/kept/rotate", {}).status == 200
        assert encrypts(a, "lost") == encrypts(c, "lost") == 503
    finally:
        made.primary.remove()
        made.standby.remove()
