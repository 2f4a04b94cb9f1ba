"""Compares what an encryption costs here with what it costs in another checkout.

`python -m benchmarks.compare ../before`. Both serve on one core, with a worker each, and are loaded in turn from
another, so that whatever else the machine does meets both alike. The processor time of the worker for each request
says more than the rate, which also has in it what the load and other machines take. Two starts of the same checkout
differ by some percent, by where things happen to lie in memory, so all are started several times.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.programs import ROOT, Target, of_workers

_KEY, _BODY = "compared", b'{"plaintext": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="}'
_SERVE = """
import json, sys
from benchmarks import programs
with programs.service(sys.argv[1]) as service:
    service.call("POST", "/api/v1/keys", {"key_id": sys.argv[2]})
    print(json.dumps({"url": service.url, "token": service.token, "pid": service.process.pid}), flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class _Round:
    per_second: float
    p99_ms: float
    microseconds: float  # of the processor, for each request
    errors: int


@dataclass(frozen=True)
class _Served:
    """A checkout that serves: its encryption, and the process that has its worker."""

    target: Target
    pid: int

    def load(self, seconds: int, connections: int) -> _Round:
        before = of_workers(self.pid)
        measured = self.target.load(seconds, connections, "1")
        spent = of_workers(self.pid) - before
        microseconds = spent / measured.per_second / seconds * 1e6
        return _Round(measured.per_second, measured.p99_ms, microseconds, measured.errors)


@contextmanager
def _served(checkout: Path) -> Iterator[_Served]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, "0", _KEY],
        cwd=checkout,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        path = f"/api/v1/keys/{_KEY}/encrypt"
        yield _Served(Target(said["url"], path, f"Bearer {said['token']}", _BODY), said["pid"])
    finally:
        process.stdin.close()
        process.wait()


@click.command()
@click.argument("others", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--starts", default=5, show_default=True)
@click.option("--rounds", default=6, show_default=True, help="After each start.")
@click.option("--seconds", default=2, show_default=True, help="Of each measurement.")
@click.option("--connections", default=16, show_default=True)
def main(others: tuple[Path, ...], starts: int, rounds: int, seconds: int, connections: int) -> None:
    """Encrypt 32 bytes here and in OTHERS, in turn, and show ratios to the first of these."""
    checkouts = [*others, ROOT]
    done: dict[Path, list[_Round]] = {each: [] for each in checkouts}
    for start in range(starts):
        with ExitStack() as stack:
            served = {each: stack.enter_context(_served(each)) for each in checkouts}
            for service in served.values():
                service.load(3, connections)
            for number in range(start, start + rounds):
                for each in checkouts if number % 2 else reversed(checkouts):
                    done[each].append(served[each].load(seconds, connections))
    click.echo("| checkout | per second | p99 ms | worker's µs | their ratio | of each start | of rates | errors |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for checkout, found in done.items():
        pairs = list(zip(found, done[others[0]], strict=True))
        costs = [mine.microseconds / first.microseconds for mine, first in pairs]
        of_starts = [statistics.median(costs[at : at + rounds]) for at in range(0, len(costs), rounds)]
        click.echo(
            f"| {checkout.resolve().name} | {statistics.median(mine.per_second for mine in found):,.0f} "
            f"| {statistics.median(mine.p99_ms for mine in found):.2f} "
            f"| {statistics.median(mine.microseconds for mine in found):.1f} "
            f"| {statistics.median(costs):.3f} | {' '.join(f'{ratio:.3f}' for ratio in of_starts)} "
            f"| {statistics.median(mine.per_second / first.per_second for mine, first in pairs):.3f} "
            f"| {sum(mine.errors for mine in found)} |"
        )


if __name__ == "__main__":
    main()
