"""`python -m benchmarks.root_key`: what a change of the root key costs those who use keys, beside quiet times."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from contextlib import suppress

import click

from benchmarks.programs import ROOT, Measured, Running, service
from benchmarks.seeding import KEYS

_BY_COMMAND, _BY_WORKER = "the command works", "the worker works"


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=4, show_default=True, help="Of each measurement.")
def main(rounds: int, seconds: int) -> None:
    """Encrypt over many keys while 10,000 keys are brought under another root key, on one core, and show ratios."""
    measured: dict[str, list[tuple[Measured, Measured, Measured]]] = {_BY_COMMAND: [], _BY_WORKER: []}
    lasted = []
    with service("0") as running:
        target = running.target("/api/v1/keys/seeded-%d/encrypt", {"plaintext": "AAAA"}, keys=2000)
        for number in range(rounds):
            for way, rounds_of_way in measured.items():
                target.load(seconds, 16, "1")  # workers read all keys again after the last change
                quiet = target.load(seconds, 16, "1")
                command = _begun(running)
                if way == _BY_WORKER:
                    command.kill()
                    command.wait()
                    time.sleep(25)  # until its claim is over
                began = time.monotonic()
                during = target.load(seconds, 16, "1")
                if way == _BY_WORKER:
                    command = _begun(running)
                if command.wait():
                    raise RuntimeError("the root key was not changed")
                if way == _BY_COMMAND:
                    lasted.append(time.monotonic() - began)
                rounds_of_way.append((quiet, during, target.load(seconds, 16, "1")))
            click.echo(f"round {number + 1} of {rounds} done", err=True)
    for way, rounds_of_way in measured.items():
        for name, at in (("during the change", 1), ("right after it", 2)):
            rate = statistics.median(each[at].per_second / each[0].per_second for each in rounds_of_way)
            p99 = statistics.median(each[at].p99_ms / each[0].p99_ms for each in rounds_of_way)
            errors = sum(each[at].errors for each in rounds_of_way)
            click.echo(f"{way}, {name}: rate {rate:.2f} and p99 {p99:.1f} of the quiet one, {errors} errors")
    click.echo(f"{KEYS:,} keys and what else there is: {statistics.median(lasted):.1f} s by the command, under load")


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
