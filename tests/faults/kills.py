"""SIGKILL at random moments while many clients change keys: a worker, the service, a backend, the whole server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from faults.changers import Changers
from faults.judge import judge_answers, judge_log, judge_vault
from faults.outcome import Outcome
from faults.runner import Bench, Fault
from faults.site import Site

CHANGES_A_ROUND = 100
_WORKERS = (1, 3)
Kill = Callable[[Bench, Site, Random], None]


def _under_changes(bench: Bench, kill: Kill) -> Outcome:
    """Kill something in each round, at a random moment among `CHANGES_A_ROUND` changes, and compare afterwards."""
    outcome, url = Outcome(), bench.databases.new_url(bench.folder)
    site = Site.build(bench.folder, url, workers=_WORKERS[-1], KMS_LOG_LEVEL="warning")
    changers = Changers(site, bench.seed, outcome)
    try:
        changers.enrol()
        for number in range(bench.rounds):
            chance, before = bench.chance("kill", number), len(changers.books)
            changers.start(number)
            changers.wait_for(chance.randrange(1, CHANGES_A_ROUND))
            time.sleep(chance.random() * 0.02)
            outcome.tries += 1
            site.workers = _WORKERS[number % 2]  # with one, many changes share a commit
            killed_at = time.monotonic()
            kill(bench, site, chance)
            outcome.recovery.append(changers.acknowledged_after(killed_at))
            changers.wait_for(CHANGES_A_ROUND)
            changers.stop()
            judge_answers(changers, changers.books[before:])
        judge_answers(changers, changers.books)
    finally:
        site.end()
    judge_vault(changers)
    judge_log(site, outcome)
    return outcome


def _kill_worker(_bench: Bench, site: Site, chance: Random) -> None:
    with suppress(ProcessLookupError):
        os.kill(chance.choice(site.worker_pids()), signal.SIGKILL)


def _kill_service(_bench: Bench, site: Site, _chance: Random) -> None:
    site.kill()
    site.start()


def _kill_backend(bench: Bench, site: Site, chance: Random) -> None:
    """One backend; the others roll back and end, and the server starts anew by itself."""
    assert site.database_url is not None
    busy = bench.databases.server.backends(site.database_url)
    with suppress(ProcessLookupError):
        os.kill(chance.choice(busy), signal.SIGKILL)


def _kill_server(bench: Bench, _site: Site, _chance: Random) -> None:
    bench.databases.server.kill()
    bench.databases.server.start()


def worker(bench: Bench) -> Outcome:
    """One worker of three."""
    return _under_changes(bench, _kill_worker)


def service(bench: Bench) -> Outcome:
    """The service and all its workers; then it is started again, with one worker and with three in turn."""
    return _under_changes(bench, _kill_service)


def backend(bench: Bench) -> Outcome:
    """A backend of PostgreSQL."""
    return _under_changes(bench, _kill_backend)


def server(bench: Bench) -> Outcome:
    """The server of PostgreSQL."""
    return _under_changes(bench, _kill_server)


FAULTS = [
    Fault("kill-worker", "kill -9 of a worker among concurrent changes", worker, full=40),
    Fault("kill-service", "kill -9 of the service and all workers among concurrent changes", service, 40),
    Fault("kill-backend", "kill -9 of a backend of the database", backend, 20, ("postgresql",)),
    Fault("kill-server", "kill -9 of the database server", server, 20, ("postgresql",)),
]
