"""Runs everything that clients do for some minutes, and says whether memory and descriptors of the service are flat.

`python -m benchmarks.soak --minutes 10`, as root. First it warms up, which is not judged: caches fill, each task that
is repeated runs once, the rarest after ten minutes, and keys are suspended and revoked, each of which takes some
memory for ever. Afterwards none are. Of memory the least of each fifth of the time is judged. The exit code is 1
where something grows, or where an answer was none of those that are right.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from benchmarks import programs
from benchmarks.mixed_load import MixedLoad
from benchmarks.watching import Sample, Trend, sample, trend

_SHOWN = 12


@click.command()
@click.option("--warm-up", default=11.0, show_default=True, help="Minutes before those that are judged.")
@click.option("--minutes", default=10.0, show_default=True, help="That are judged.")
@click.option("--every", default=10.0, show_default=True, help="Seconds between two looks.")
@click.option("--workers", default=2, show_default=True)
@click.option("--cores", default="0-1", show_default=True, help="Of the service.")
@click.option("--caches", type=int, help="Bound each cache by so many entries, in place of 10,000 and more.")
@click.option("--log", "log_path", type=click.Path(path_type=Path), help="Write the log of the service there.")
def main(
    warm_up: float,
    minutes: float,
    every: float,
    workers: int,
    cores: str,
    caches: int | None,
    log_path: Path | None,
) -> None:
    """Soak the service in mixed load, and print what it held over time."""
    program = ("-m", "benchmarks.small_caches", str(caches)) if caches else (str(programs.ROOT / "app.py"),)
    with programs.service(cores, workers, program) as service:
        load, samples, began = MixedLoad(service), list[Sample](), time.monotonic()
        threads = load.run()
        try:
            while (seconds := time.monotonic() - began) < (warm_up + minutes) * 60:
                load.revokes = seconds < warm_up * 60
                time.sleep(every)
                samples.append(sample(service, began))
        finally:
            load.stop()
            for each in threads:
                each.join()
        time.sleep(12)  # what is idle is closed after ten seconds
        rested = sample(service, began)
        if log_path is not None:
            log_path.write_bytes((service.folder / "log-second").read_bytes())
    are_flat = _report(samples, rested, warm_up * 60)
    _report_answers(load, rested.seconds)
    sys.exit(0 if are_flat and not load.unexpected else 1)


def _report(samples: list[Sample], rested: Sample, judged_from: float) -> bool:
    """Print the table and, from that second on, the trends. Whether all are flat."""
    names = {pid: "parent" if not number else f"worker {number}" for number, pid in enumerate(samples[0].held)}
    click.echo(
        "\n| at | " + " | ".join(f"{each}: RSS / PSS MiB, fd, threads" for each in names.values()) + " | cached |"
    )
    click.echo("|---" * (len(names) + 2) + "|")
    step = max(1, len(samples) // _SHOWN)
    for each in (*samples[::step], rested):
        cells = [
            f"{held.rss / 1024:.1f} / {held.pss / 1024:.1f}, {held.descriptors}, {held.threads}"
            for held in each.held.values()
        ]
        at = "rested" if each is rested else f"{each.seconds:.0f} s"
        click.echo(f"| {at} | " + " | ".join(cells) + f" | {sum(each.cache_entries.values())} |")
    if {tuple(each.held) for each in samples} != {tuple(names)}:
        click.echo("\nA worker was replaced.")
        return False
    judged = [each for each in samples if each.seconds > judged_from]
    if len(judged) < 2:
        click.echo("\nThere were too few looks to judge by.")
        return False
    click.echo(f"\n| from {judged_from:.0f} s on | mean | rise | |\n|---|---|---|---|")
    seconds = [each.seconds for each in judged]
    trends: dict[str, Trend] = {}
    for pid, name in names.items():
        trends[f"{name}: PSS, KiB"] = trend(seconds, [each.held[pid].pss for each in judged])
        trends[f"{name}: RSS, KiB"] = trend(seconds, [each.held[pid].rss for each in judged])
        trends[f"{name}: descriptors"] = trend(seconds, [each.held[pid].descriptors for each in judged], few=True)
        trends[f"{name}: threads"] = trend(seconds, [each.held[pid].threads for each in judged], few=True)
    for name, way in trends.items():
        click.echo(f"| {name} | {way.mean:.0f} | {way.rise:+.0f} | {'flat' if way.is_flat else 'GROWS'} |")
    click.echo("\ncaches at the end: " + ", ".join(f"{name} {size}" for name, size in rested.cache_entries.items()))
    return all(way.is_flat for way in trends.values())


def _report_answers(load: MixedLoad, seconds: float) -> None:
    total = sum(load.answers.values())
    click.echo(f"\n{total} requests, {total / seconds:.0f}/s")
    for (part, status), number in sorted(load.answers.items()):
        click.echo(f"  {part} {status}: {number}")
    for what, number in load.unexpected.most_common(20):
        click.echo(f"UNEXPECTED {number} × {what}")


if __name__ == "__main__":
    main()
