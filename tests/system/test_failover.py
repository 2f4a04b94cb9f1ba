"""A primary that dies and a standby that is promoted, behind a database URL that names both."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from helpers.postgres_server import PostgresServer, require_postgres
from helpers.running import Running, Start, wait_until
from helpers.trio import FLAGS, encrypts, seconds_until
from kms.config import Settings
from kms.errors import StartError
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
