"""Rate limits over several nodes, on a real Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.support import free_port
from kms.access.ratelimit import RateClass, RateLimits
from kms.config import Settings
from kms.errors import RateLimited, StartError, Unavailable


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("Redis is not installed; .ci/install-services installs it")
        pytest.skip("Redis is not installed; .ci/install-services installs it")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}"
    deadline = time.monotonic() + 20
    while True:
        try:
            RateLimits(Settings(data_dir=tmp_path, redis_url=url)).require_storage()
            break
        except StartError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield url, process
    process.terminate()
    process.wait(timeout=20)


def test_nodes_count_together_and_refuse_when_they_cannot(
    redis: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    url, process = redis
    nodes = [
        RateLimits(Settings(data_dir=tmp_path / str(number), redis_url=url, rate_limit_generate="4/hour"))
        for number in range(2)
    ]
    for number in range(4):
        nodes[number % 2].hit(RateClass.GENERATE, "client:a")
    for node in nodes:
        with pytest.raises(RateLimited):
            node.hit(RateClass.GENERATE, "client:a")
    process.terminate()
    process.wait(timeout=20)
    with pytest.raises(Unavailable):
        nodes[0].hit(RateClass.GENERATE, "client:b")
