"""`python -m benchmarks.nodes`: what nodes ask of their database, what changes wait for, how far away it may be.

Three real nodes with one worker each, as the tests have them, so it needs what the tests need. It shows what is set
by waiting and counting, not by the speed of the machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from helpers.trio import Trio

ROOT = Path(__file__).parents[1]
_ONE_WAY_MS = (0, 5, 10, 20, 40, 80)
_CHANGES = 20


@click.command()
@click.option("--seconds", default=5, show_default=True, help="Of each measurement.")
def main(seconds: int) -> None:
    """Measure, and print a table."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers.load import Load
    from helpers.postgres_server import PostgresServer
    from helpers.running import Running, process_of
    from helpers.support import free_port
    from helpers.trio import RedisServer, Trio

    work = Path(tempfile.mkdtemp(prefix="kms-nodes-"))
    started: list[Running] = []

    def start(*flags: str, folder: Path | None = None, login: bool = True, **env: str) -> Running:
        folder = folder or _new(work, f"node-{len(started)}")
        port, log = free_port(), work / f"log-{len(started)}"
        command = [
            sys.executable,
            str(ROOT / "app.py"),
            "--port",
            str(port),
            "--bootstrap-file",
            "admin.json",
            *flags,
        ]
        environ = {"PATH": "/usr/bin:/bin", "PYTHONWARNINGS": "ignore", **env}
        node = Running(folder, port, process_of(command, folder, log, environ), log, environ)
        started.append(node)
        node.wait_until_ready()
        if login:
            node.token = node.login(node.admin)
        return node

    database = PostgresServer.new(max_connections="100").initialize().start()
    redis = RedisServer(_new(work, "redis")).start()
    try:
        trio = Trio.made(start, database, redis, lambda name: _new(work, name))
        trio.key("k")
        _idle(trio, seconds)
        _changes(trio)
        for one_way in _ONE_WAY_MS:
            trio.proxy.delay_seconds = one_way / 1000
            time.sleep(2)
            with Load(trio.b, trio.b.token, "k") as load:
                time.sleep(1)
                began = time.monotonic()
                time.sleep(seconds)
            uses = [use for use in load.uses if use.began > began]
            refused = sum(use.status != 200 for use in uses) / max(len(uses), 1)
            waits = sorted((use.ended - use.began) * 1000 for use in uses)
            slow = waits[int(len(waits) * 0.99)]
            click.echo(
                f"database {2 * one_way} ms away (there and back): {refused:.1%} refused, "
                f"p50 {waits[len(waits) // 2]:.1f} ms, p99 {slow:.0f} ms"
            )
    finally:
        for node in started:
            node.stop()
        redis.end()
        database.remove()
        subprocess.run(["rm", "-r", str(work)], check=False)


def _new(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir()
    return folder


def _idle(trio: Trio, seconds: int) -> None:
    ask = trio.database.ask

    def transactions() -> int:
        ((count,),) = ask("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'trio'")
        return int(count)

    time.sleep(3)
    before, began = transactions(), time.monotonic()
    time.sleep(2 * seconds)
    rate = (transactions() - before) / (time.monotonic() - began) / 3
    ((connections,),) = ask("SELECT count(*) FROM pg_stat_activity WHERE datname = 'trio'")
    click.echo(f"idle: {rate:.1f} transactions a second and {connections / 3:.1f} connections for each worker")


def _changes(trio: Trio) -> None:
    node = trio.a

    def each(act: Callable[[int], int]) -> str:
        took = []
        for number in range(_CHANGES):
            began = time.monotonic()
            status = act(number)
            took.append((time.monotonic() - began) * 1000)
            if status not in (200, 201):
                raise RuntimeError(f"a change was answered {status}")
        return f"{statistics.median(took):.0f} ms"

    def use(_number: int) -> int:
        return int(node.curl("POST", "/api/v1/keys/k/encrypt", {"plaintext": "AAAA"}).status)

    def make(number: int) -> int:
        return int(node.curl("POST", "/api/v1/keys", {"key_id": f"made-{number}"}).status)

    def revoke(number: int) -> int:
        return int(node.curl("POST", f"/api/v1/keys/made-{number}/revoke", {}).status)

    click.echo(
        f"by curl, which takes part of it: a use {each(use)}, a new key {each(make)}, a revocation {each(revoke)}"
    )


if __name__ == "__main__":
    main()
