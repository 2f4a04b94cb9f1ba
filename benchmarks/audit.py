"""`python -m benchmarks.audit`: what folding the audit log costs, alone and for those who use keys meanwhile.

First a fold alone, of spools as workers write them: entries a second, and of a core. Then a service: encryptions
while its folding process folds entries that come in at a rate beside them, and while that process is stopped, in
turn; ratios are of rounds. Needs `wrk`, `curl`, `pgrep` and `taskset`, and two cores. By default the folding process
is on the core of the worker, which is the worst place for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import click

from benchmarks import programs
from benchmarks.cases import cases, warm_up
from benchmarks.programs import Measured, Running, Target, processor_seconds
from kms.audit import keys
from kms.audit.entry import AuditEntry, timestamp
from kms.audit.folding import PROCESS_NAME
from kms.audit.log_files import CHECKPOINT
from kms.audit.sequencer import Sequencer
from kms.audit.spool import Spool
from kms.audit.tree import leaf_hash
from kms.clock import utc_now
from kms.config import Settings
from kms.vault.opening import open_vault

_SINGLE = "encrypt 32 B"
_STEP_SECONDS = 0.01
_QUIET_SECONDS = 3.0


@click.command()
@click.option("--entries", default=200_000, show_default=True, help="For the fold alone.")
@click.option("--rate", default=20_000, show_default=True, help="Entries a second beside the encryptions.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=5, show_default=True, help="Of each candidate in each round.")
@click.option("--connections", default=16, show_default=True)
@click.option("--server-core", default="0", show_default=True)
@click.option("--load-core", default="1", show_default=True)
@click.option("--folding-core", help="By default that of the server.")
def main(
    entries: int,
    rate: int,
    rounds: int,
    seconds: int,
    connections: int,
    server_core: str,
    load_core: str,
    folding_core: str | None,
) -> None:
    """Measure, and print the figures."""
    os.sched_setaffinity(0, {int(server_core)})
    alone(entries)
    os.sched_setaffinity(0, {int(load_core)})
    with programs.service(server_core) as service:
        every = {_SINGLE: cases(service, connections)[_SINGLE]}
        warm_up(every, load_core)
        beside(service, every[_SINGLE].target, rate, rounds, seconds, connections, load_core, folding_core)


def entry(number: int) -> bytes:
    """The line of a use of a key, about as long as most are."""
    return AuditEntry(
        1, timestamp(utc_now()), f"{number:016x}", "encrypt", "success", "192.0.2.0/24", "client-7", "orders", 3
    ).line()


def fill(spool: Spool, begin: int, count: int) -> None:
    """Append so many entries."""
    for number in range(begin, begin + count):
        line = entry(number)
        spool.append(line, leaf_hash(line))


def alone(entries: int) -> None:
    """Fold so many entries as fast as it goes, in this process, on a vault of its own."""
    with tempfile.TemporaryDirectory(prefix="kms-folding-") as folder:
        settings = Settings(data_dir=Path(folder))
        vault = open_vault(settings)
        with vault.change() as change:
            keys.ensure_keys(change, utc_now())
        spool = Spool(settings.spool_dir, _codes(settings), fsync=False)
        fill(spool, 0, entries)
        sequencer = Sequencer(vault, settings.audit_log_dir, settings.spool_dir, "bench/audit", utc_now)
        began, processor, folded = time.perf_counter(), time.process_time(), 0
        while more := sequencer.fold():
            folded += more
        wall, processor = time.perf_counter() - began, time.process_time() - processor
        spool.close()
        vault.close()
    click.echo(
        f"a fold alone: {folded} entries at {folded / wall:,.0f}/s with {processor / wall:.0%} of a core, "
        f"{folded / processor:,.0f} for each second of processor time"
    )


def _codes(settings: Settings) -> bytes:
    vault = open_vault(settings)
    try:
        with vault.read() as snapshot:
            key = keys.spool_key(snapshot)
    finally:
        vault.close()
    assert key is not None
    return key


def _feed(
    folder: Path, key: bytes, rate: int, core: str, running: Event, ending: Event, written: Synchronized[int]
) -> None:
    """Append `rate` entries a second to a spool of the service while `running`, as another worker would."""
    os.sched_setaffinity(0, {int(core)})
    spool = Spool(folder, key, fsync=False)
    while not ending.is_set():
        if not running.wait(0.1):
            continue
        began, done = time.perf_counter(), 0
        while running.is_set():
            due = int((time.perf_counter() - began) * rate)
            fill(spool, written.value, due - done)
            written.value += due - done
            done = due
            time.sleep(_STEP_SECONDS)
    spool.close()


@dataclass
class Feeder:
    """A process that appends entries, while it is told to."""

    running: Event
    written: Synchronized[int]

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """Let it, for the block."""
        self.running.set()
        try:
            yield
        finally:
            self.running.clear()


@contextlib.contextmanager
def feeder(settings: Settings, rate: int, core: str) -> Iterator[Feeder]:
    """A feeder for the service with these settings."""
    context = get_context("spawn")
    running, ending, written = context.Event(), context.Event(), context.Value("q", 0)
    arguments = (settings.spool_dir, _codes(settings), rate, core, running, ending, written)
    process = context.Process(target=_feed, args=arguments)
    process.start()
    try:
        yield Feeder(running, written)
    finally:
        running.clear()
        ending.set()
        process.join()


def beside(
    service: Running,
    target: Target,
    rate: int,
    rounds: int,
    seconds: int,
    connections: int,
    core: str,
    folding_core: str | None,
) -> None:
    """Encrypt with folding beside and without, in turn."""
    settings = Settings(data_dir=service.folder / "kms-data")
    command = ["pgrep", "-P", str(service.process.pid), "-x", PROCESS_NAME]
    folding = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if folding_core is not None:
        os.sched_setaffinity(folding, {int(folding_core)})
    log = settings.audit_log_dir
    with_it: list[Measured] = []
    without: list[Measured] = []
    rates: list[float] = []
    shares: list[float] = []
    worth: dict[bool, list[float]] = {True: [], False: []}  # uses for each second of the worker's processor time
    with feeder(settings, rate, core) as source:
        for number in range(rounds):
            arms = [with_it, without] if number % 2 else [without, with_it]
            for arm in arms:
                _until_folded(log)
                if arm is without:
                    os.kill(folding, signal.SIGSTOP)
                try:
                    with source.feeding():
                        time.sleep(1.5)  # until the first of them are folded
                        began, size, used = time.perf_counter(), _size(log), processor_seconds(folding)
                        spent = service.processor_seconds()
                        arm.append(target.load(seconds, connections, core))
                        spent = service.processor_seconds() - spent
                        worth[arm is with_it].append(arm[-1].per_second * seconds / spent)
                        wall = time.perf_counter() - began
                        if arm is with_it:
                            rates.append((_size(log) - size) / wall)
                            shares.append((processor_seconds(folding) - used) / wall)
                finally:
                    os.kill(folding, signal.SIGCONT)
            click.echo(f"round {number + 1} of {rounds}", err=True)
        fed = source.written.value
    pairs = list(zip(with_it, without, strict=True))
    click.echo(
        f"encrypt 32 B with folding beside: {statistics.median(a.per_second for a in with_it):,.0f}/s, "
        f"p99 {statistics.median(a.p99_ms for a in with_it):.1f} ms, {sum(a.errors for a in with_it)} errors; "
        f"without: {statistics.median(b.per_second for b in without):,.0f}/s, "
        f"p99 {statistics.median(b.p99_ms for b in without):.1f} ms, {sum(b.errors for b in without)} errors"
    )
    click.echo(
        f"ratios, with to without, medians of {rounds} rounds: "
        f"rate {statistics.median(a.per_second / b.per_second for a, b in pairs):.2f} "
        f"({', '.join(f'{a.per_second / b.per_second:.2f}' for a, b in pairs)}), "
        f"p99 {statistics.median(a.p99_ms / b.p99_ms for a, b in pairs):.2f} "
        f"({', '.join(f'{a.p99_ms / b.p99_ms:.2f}' for a, b in pairs)})"
    )
    per_second = [a / b for a, b in zip(worth[True], worth[False], strict=True)]
    click.echo(
        f"uses for each second of the worker's processor time: {statistics.median(per_second):.2f} "
        f"({', '.join(f'{each:.2f}' for each in per_second)})"
    )
    click.echo(
        f"folded beside: {statistics.median(rates):,.0f} entries/s, with {statistics.median(shares):.0%} of a core; "
        f"{fed:,} entries were fed in all"
    )


def _size(log: Path) -> int:
    """The size that the checkpoint says."""
    return int((log / CHECKPOINT).read_text().split("\n")[1])


def _until_folded(log: Path) -> None:
    """Wait until nothing is left to fold."""
    size, since = -1, time.monotonic()
    while time.monotonic() - since < _QUIET_SECONDS:
        time.sleep(0.2)
        now = _size(log)
        if now != size:
            size, since = now, time.monotonic()


if __name__ == "__main__":
    main()
