"""Metrics over all workers: each worker keeps its own in files, and a scrape adds them up.

No label holds anything but names from closed sets: the operation table, problem types, key types and states, and what
is named here. docs/reference/metrics.md describes every family.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from kms.files import private_directory

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

_ADDED_AT_ONCE = 1000  # more would keep every other request waiting for long
_COSTLY_AT_MOST_EVERY = timedelta(minutes=1)
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@dataclass(frozen=True)
class Gauge:
    """A family whose values were read just now: by the values of its labels, in the order of their names."""

    name: str
    about: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class WorkerState:
    """What a worker counts or has by itself, off the way of its requests; see the families of `Metrics`."""

    lease_held: bool
    lease_failures: int
    epoch: int
    cache_entries: Mapping[str, int]
    cache_misses: Mapping[str, int]
    database_errors: Mapping[str, int]
    resident_bytes: int
    open_descriptors: int
    counts_alone: bool = False


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
        self._logins = library.Counter("kms_logins", "Log-ins by every way, by outcome.", ["outcome"], registry=None)
        self._notices = library.Counter(
            "kms_notice_attempts", "Attempts to deliver notices, by outcome.", ["outcome"], registry=None
        )
        self._database_seconds = library.Histogram(
            "kms_database_seconds",
            "How long reads and changes took, a change until it was durable.",
            ["kind"],
            buckets=_BUCKETS,
            registry=None,
        )
        self._database_errors = library.Counter(
            "kms_database_errors", "Reads and changes that the database did not carry out.", ["kind"], registry=None
        )
        self._lease_failures = library.Counter(
            "kms_lease_failures", "Times that a worker could not renew its lease.", registry=None
        )
        self._cache_misses = library.Counter(
            "kms_cache_misses",
            "What had to be read, because it was not remembered.",
            ["cache"],
            registry=None,
        )
        self._cache_entries = library.Gauge(
            "kms_cache_entries", "What the workers remember.", ["cache"], registry=None, multiprocess_mode="livesum"
        )
        self._resident_bytes = library.Gauge(
            "kms_resident_memory_bytes", "Memory of the workers.", registry=None, multiprocess_mode="livesum"
        )
        self._open_descriptors = library.Gauge(
            "kms_open_descriptors",
            "Files and connections of the workers.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._leases_held = library.Gauge(
            "kms_leases_held", "Workers that may answer from memory.", registry=None, multiprocess_mode="livesum"
        )
        self._counting_alone = library.Gauge(
            "kms_rate_limits_alone",
            "Workers that count rate limits for their node alone, because Redis is away.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._epoch_seen = library.Gauge(
            "kms_epoch_seen",
            "The epoch with which every worker has caught up.",
            registry=None,
            multiprocess_mode="livemin",
        )
        self._costly: tuple[datetime, Sequence[Gauge]] | None = None
        self._reading = threading.Lock()
        self._finished: deque[tuple[str, str, float]] = deque()
        self._adding = threading.Lock()
        self.requests.labels("start", "success").inc()
        self.seconds.labels("start").observe(0)
        for outcome in ("success", "authentication-failed", "mfa-required", "rate-limited"):
            self._logins.labels(outcome)  # from nothing to one is a change that a chart must see
        for outcome in ("delivered", "failed", "dead"):
            self._notices.labels(outcome)
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

    def observe_database(self, kind: str, seconds: float) -> None:
        """Count a "read" or a "change" that took `seconds`."""
        self._database_seconds.labels(kind).observe(seconds)

    def count_login(self, outcome: str) -> None:
        """Count a log-in: "success", or the problem type of its refusal."""
        self._logins.labels(outcome).inc()

    def count_notice(self, outcome: str) -> None:
        """Count an attempt to deliver a notice: "delivered", "failed" (it is tried again) or "dead"."""
        self._notices.labels(outcome).inc()

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

    def sample(self, state: WorkerState) -> None:
        """Put what this worker has by itself into its files, beside what was counted."""
        self.add_up()
        self._leases_held.set(state.lease_held)
        self._counting_alone.set(state.counts_alone)
        self._epoch_seen.set(state.epoch)
        self._resident_bytes.set(state.resident_bytes)
        self._open_descriptors.set(state.open_descriptors)
        self._lease_failures._value.set(state.lease_failures)
        for cache, number in state.cache_misses.items():
            self._cache_misses.labels(cache)._value.set(number)
        for kind, number in state.database_errors.items():
            self._database_errors.labels(kind)._value.set(number)
        for cache, number in state.cache_entries.items():
            self._cache_entries.labels(cache).set(number)

    def workers(self) -> list[int]:
        """The process ids of this service's workers on this host that live, this one among them."""
        found = {int(path.stem.rpartition("_")[2]) for path in self._directory.glob("*_*.db")}
        return sorted(pid for pid in found if pid == os.getpid() or _is_in_this_group(pid))

    def costly(self, now: datetime, read: Callable[[], Sequence[Gauge]]) -> Sequence[Gauge]:
        """The result of `read`, at most a minute old. For gauges that take longer the more keys there are."""
        with self._reading:
            if self._costly is None or not timedelta() <= now - self._costly[0] < _COSTLY_AT_MOST_EVERY:
                self._costly = now, read()
            return self._costly[1]

    def exposition(self, gauges: Sequence[Gauge]) -> tuple[bytes, str]:
        """All workers' metrics and `gauges` in the Prometheus text format, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self._forget_dead_workers()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        registry.register(_ReadNow(gauges))
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _forget_dead_workers(self) -> None:
        """Remove what workers that have ended had; what they counted stays."""
        from prometheus_client.multiprocess import mark_process_dead

        living = set(self.workers())
        for path in self._directory.glob("gauge_live*_*.db"):
            pid = int(path.stem.rpartition("_")[2])
            if pid not in living:
                with suppress(FileNotFoundError):  # another worker is at it too
                    mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]


class _ReadNow:
    """Gauges that were read when they were asked for."""

    def __init__(self, gauges: Sequence[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.about, labels=gauge.labels)
            for labels, value in gauge.values.items():
                family.add_metric(labels, value)
            yield family


def _is_in_this_group(pid: int) -> bool:
    """Whether `pid` is there and of this service: workers are in the process group that they were forked in.

    Asked of the kernel and not of /proc, where one worker cannot see another if it is mounted with `hidepid`
    (systemd's ProtectProc=invisible): workers cannot be traced.
    """
    try:
        return os.getpgid(pid) == os.getpgrp()
    except OSError:
        return False
