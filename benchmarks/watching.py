"""What the processes of a running service hold, over time: memory, descriptors, threads, entries of bounded caches.

Needs root, or a service that is not protected: the memory map and descriptors of one that is are for root alone.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Running, number_after

_GROWTH = 0.03  # of what there is, over the time that is looked at
_GROWTH_OF_FEW = 8  # descriptors or threads
_LOWS = 5


@dataclass(frozen=True)
class Held:
    """What one process holds; memory in KiB. `pss` counts pages that processes share in parts."""

    rss: int
    pss: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Held:
        """What `pid` holds now. Raises OSError where it is not there, or not open to this user."""
        status = Path(f"/proc/{pid}/status").read_text()
        pss = Path(f"/proc/{pid}/smaps_rollup").read_text()
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        rss, threads = int(number_after("VmRSS", status)), int(number_after("Threads", status))
        return cls(rss, int(number_after("Pss", pss)), descriptors, threads)


@dataclass(frozen=True)
class Sample:
    """All of it at one moment, `seconds` after the beginning. The first process is the parent."""

    seconds: float
    held: dict[int, Held]
    cache_entries: dict[str, int]


def sample(service: Running, began: float) -> Sample:
    """Look at a service now; `began` on the monotonic clock."""
    children = subprocess.run(["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=True)
    pids = [service.process.pid, *map(int, children.stdout.split())]
    return Sample(time.monotonic() - began, {pid: Held.of(pid) for pid in pids}, _cache_entries(service))


def _cache_entries(service: Running) -> dict[str, int]:
    command = ["curl", "-sS", "--fail", "--cacert", str(service.folder / "server.crt")]
    command += ["-H", f"Authorization: Bearer {service.token}", f"{service.url}/metrics"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r'^kms_cache_entries\{cache="(\w+)"\} ([0-9.e+]+)$', text, re.MULTILINE)
    return {name: int(float(value)) for name, value in found}


@dataclass(frozen=True)
class Trend:
    """How a quantity went: its mean, and by how much a straight line through it rises over the time looked at."""

    mean: float
    rise: float
    is_flat: bool


def _lows(seconds: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """The second at which each fifth of the time began, and the least value in it.

    It leaves out what comes and goes: a hash of a passphrase takes 19 MiB while it is made.
    """
    least: dict[float, float] = {}
    first, long = seconds[0], (seconds[-1] - seconds[0]) / _LOWS
    for at, value in zip(seconds, values, strict=True):
        began = first + min((at - first) // long, _LOWS - 1) * long
        least[began] = min(value, least.get(began, value))
    return list(least.items())


def trend(seconds: Sequence[float], values: Sequence[float], *, few: bool = False) -> Trend:
    """The trend by the median of the slopes of all pairs (Theil and Sen), which a single spike does not move.

    `few`: a number of descriptors or threads, flat within some. Otherwise it is memory, of which the least values are
    judged, and flat is a rise below 3 %. There must be values of two different seconds.
    """
    pairs = list(zip(seconds, values, strict=True)) if few else _lows(seconds, values)
    slopes = [
        (later - earlier) / (then - before)
        for number, (before, earlier) in enumerate(pairs)
        for then, later in pairs[number + 1 :]
        if then > before
    ]
    mean, rise = statistics.mean(values), statistics.median(slopes) * (seconds[-1] - seconds[0])
    return Trend(mean, rise, rise <= (_GROWTH_OF_FEW if few else max(1.0, _GROWTH * mean)))
