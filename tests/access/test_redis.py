"""Rate limits over several nodes, on a real Redis: each node for itself while that is away."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.installed import not_installed
from helpers.running import wait_until
from helpers.support import free_port
from kms.access.ratelimit import RateClass, RateLimits
from kms.config import Settings
from kms.errors import RateLimited, StartError


@dataclass
class Redis:
    """A server that can be ended and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:x@127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--requirepass",
            "x",
        ]
        self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=subprocess.DEVNULL)
        wait_until(lambda: not self.limits("probe").count_alone)

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(timeout=20)

    def limits(self, node: str, url: str = "") -> RateLimits:
        limits = RateLimits(
            Settings(data_dir=self.folder / node, redis_url=url or self.url, rate_limit_generate="4/hour")
        )
        limits.require_storage()
        return limits


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        not_installed("Redis")
    server = Redis(tmp_path, free_port())
    server.start()
    yield server
    server.end()


def hits_until_limited(limits: RateLimits, client: str) -> int:
    """How many of eight hits pass."""
    passed = 0
    for _ in range(8):
        try:
            limits.hit(RateClass.GENERATE, f"client:{client}")
        except RateLimited:
            break
        passed += 1
    return passed


def test_nodes_count_together(redis: Redis) -> None:
    nodes = [redis.limits(name) for name in ("a", "b")]
    for number in range(4):
        nodes[number % 2].hit(RateClass.GENERATE, "client:a")
    for node in nodes:
        with pytest.raises(RateLimited) as refused:
            node.hit(RateClass.GENERATE, "client:a")
        assert 3590 <= refused.value.retry_after <= 3601


def test_each_node_counts_alone_while_redis_is_away_and_together_again_afterwards(
    redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [redis.limits(name) for name in ("a", "b")]
    redis.end()
    assert [hits_until_limited(node, "b") for node in nodes] == [4, 4]
    assert all(node.count_alone for node in nodes)
    redis.start()
    wait_until(lambda: not any(node.count_alone for node in nodes))
    assert [hits_until_limited(node, "b") for node in nodes] == [4, 0]
    said = capsys.readouterr()
    assert (said.out + said.err).count("RATE LIMITS COUNT PER NODE") == 1  # for all that count in this process
    assert (said.out + said.err).count("counted over all nodes again") == 1


def test_a_redis_that_hangs_is_given_up_soon(redis: Redis) -> None:
    node = redis.limits("a")
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    assert hits_until_limited(node, "c") == 4
    assert node.count_alone
    redis.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not node.count_alone)


def test_a_node_starts_while_redis_is_away_and_not_where_it_is_refused(redis: Redis) -> None:
    away = redis.limits("a", f"redis://127.0.0.1:{free_port()}")
    assert away.count_alone
    assert hits_until_limited(away, "d") == 4
    with pytest.raises(StartError, match="Is the password right"):
        redis.limits("b", f"redis://:wrong@127.0.0.1:{redis.port}")
    with pytest.raises(StartError, match="KMS_REDIS_URL must be"):
        redis.limits("b", "nonsense://127.0.0.1")
