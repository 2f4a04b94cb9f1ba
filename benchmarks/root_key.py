"""`python -m benchmarks.root_key`: what a change of the root key costs those who use keys, beside quiet times."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass

import click

from benchmarks.programs import ROOT, Measured, Running, processor_seconds, service
from benchmarks.seeding import KEYS

_BY_COMMAND, _BY_WORKER = "the command works", "the worker works"
_WHEN = ("quiet", "during the change", "right after it")


@dataclass(frozen=True)
class _Use:
    """One round of uses, and how many there were for each second that worker and command have had the processor."""

    measured: Measured
    for_each_second: float


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=4, show_default=True, help="Of each measurement.")
def main(rounds: int, seconds: int) -> None:
    """Encrypt over many keys while 10,000 keys are brought under another root key, on one core, and show ratios.

    The ratio of uses for each second of the processor holds also where other machines take time from this one.
    """
    uses: dict[str, list[list[_Use]]] = {_BY_COMMAND: [], _BY_WORKER: []}
    lasted = []
    with service("0") as running:
        target = running.target("/api/v1/keys/seeded-%d/encrypt", {"plaintext": "AAAA"}, keys=2000)

        def use(command: subprocess.Popen[bytes] | None = None) -> _Use:
            began = running.processor_seconds() + _processor_seconds(command)
            measured = target.load(seconds, 16, "1")
            spent = running.processor_seconds() + _processor_seconds(command) - began
            return _Use(measured, measured.per_second * seconds / spent)

        for number in range(rounds):
            for way, done in uses.items():
                use()  # the worker reads all keys again after the last change
                quiet = use()
                command = _begun(running)
                if way == _BY_WORKER:
                    command.kill()
                    command.wait()
                    time.sleep(25)  # until its claim is over
                began = time.monotonic()
                during = use(command)
                if way == _BY_WORKER:
                    command = _begun(running)
                if command.wait():
                    raise RuntimeError("the root key was not changed")
                if way == _BY_COMMAND:
                    lasted.append(time.monotonic() - began)
                done.append([quiet, during, use()])
            click.echo(f"round {number + 1} of {rounds} done", err=True)
    for way, done in uses.items():
        for at, when in enumerate(_WHEN[1:], start=1):
            rate = statistics.median(each[at].measured.per_second / each[0].measured.per_second for each in done)
            worth = statistics.median(each[at].for_each_second / each[0].for_each_second for each in done)
            p99 = statistics.median(each[at].measured.p99_ms / each[0].measured.p99_ms for each in done)
            errors = sum(each[at].measured.errors for each in done)
            click.echo(
                f"{way}, {when}, of the quiet one: rate {rate:.2f}, uses for each second of the processor "
                f"{worth:.2f}, p99 {p99:.1f}; {errors} errors"
            )
    click.echo(f"{KEYS:,} keys and what else there is: {statistics.median(lasted):.1f} s by the command, under load")


def _processor_seconds(command: subprocess.Popen[bytes] | None) -> float:
    """What a command that runs has had of the processor; 0 where there is none."""
    return processor_seconds(command.pid) if command is not None and command.poll() is None else 0.0


def _begun(running: Running) -> subprocess.Popen[bytes]:
    """The command, which has begun to bring rows under the new root key."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["taskset", "-c", "0", sys.executable, "-m", "kms", "vault", "rotate-root-key", "--yes"]
    process = subprocess.Popen(
        command, cwd=running.folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(2)
    return process


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
