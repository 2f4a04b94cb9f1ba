"""Runs the benchmarks: candidates take turns in short rounds, because machines drift, and ratios are of rounds.

Needs `wrk`, `curl`, `openssl` and `taskset`, and two cores: one for the server, one for the load.
"""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks import changes, program_logins, programs
from benchmarks import connections as others
from benchmarks.cases import Case, cases, warm_up
from benchmarks.chart import svg
from benchmarks.primitives import PRIMITIVES
from benchmarks.programs import Measured, Running, Target

_SPEEDS = {"sign RSA-2048": "rsa2048", "sign P-256": "ecdsap256", "sign Ed25519": "ed25519"}
_SINGLE = "encrypt 32 B"
_LOGINS, _LOGINS_A_ROUND = "log in", 40
_MANY_KEYS = "encrypt 32 B, 2,000 keys"
_BESIDE_ROTATIONS = f"{_MANY_KEYS}, {changes.ROTATIONS_A_SECOND} rotations/s beside"
_GENERATIONS_AT_ONCE = 10

Figures = dict[str, dict[str, float]]


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=2, show_default=True, help="Of each candidate in each round.")
@click.option("--connections", default=16, show_default=True, help="Kept alive, over TLS.")
@click.option("--only", help="Only candidates whose name has this in it.")
@click.option("--server-core", default="0", show_default=True)
@click.option("--load-core", default="1", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--chart", "chart_path", type=click.Path(path_type=Path), help="Draw them there, as SVG.")
@click.option(
    "--vault-url", help="Of a server with Vault's Transit API, which has a key `bench`, to take turns with."
)
@click.option("--vault-token", envvar="VAULT_TOKEN")
@click.option("--aws-url", help="Of a server with the AWS KMS API that checks no signatures, to take turns with.")
@click.option("--aws-key", default="alias/bench", show_default=True, help="A symmetric key of that server.")
def main(
    rounds: int,
    seconds: int,
    connections: int,
    only: str | None,
    server_core: str,
    load_core: str,
    json_path: Path | None,
    chart_path: Path | None,
    vault_url: str | None,
    vault_token: str | None,
    aws_url: str | None,
    aws_key: str,
) -> None:
    """Measure one worker on one core, with every safety feature on."""
    with programs.service(server_core) as service, programs.yardsticks(server_core, service.folder) as yardstick:
        every = {
            **_yardsticks(yardstick, vault_url, vault_token, aws_url, aws_key, connections),
            **{name: each for name, each in cases(service, connections).items() if only is None or only in name},
        }
        memory = service.resident_mebibytes()
        warm_up(every, load_core)
        by_programs = program_logins.kinds(service)
        clients = iter(service.seeded.credentials)
        measured: dict[str, list[Measured]] = {name: [] for name in every}
        bare: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
        for number in range(rounds):
            for name, case in every.items():
                measured[name].append(case.target.load(seconds, case.connections, load_core))
                if name in PRIMITIVES:
                    bare[name].append(_bare(server_core, name))
            for name, requests in changes.kinds(service).items():
                if only is None or only in name:
                    measured.setdefault(name, []).append(changes.measure(service, requests, seconds))
            for name, requests in by_programs.items():
                if only is None or only in name:
                    measured.setdefault(name, []).append(program_logins.measure(service, requests, seconds))
            if only is None or only in _LOGINS:
                measured.setdefault(_LOGINS, []).append(_logins(service, clients))
            if _MANY_KEYS in every:
                beside, _ = changes.beside_rotations(service, every[_MANY_KEYS].target, load_core, seconds)
                measured.setdefault(_BESIDE_ROTATIONS, []).append(beside)
            click.echo(f"round {number + 1} of {rounds} done", err=True)
        figures = {name: _figures(measured, name, every) for name in measured}
        memory_after, started = service.resident_mebibytes(), service.seconds_to_start
        if only is None:
            beside_making = _beside_generation(service, clients, every[_SINGLE].target, load_core, seconds)
            handshakes = others.handshakes(service.url, seconds, load_core)
    for name, rounds_of_it in bare.items():
        pairs = list(zip(measured[name], rounds_of_it, strict=False))
        if pairs:
            of_primitive = statistics.median(mine.per_second / primitive for mine, (primitive, _) in pairs)
            figures[name]["of primitive"] = round(of_primitive, 2)
        if name in _SPEEDS and pairs:
            of_speed = statistics.median(mine.per_second / speed for mine, (_, speed) in pairs)
            figures[name]["of openssl speed"] = round(of_speed, 2)
    _print(figures)
    click.echo(
        f"\nmemory of a worker: {memory[0]:.0f} MiB, after all this {memory_after[0]:.0f} MiB; "
        f"start on an existing vault: {started:.2f} s"
    )
    if only is None:
        click.echo(beside_making)
        click.echo(f"full TLS handshakes, one after the other: {handshakes:.0f}/s")
        click.echo(_two_workers(server_core, load_core, seconds, rounds))
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    if chart_path:
        chart_path.write_text(svg({name: each["per second"] for name, each in figures.items() if name != "echo"}))


def _yardsticks(
    url: str, vault_url: str | None, vault_token: str | None, aws_url: str | None, aws_key: str, connections: int
) -> dict[str, Case]:
    plain = base64.b64encode(b"x" * 32).decode()
    body = json.dumps({"plaintext": plain}).encode()
    found = {
        "echo": Case(Target(url, "/echo", "-", body), 1, connections),
        "Flask view": Case(Target(url, "/flask", "-", body), 1, connections),
    }
    if vault_url:
        headers = (("X-Vault-Token", vault_token or ""),)
        target = Target(vault_url, "/v1/transit/encrypt/bench", "-", body, headers=headers)
        found["Vault Transit encrypt 32 B"] = Case(target, 1, connections)
    if aws_url:
        sent = json.dumps({"KeyId": aws_key, "Plaintext": plain}).encode()
        # A signature that nobody checks: of a server that does, its requests would have to be signed one by one.
        signed = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=x"
        headers = (("X-Amz-Target", "TrentService.Encrypt"),)
        target = Target(aws_url, "/", signed, sent, content_type="application/x-amz-json-1.1", headers=headers)
        found["AWS KMS encrypt 32 B"] = Case(target, 1, connections)
    return found


def _figures(measured: dict[str, list[Measured]], name: str, every: dict[str, Case]) -> dict[str, float]:
    rounds = measured[name]
    items = every[name].items if name in every else 1

    def ratio(to: str) -> float:
        pairs = zip(rounds, measured[to], strict=True)
        return round(statistics.median(mine.per_second / theirs.per_second for mine, theirs in pairs), 2)

    found = {
        "per second": round(statistics.median(each.per_second for each in rounds) * items),
        "p50 ms": round(statistics.median(each.p50_ms for each in rounds), 2),
        "p99 ms": round(statistics.median(each.p99_ms for each in rounds), 2),
        "of Flask view": ratio("Flask view"),
        "of echo": ratio("echo"),
        "errors": sum(each.errors for each in rounds),
    }
    if _SINGLE in measured:
        found["of encrypt 32 B"] = ratio(_SINGLE)
    if name == _BESIDE_ROTATIONS:
        found["of quiet"] = ratio(_MANY_KEYS)
    return found


def _bare(core: str, name: str) -> tuple[float, float]:
    """How often a second the bare primitive runs, here and by `openssl speed`, in the moment of the round."""
    speed = programs.openssl_speed(core, _SPEEDS[name]) if name in _SPEEDS else 0.0
    return programs.primitive(core, name), speed


def _logins(service: Running, clients: Iterator[tuple[str, str, str]]) -> Measured:
    return others.logins(service, clients, _LOGINS_A_ROUND)


def _beside_generation(
    service: Running, clients: Iterator[tuple[str, str, str]], target: Target, core: str, seconds: int
) -> str:
    alone = target.load(seconds, 4, core)
    makers = [others.log_in(service, next(clients)) for _ in range(_GENERATIONS_AT_ONCE)]
    beside = others.beside_generation(service, makers, target, core, seconds)
    return (
        f"encrypt 32 B over 4 connections: p50 {alone.p50_ms:.2f} ms, p99 {alone.p99_ms:.1f} ms; "
        f"while {_GENERATIONS_AT_ONCE} RSA-4096 keys are made at a time: p50 {beside.p50_ms:.2f} ms, "
        f"p99 {beside.p99_ms:.1f} ms ({beside.errors} errors)"
    )


def _two_workers(server_core: str, load_core: str, seconds: int, rounds: int) -> str:
    """One worker and two, by requests for each second of processor time: the load needs one of the two cores."""
    both = f"{server_core},{load_core}"
    with programs.service(server_core) as one, programs.service(both, workers=2) as two:
        found = []
        for service, cores in ((one, load_core), (two, both)):
            target = cases(service, 16)[_SINGLE].target
            rates, costs = [], []
            for _ in range(rounds):
                before = service.processor_seconds()
                measured = target.load(seconds, 32, cores)
                rates.append(measured.per_second)
                costs.append(measured.per_second * seconds / (service.processor_seconds() - before))
            found.append((statistics.median(rates), statistics.median(costs)))
    (rate_of_one, cost_of_one), (rate_of_two, cost_of_two) = found
    return (
        f"two workers on two cores, which the load shares: {rate_of_two / rate_of_one:.2f} × the requests of one; "
        f"{2 * cost_of_two / cost_of_one:.2f} × by processor time of the workers"
    )


def _print(figures: Figures) -> None:
    columns = ["per second", "p50 ms", "p99 ms", "of Flask view", "of echo", "of encrypt 32 B", "of primitive"]
    columns += ["of openssl speed", "of quiet", "errors"]
    click.echo(f"| {'':26} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, each in figures.items():
        cells = [f"{each.get(column, ''):>{len(column)}}" for column in columns]
        click.echo(f"| {name:26} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
