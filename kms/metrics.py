"""Metrics that are right with several workers: each keeps its own in a file, a scrape adds them up.

No label holds anything but names from the operation table and problem types.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from kms.files import private_directory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_ADDED_AT_ONCE = 1000  # more would keep every other request waiting for long
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The service's metrics, in files below `directory`, which one boot on one host has for itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory).absolute()
        # The library looks at this variable when it is imported, hence the import here.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._directory)
        import prometheus_client as library

        self.requests = library.Counter(
            "kms_requests", "Requests by operation and outcome.", ["operation", "outcome"], registry=None
        )
        self.seconds = library.Histogram(
            "kms_request_seconds", "Time to answer.", ["operation"], buckets=_BUCKETS, registry=None
        )
        self.rotations = library.Counter(
            "kms_scheduled_rotations", "Key versions made by the schedule.", registry=None
        )
        self.integrity_failures = library.Counter(
            "kms_integrity_failures", "Tables found altered outside the service.", registry=None
        )
        self.spools_lost = library.Counter(
            "kms_audit_files_lost", "Files of the audit log taken away from a running worker.", registry=None
        )
        self.integrity_checked = library.Gauge(
            "kms_integrity_checked_timestamp_seconds",
            "When the whole vault was last compared with its head.",
            registry=None,
            multiprocess_mode="max",
        )
        self._finished: deque[tuple[str, str, float]] = deque()
        self._adding = threading.Lock()
        self.requests.labels("start", "success").inc()
        self.seconds.labels("start").observe(0)
        self._allocate()

    def _allocate(self) -> None:
        """Give this process's files their disk space now: a hole in them would kill it once the disk is full."""
        for path in self._directory.glob(f"*_{os.getpid()}.db"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def count(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a request that took `seconds`; it is in the metrics within a second, or at the next scrape here."""
        self._finished.append((operation, outcome, seconds))
        if len(self._finished) >= _ADDED_AT_ONCE:
            self.add_up()

    def add_up(self) -> None:
        """Put what was counted into this worker's files, where every scrape sees it."""
        with self._adding:
            finished = [self._finished.popleft() for _ in range(len(self._finished))]
            for (operation, outcome), number in Counter(map(itemgetter(0, 1), finished)).items():
                self.requests.labels(operation, outcome).inc(number)
            durations: defaultdict[str, list[float]] = defaultdict(list)
            for operation, _, seconds in finished:
                durations[operation].append(seconds)
            for operation, observed in durations.items():
                self._observe(operation, observed)

    def _observe(self, operation: str, durations: list[float]) -> None:
        # As `observe` does it for one, for many: that would cost as much as an encryption for each.
        child = self.seconds.labels(operation)
        for bucket, number in Counter(map(partial(bisect_left, _BUCKETS), durations)).items():
            child._buckets[bucket].inc(number)
        child._sum.inc(sum(durations))

    def exposition(self, expiring: Mapping[int, int]) -> tuple[bytes, str]:
        """All workers' metrics in the Prometheus text format, and its media type.

        `expiring` says how many keys reach the end of their cryptoperiod within so many days.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self.add_up()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        registry.register(_Expiring(expiring))
        return generate_latest(registry), CONTENT_TYPE_LATEST


class _Expiring:
    """A gauge that is counted when it is asked for."""

    def __init__(self, within_days: Mapping[int, int]) -> None:
        self._within_days = within_days

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        family = GaugeMetricFamily("kms_keys_expiring", "Keys in use whose cryptoperiod ends soon.", labels=["days"])
        for days, count in self._within_days.items():
            family.add_metric([str(days)], count)
        yield family
