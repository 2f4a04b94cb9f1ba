"""SIGKILL of a worker while many clients use a key: how many uses fail, and how long until all workers serve."""

from __future__ import annotations

import os
import signal
import threading
import time

from faults.connection import Connection, Unanswered
from faults.judge import judge_log
from faults.outcome import Outcome
from faults.runner import Bench, Fault
from faults.site import Site

_WORKERS, _THREADS = 3, 12
_QUIET_SECONDS = 1.0


def worker_under_load(bench: Bench) -> Outcome:
    """Kill one worker of three in each round."""
    outcome, url = Outcome(), bench.databases.new_url(bench.folder)
    site = Site.build(bench.folder, url, workers=_WORKERS, KMS_LOG_LEVEL="warning")
    stopping, counting = threading.Event(), threading.Lock()
    try:
        token = site.user("alice")
        made = Connection(site, token)
        assert made.ask("POST", "/api/v1/keys", {"key_id": "used"}).is_success

        def use() -> None:
            connection = Connection(site, token)
            while not stopping.is_set():
                try:
                    reply = connection.ask("POST", "/api/v1/keys/used/encrypt", {"plaintext": "AAAA"})
                except Unanswered:
                    with counting:
                        outcome.unanswered += 1
                    continue
                with counting:
                    outcome.acknowledged += reply.is_success
                    outcome.refused += reply.status == 503
                    if reply.status not in {200, 503}:
                        outcome.find("wrong", f"a use was answered {reply.status} {reply.body}")

        threads = [threading.Thread(target=use, daemon=True) for _ in range(_THREADS)]
        for each in threads:
            each.start()
        for number in range(bench.rounds):
            chance = bench.chance("load", number)
            time.sleep(_QUIET_SECONDS + chance.random())
            victim, killed_at = chance.choice(site.worker_pids()), time.monotonic()
            os.kill(victim, signal.SIGKILL)
            outcome.tries += 1
            site.wait_for_workers(_WORKERS, without={victim})
            site.wait_ready()
            outcome.recovery.append(time.monotonic() - killed_at)
        stopping.set()
        for each in threads:
            each.join(timeout=60)
    finally:
        stopping.set()
        site.end()
    judge_log(site, outcome)
    failed = outcome.unanswered + outcome.refused
    outcome.remarks.append(
        f"{failed} of {failed + outcome.acknowledged} uses of {_THREADS} clients failed, by {outcome.tries} kills; "
        "time to recover is until a new worker is there and the service is ready"
    )
    return outcome


FAULTS = [Fault("worker-under-load", "kill -9 of a worker of three under uses of a key", worker_under_load, 20)]
