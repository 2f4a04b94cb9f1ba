"""`python -m benchmarks.files`: how fast `kms encrypt` and `decrypt` are beside `age`, whole commands in turn."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks.programs import ROOT, service
from kms.client import kept_login
from kms.client.kept_login import KeptLogin

_MEBIBYTE = 1 << 20


@click.command()
@click.option("--mebibytes", default=1024, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(mebibytes: int, rounds: int) -> None:
    """Encrypt and decrypt a file of so many MiB by each program in turn, and show the medians."""
    age = shutil.which("age")
    with service("0") as running, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running.call("POST", "/api/v1/keys", {"key_id": "files"})
        os.environ["KMS_HOME"] = str(folder / "home")
        kept_login.save(KeptLogin(running.url, str(running.folder / "server.crt"), running.token))
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        kms = [sys.executable, "-m", "kms"]
        commands = {
            "kms encrypt": [*kms, "encrypt", "-f", "-k", "files", "-o", "out.kms", "in"],
            "kms decrypt": [*kms, "decrypt", "-f", "-o", "back", "out.kms"],
        }
        if age:
            made = subprocess.run(
                ["age-keygen", "-o", "age.key"], cwd=folder, capture_output=True, text=True, check=True
            )
            recipient = made.stderr.split()[-1]
            commands["age encrypt"] = [age, "-r", recipient, "-o", "out.age", "in"]
            commands["age decrypt"] = [age, "-d", "-i", "age.key", "-o", "back", "out.age"]
        with (folder / "in").open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(_MEBIBYTE))
        seconds: dict[str, list[float]] = {each: [] for each in commands}
        for _ in range(rounds):
            for each, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=True)
                seconds[each].append(time.perf_counter() - began)
    for each, taken in seconds.items():
        rate = mebibytes / statistics.median(taken)
        other = seconds.get(each.replace("kms", "age"), [])
        ratio = (
            f", {statistics.median(other) / statistics.median(taken):.2f} of age" if other and "kms" in each else ""
        )
        click.echo(f"{each}: {rate:.0f} MiB/s{ratio}")


if __name__ == "__main__":
    main()
