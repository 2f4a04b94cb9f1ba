"""Metrics that are right with several workers: each keeps its own in a file, a scrape adds them up.

No label holds anything but names from the operation table and problem types.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kms.files import private_directory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The service's metrics, in files below `directory`, which one boot on one host has for itself."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory).absolute()
        # The library looks at this variable when it is imported, hence the import here.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self._directory)
        from prometheus_client import Counter, Histogram

        self.requests = Counter(
            "kms_requests", "Requests by operation and outcome.", ["operation", "outcome"], registry=None
        )
        self.seconds = Histogram(
            "kms_request_seconds", "Time to answer.", ["operation"], buckets=_BUCKETS, registry=None
        )
        self.rotations = Counter("kms_scheduled_rotations", "Key versions made by the schedule.", registry=None)
        self.integrity_failures = Counter(
            "kms_integrity_failures", "Tables found altered outside the service.", registry=None
        )
        self.requests.labels("start", "success").inc()
        self.seconds.labels("start").observe(0)
        self._allocate()

    def _allocate(self) -> None:
        """Give this process's files their disk space now: a hole in them would kill it once the disk is full."""
        for path in self._directory.glob(f"*_{os.getpid()}.db"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def exposition(self, expiring: Mapping[int, int]) -> tuple[bytes, str]:
        """All workers' metrics in the Prometheus text format, and its media type.

        `expiring` says how many keys reach the end of their cryptoperiod within so many days.
        """
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

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
