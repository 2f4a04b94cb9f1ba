"""Runs the benchmarks: candidates take turns in short rounds, because machines drift, and ratios are of rounds.

Needs `wrk`, `curl`, `openssl` and `taskset`, and two cores: one for the server, one for the load.
"""

from __future__ import annotations

import base64
import json
import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks import programs
from benchmarks.chart import svg
from benchmarks.programs import Measured, Running, Target

_KEYS: dict[str, dict[str, Any]] = {
    "aead": {},
    "mac": {"type": "hmac-sha256"},
    "rsa": {"type": "rsa-2048"},
    "p256": {"type": "ec-p256"},
    "ed": {"type": "ed25519"},
    "mldsa": {"type": "ml-dsa-65"},
}
_SPEEDS = {"sign RSA-2048": "rsa2048", "sign P-256": "ecdsap256", "sign Ed25519": "ed25519"}
_ITEMS = 100


def candidates(service: Running) -> dict[str, tuple[Target, int]]:
    """Each operation that is measured: its request, and how many items one answer counts for."""
    for key_id, body in _KEYS.items():
        service.call("POST", "/api/v1/keys", {"key_id": key_id, **body})
    found: dict[str, tuple[Target, int]] = {}

    def add(name: str, key_id: str, operation: str, body: Any, items: int = 1) -> Any:
        path = f"/api/v1/keys/{key_id}/{operation}"
        found[name] = (service.target(path, body), items)
        return service.call("POST", path, body)

    for size, text in ((32, "32 B"), (4096, "4 KiB"), (65536, "64 KiB")):
        plaintext = {"plaintext": base64.b64encode(b"x" * size).decode()}
        sealed = add(f"encrypt {text}", "aead", "encrypt", plaintext)
        add(f"decrypt {text}", "aead", "decrypt", {"ciphertext": sealed["ciphertext"]})
    add("data key", "aead", "data-key", {})
    message = {"message": base64.b64encode(b"x" * 32).decode()}
    add("mac", "mac", "mac", message)
    for name, key_id in (("RSA-2048", "rsa"), ("P-256", "p256"), ("Ed25519", "ed"), ("ML-DSA-65", "mldsa")):
        signed = add(f"sign {name}", key_id, "sign", message)
        add(f"verify {name}", key_id, "verify", {**message, "signature": signed["signature"]})
    several = {"items": [{"plaintext": base64.b64encode(b"x" * 32).decode()}] * _ITEMS}
    sealed = add("encrypt 100 at once", "aead", "encrypt", several, _ITEMS)["items"]
    opened = {"items": [{"ciphertext": each["ciphertext"]} for each in sealed]}
    add("decrypt 100 at once", "aead", "decrypt", opened, _ITEMS)
    return found


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
) -> None:
    """Measure one worker on one core, with every safety feature on."""
    with programs.service(server_core) as service, programs.yardsticks(server_core, service.folder) as yardstick:
        plain = json.dumps({"plaintext": base64.b64encode(b"x" * 32).decode()}).encode()
        every = {
            "echo": (Target(yardstick, "/echo", "-", plain), 1),
            "Flask view": (Target(yardstick, "/flask", "-", plain), 1),
            **{name: each for name, each in candidates(service).items() if only is None or only in name},
        }
        if vault_url:
            path = "/v1/transit/encrypt/bench"
            every["Vault Transit encrypt 32 B"] = (Target(vault_url, path, f"Bearer {vault_token}", plain), 1)
        measured: dict[str, list[Measured]] = {name: [] for name in every}
        for number in range(rounds):
            for name, (target, _) in every.items():
                measured[name].append(target.load(seconds, connections, load_core))
            click.echo(f"round {number + 1} of {rounds} done", err=True)
        single = every["encrypt 32 B"][0].load(seconds, 1, load_core) if "encrypt 32 B" in every else None
        figures = {name: _figures(name, measured, every[name][1]) for name in every}
        memory, started = service.resident_mebibytes(), service.seconds_to_start
    for name, algorithm in _SPEEDS.items():
        if name in figures:
            speed = programs.openssl_speed(server_core, algorithm)
            figures[name]["of openssl speed"] = round(figures[name]["per second"] / speed, 2)
    _print(figures)
    click.echo(f"\nmemory of a worker: {memory[0]:.0f} MiB; start on an existing vault: {started:.2f} s")
    if single is not None:
        click.echo(f"one connection, encrypt 32 B: p50 {single.p50_ms:.2f} ms")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    if chart_path:
        chart_path.write_text(svg({name: each["per second"] for name, each in figures.items() if name != "echo"}))


def _figures(name: str, measured: dict[str, list[Measured]], items: int) -> dict[str, float]:
    rounds = measured[name]

    def ratio(to: str) -> float:
        pairs = zip(rounds, measured[to], strict=True)
        return round(statistics.median(mine.per_second / theirs.per_second for mine, theirs in pairs), 2)

    return {
        "per second": round(statistics.median(each.per_second for each in rounds) * items),
        "p50 ms": round(statistics.median(each.p50_ms for each in rounds), 2),
        "p99 ms": round(statistics.median(each.p99_ms for each in rounds), 2),
        "of Flask view": ratio("Flask view"),
        "of echo": ratio("echo"),
        "errors": sum(each.errors for each in rounds),
    }


def _print(figures: dict[str, dict[str, float]]) -> None:
    columns = ["per second", "p50 ms", "p99 ms", "of Flask view", "of echo", "of openssl speed", "errors"]
    click.echo(f"| {'':22} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, each in figures.items():
        cells = [f"{each.get(column, ''):>{len(column)}}" for column in columns]
        click.echo(f"| {name:22} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
