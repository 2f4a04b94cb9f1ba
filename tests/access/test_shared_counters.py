"""Counters that several processes share."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from kms.access.ratelimit import RateClass, RateLimits, storage_of
from kms.access.shared_counters import SharedCounters
from kms.config import Settings
from kms.errors import RateLimited, StartError, Unavailable

ROOT = Path(__file__).parents[2]


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


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_limit_is_never_exceeded_by_processes_that_race(tmp_path: Path) -> None:
    path = str(tmp_path / "counters")
    context = multiprocessing.get_context("spawn")
    line = context.Barrier(3)
    # Starting may take long on a machine under load: what fails the test is a process that dies, not a late one.
    with ProcessPoolExecutor(3, context, initializer=_line_up_at, initargs=(line,)) as pool:
        races = [pool.submit(_race, path) for _ in range(3)]  # none goes on before all began: one for each process
        counts = [each.result() for each in races]
    for under_limit in zip(*counts, strict=True):
        assert 100 - 3 <= sum(under_limit) <= 100, under_limit


_line: Barrier


def _line_up_at(line: Barrier) -> None:
    global _line
    _line = line


def _race(path: str) -> list[int]:
    """How many of 60 counts of this process were under a limit of 100, for each of 200 names."""
    counters = SharedCounters(f"kms-counters://{path}")
    counters.incr("ready", 3600)
    under_limit = []
    for number in range(200):
        _line.wait()  # for each name, or one process is soon done with it before the next begins
        under_limit.append(sum(counters.incr(f"race{number}", 3600) <= 100 for _ in range(60)))
    return under_limit


def test_a_process_that_died_leaves_its_count_and_its_place(tmp_path: Path) -> None:
    uri = f"kms-counters://{tmp_path / 'counters'}?processes=2"
    for _ in range(5):
        run = f"from kms.access.shared_counters import SharedCounters; SharedCounters({uri!r}).incr('a', 3600, 2)"
        subprocess.run([sys.executable, "-c", run], cwd=ROOT, check=True)
    counters = SharedCounters(uri)
    assert counters.incr("a", 3600) == 11


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_counts_in_cells_of_its_own(tmp_path: Path) -> None:
    uri = f"kms-counters://{tmp_path / 'counters'}?processes=2"
    counters = SharedCounters(uri)
    assert counters.incr("a", 3600) == 1
    child = multiprocessing.get_context("fork").Process(target=lambda: SharedCounters(uri).incr("a", 3600, 5))
    child.start()
    child.join()
    assert counters.incr("a", 3600) == 7


def test_more_processes_than_there_are_cells_for(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, workers=1)
    limits = RateLimits(settings)
    uri = storage_of(settings)[0]
    held = (
        "import sys; from kms.access.shared_counters import SharedCounters\n"
        "SharedCounters(sys.argv[1]).incr('a', 60); print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    others = [subprocess.Popen([sys.executable, "-c", held, uri], cwd=ROOT, **pipes) for _ in range(4)]
    for each in others:
        assert each.stdout is not None
        each.stdout.readline()
    with pytest.raises(Unavailable):
        limits.hit(RateClass.USE, "client:a")
    for each in others:
        each.communicate()
    limits.hit(RateClass.USE, "client:a")


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
