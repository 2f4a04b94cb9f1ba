"""Counters that several processes share."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from kms.access.ratelimit import RateClass, RateLimits
from kms.access.shared_counters import SharedCounters
from kms.config import Settings
from kms.errors import RateLimited, StartError


def _count(path: str, times: int) -> None:
    counters = SharedCounters(f"kms-counters://{path}")
    for number in range(times):
        counters.incr(f"key{number % 3}", 3600)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_counts_are_exact_over_processes_and_threads(tmp_path: Path) -> None:
    path = str(tmp_path / "counters")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(path, 900)) for _ in range(3)]
    threads = [threading.Thread(target=_count, args=(path, 900)) for _ in range(3)]
    for each in (*processes, *threads):
        each.start()
    for each in (*processes, *threads):
        each.join()
    counters = SharedCounters(f"kms-counters://{path}")
    assert [counters.get(f"key{number}") for number in range(3)] == [1800] * 3


def test_windows_end(tmp_path: Path) -> None:
    counters = SharedCounters(f"kms-counters://{tmp_path / 'counters'}")
    assert [counters.incr("a", 1), counters.incr("a", 1), counters.incr("b", 1, 5)] == [1, 2, 5]
    assert time.time() < counters.get_expiry("a") <= time.time() + 1
    time.sleep(1.05)
    assert counters.get("a") == 0
    assert counters.incr("a", 1) == 1
    counters.clear("a")
    assert counters.get("a") == 0


def test_many_names_do_not_grow_the_file(tmp_path: Path) -> None:
    counters = SharedCounters(f"kms-counters://{tmp_path / 'counters'}")
    size = (tmp_path / "counters").stat().st_size
    for number in range(70_000):
        counters.incr(f"client:{number}", 60)
    assert (tmp_path / "counters").stat().st_size == size
    assert counters.get("client:69999") == 1


def test_limits_refuse_with_the_time_to_wait(tmp_path: Path) -> None:
    limits = RateLimits(Settings(data_dir=tmp_path, rate_limit_generate="2/minute"))
    for _ in range(2):
        limits.hit(RateClass.GENERATE, "client:a")
    with pytest.raises(RateLimited) as refused:
        limits.hit(RateClass.GENERATE, "client:a")
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 61
    limits.hit(RateClass.GENERATE, "client:b")


def test_limits_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError):
        RateLimits(Settings(data_dir=tmp_path, rate_limit_use="plenty"))
