"""Three real nodes on one PostgreSQL, one of them behind a proxy that can be cut, and a Redis."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import clock_apart
from helpers.postgres_server import PostgresServer
from helpers.running import Running, Start, wait_until
from helpers.support import free_port
from helpers.tcp_proxy import TcpProxy
from kms.config import Settings
from kms.vault.opening import open_vault
from kms.vault.store import Vault

FLAGS = ("--workers", "1")
LIMITS = {
    "KMS_RATE_LIMIT_USE": "1000000/second",
    "KMS_RATE_LIMIT_MANAGE": "100000/minute",
    "KMS_RATE_LIMIT_GENERATE": "100000/minute",
    "KMS_RATE_LIMIT_AUTHENTICATE": "1000/minute",
    "KMS_RATE_LIMIT_PUBLIC": "20/hour",
}
_PROBED_EVERY_SECONDS = 0.02


@dataclass
class RedisServer:
    """A Redis that can be ended and started again."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start it."""
        if shutil.which("redis-server") is None:
            pytest.skip("Redis is not installed; .ci/install-services installs it")
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)
        return self

    def end(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)


@dataclass
class Trio:
    """`a` and `c` speak with the database, `b` with the proxy before it. One root key, one session for all."""

    start: Start
    database: PostgresServer
    proxy: TcpProxy
    redis: RedisServer
    a: Running
    b: Running
    c: Running
    name: str

    @staticmethod
    def made(start: Start, database: PostgresServer, redis: RedisServer, folder: Callable[[str], Path]) -> Trio:
        """Three nodes that have seen each other."""
        name = "trio"
        database.ask(f"CREATE DATABASE {name}")
        proxy = TcpProxy(("127.0.0.1", database.port)).start()
        direct, through = f"{database.url}/{name}", f"postgresql://kms@127.0.0.1:{proxy.port}/{name}"
        given = {"KMS_REDIS_URL": redis.url, **LIMITS}
        a = start(*FLAGS, "--database-url", direct, **given)
        b, c = (
            start(*FLAGS, "--database-url", url, folder=with_root_key(folder(which), a), login=False, **given)
            for which, url in (("b", through), ("c", direct))
        )
        b.token = c.token = a.token
        trio = Trio(start, database, proxy, redis, a, b, c, name)
        wait_until(lambda: len(trio.nodes()) == 3)
        return trio

    @property
    def all(self) -> list[Running]:
        """The three."""
        return [self.a, self.b, self.c]

    def nodes(self) -> list[Any]:
        """The rows of the table of nodes."""
        return self.database.ask("SELECT * FROM nodes", database=self.name)

    def key(self, key_id: str) -> None:
        """Make a key on `a`, as soon as it is back from what the test before did to it."""
        wait_until(lambda: self.a.curl("POST", "/api/v1/keys", {"key_id": key_id}).status in (201, 409), every=0.2)

    def vault(self, folder: Path) -> Vault:
        """The vault in this process, without being a node."""
        data = with_root_key(folder, self.a) / "kms-data"
        return open_vault(Settings(data_dir=data, database_url=f"{self.database.url}/{self.name}"))

    def start_again(self, node: Running, *program: str) -> Running:
        """Start a node that has ended where it was, by another `program` where one is given."""
        host = self.proxy.port if node is self.b else self.database.port
        url = f"postgresql://kms@127.0.0.1:{host}/{self.name}"
        given: dict[str, Any] = {"KMS_REDIS_URL": self.redis.url, **LIMITS}
        if program:
            given["program"] = program
        again: Running = self.start(*FLAGS, "--database-url", url, folder=node.folder, login=False, **given)
        again.token = node.token
        self.a, self.b, self.c = (again if each is node else each for each in self.all)
        return again

    def another(self, folder: Path, clock_ahead: float) -> Running:
        """One more node, whose clock is ahead by so many seconds."""
        node = self.start(
            *FLAGS, "--database-url", f"{self.database.url}/{self.name}",
            folder=with_root_key(folder, self.a), login=False, program=(clock_apart.__file__, str(clock_ahead)),
            **LIMITS,
        )  # fmt: skip
        node.token = self.a.token
        return node


def with_root_key(folder: Path, of: Running) -> Path:
    """`folder`, with the root key of another node in its data directory."""
    (folder / "kms-data").mkdir(mode=0o700)
    key = folder / "kms-data" / "root.key"
    key.write_bytes((of.folder / "kms-data" / "root.key").read_bytes())
    key.chmod(0o600)
    return folder


def encrypts(node: Running, key_id: str) -> int:
    """The status of one use."""
    return node.curl("POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": "AAAA"}).status


def seconds_until(condition: Callable[[], bool]) -> float:
    """How long it takes until `condition` holds, at most a minute."""
    began = time.monotonic()
    wait_until(condition, every=_PROBED_EVERY_SECONDS)
    return time.monotonic() - began


def metric(node: Running, name: str) -> float:
    """The value of a metric without labels."""
    text = node.curl("GET", "/metrics").text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))
