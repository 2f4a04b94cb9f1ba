"""Runs faults and writes the report."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import click

from faults.databases import KINDS, Databases
from faults.outcome import Outcome, Skipped

_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Bench:
    """What a fault is made with: databases of one kind, an empty folder, a seed, and how often to make it."""

    databases: Databases
    folder: Path
    seed: int
    rounds: int

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a file of SQLite."""
        return self.databases.kind == "sqlite"

    def chance(self, *of: object) -> random.Random:
        """Chances that the seed decides, of their own for each purpose."""
        return random.Random("/".join(map(str, (self.seed, self.databases.kind, *of))))


@dataclass(frozen=True)
class Fault:
    """One kind of fault: `full` is how many rounds it is made in a full run.

    One that is not about what is durable need not be `on_disk`.
    """

    name: str
    title: str
    make: Callable[[Bench], Outcome]
    full: int
    databases: tuple[str, ...] = KINDS
    on_disk: bool = True


def every_fault() -> list[Fault]:
    """All of them, in the order of the report."""
    from faults import clocks, commits, disks, files, flips, kills, load, log_disk, put_back

    return [
        fault
        for module in (kills, commits, load, disks, log_disk, files, flips, put_back, clocks)
        for fault in module.FAULTS
    ]


def run(fault: Fault, databases: Databases, seed: int, rounds: int) -> Outcome:
    """Make one fault so many times."""
    memory = _MEMORY if _MEMORY.is_dir() and not fault.on_disk else None
    folder = Path(tempfile.mkdtemp(prefix=f"kms-fault-{fault.name}-", dir=memory))
    try:
        return fault.make(Bench(databases, folder, seed, rounds))
    except Skipped:
        raise
    except Exception:  # noqa: BLE001  # what breaks a run off is the worst finding of all; the others go on
        broken = Outcome()
        broken.find("wrong", f"the run broke off: {traceback.format_exc()[-1500:]}")
        return broken
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_alone(name: str, kind: str, seed: int, rounds: int) -> tuple[Outcome | str, float]:
    """Make one fault in a process of its own: what came of it, or why it could not be made; and the seconds."""
    began, context = time.monotonic(), get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run_and_tell, args=(theirs, name, kind, seed, rounds))
    process.start()
    theirs.close()
    outcome: Outcome | str = ours.recv()
    process.join()
    return outcome, time.monotonic() - began


def _run_and_tell(pipe: Connection, name: str, kind: str, seed: int, rounds: int) -> None:
    fault = next(each for each in every_fault() if each.name == name)
    databases = Databases(kind)
    try:
        pipe.send(run(fault, databases, seed, rounds))
    except Skipped as skipped:
        pipe.send(str(skipped))
    finally:
        databases.close()


@click.command()
@click.option("--seed", type=int, default=16, show_default=True)
@click.option("--database", type=click.Choice(KINDS), help="Only on this one.")
@click.option("--fault", "only", multiple=True, help="Only faults whose name begins so; may be given again.")
@click.option("--rounds", type=int, help="How often each is made, in place of its own number.")
@click.option("--share", type=float, default=1.0, show_default=True, help="Of those numbers of rounds.")
@click.option("--jobs", type=int, default=1, show_default=True, help="How many faults are made at once.")
@click.option(
    "--results", type=click.Path(path_type=Path), help="Keep what comes of each there, beside earlier runs."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write the page there, from --results.")
def main(
    seed: int,
    database: str | None,
    only: tuple[str, ...],
    rounds: int | None,
    share: float,
    jobs: int,
    results: Path | None,
    report: Path | None,
) -> None:
    """Make every fault on purpose and say what came of it. The exit code is 1 if anything did that must not."""
    from faults.report import Line, keep, kept, page

    chosen = [
        (fault, kind)
        for fault in every_fault()
        for kind in ([database] if database else KINDS)
        if kind in fault.databases and (not only or fault.name.startswith(only))
    ]
    chosen_rounds = f" --rounds {rounds}" if rounds else f" --share {share}"
    options = f"--seed {seed}{chosen_rounds} --jobs {jobs}" + "".join(f" --fault {each}" for each in only)
    is_clean = True
    with ThreadPoolExecutor(jobs) as pool:
        made = {
            pool.submit(run_alone, fault.name, kind, seed, rounds or max(1, round(fault.full * share))): (fault, kind)
            for fault, kind in chosen
        }
        for future in as_completed(made):
            outcome, seconds = future.result()
            line = Line(*made[future], outcome, options)
            is_clean &= isinstance(outcome, str) or outcome.is_clean
            click.echo(f"{line.shown()}  ({seconds:.0f} s)")
            if results is not None:  # at once: the next one may break off
                keep(results, line)
    if report is not None and results is not None:
        report.write_text(page(kept(results, every_fault())))
    raise SystemExit(not is_clean)
