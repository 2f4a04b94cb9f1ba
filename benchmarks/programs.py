"""The programs of a run: the service, the yardsticks and the load, each held to a core of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyotp

from benchmarks.seeding import Seeded, seed
from kms.audit.folding import PROCESS_NAME

ROOT = Path(__file__).parents[1]
_SCRIPT = Path(__file__).with_name("request.lua")
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE")
_PATIENCE = 30
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Measured:
    """What one round of load gave."""

    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Target:
    """One request that load is made of; where there are `keys`, `path` has a place for the number of one.

    `prepare` gives it what is good for a short time only.
    """

    url: str
    path: str
    authorization: str
    body: bytes
    method: str = "POST"
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    keys: int = 0
    prepare: Callable[[Target], Target] | None = None

    def load(self, seconds: int, connections: int, core: str) -> Measured:
        """Ask for it over and over, from the given core."""
        if self.prepare is not None:
            return replace(self.prepare(self), prepare=None).load(seconds, connections, core)
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.body)
            file.flush()
            given = {
                "BENCH_METHOD": self.method,
                "BENCH_PATH": self.path,
                "BENCH_AUTHORIZATION": self.authorization,
                "BENCH_BODY": file.name,
                "BENCH_CONTENT_TYPE": self.content_type,
                "BENCH_HEADERS": "\n".join(f"{name}: {value}" for name, value in self.headers),
                "BENCH_KEYS": str(self.keys),
            }
            command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
            done = subprocess.run(
                [*command, "-s", str(_SCRIPT), self.url],
                env=os.environ | given,
                capture_output=True,
                text=True,
                check=True,
            )
        text = done.stdout
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        return Measured(
            per_second=number_after("Requests/sec", text),
            p50_ms=_latency(text, "50%"),
            p99_ms=_latency(text, "99%"),
            errors=int(failed[1]) if failed else 0,
        )


@dataclass(frozen=True)
class Running:
    """A service that is up, with a session."""

    url: str
    folder: Path
    token: str
    process: subprocess.Popen[bytes]
    seconds_to_start: float
    seeded: Seeded

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request by curl; the decoded answer."""
        command = ["curl", "-sS", "--fail-with-body", "--cacert", str(self.folder / "server.crt"), "-X", method]
        command += ["-H", f"Authorization: Bearer {self.token}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", "@-"]
        sent = None if body is None else json.dumps(body).encode()
        done = subprocess.run([*command, self.url + path], input=sent, capture_output=True, check=True)
        return json.loads(done.stdout)

    def target(self, path: str, body: Any, method: str = "POST", keys: int = 0) -> Target:
        """A request of this session."""
        sent = b"" if body is None else json.dumps(body).encode()
        return Target(self.url, path, f"Bearer {self.token}", sent, method, keys=keys)

    def processor_seconds(self) -> float:
        """The processor time that the workers have used so far."""
        return of_workers(self.process.pid)

    def resident_mebibytes(self) -> list[float]:
        """The resident memory of each worker."""
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in workers_of(self.process.pid))
        return [number_after("VmRSS", each) / 1024 for each in statuses]


def number_after(name: str, text: str) -> float:
    """The number after `name` and a colon, at the beginning of a line."""
    found = re.search(rf"^{name}:\s+([\d.]+)", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def workers_of(pid: int) -> list[str]:
    """The ids of the workers of the service whose parent process is `pid`."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()
    return [each for each in found if Path(f"/proc/{each}/comm").read_text().strip() != PROCESS_NAME]


def of_workers(pid: int) -> float:
    """The processor time that the workers of the service whose parent process is `pid` have used so far."""
    return sum(map(processor_seconds, workers_of(pid)))


def processor_seconds(pid: int | str) -> float:
    """The processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def service(core: str, workers: int = 1, program: Sequence[str] = (str(ROOT / "app.py"),)) -> Iterator[Running]:
    """The service in a folder of its own, on a seeded vault, with every safety feature on and limits out of reach.

    `program`: what Python runs that serves, where it is not the service alone.
    """
    folder = Path(tempfile.mkdtemp(prefix="kms-benchmark-"))
    environ = {name: value for name, value in os.environ.items() if name not in _CA_VARIABLES}
    environ |= {"KMS_RATE_LIMIT_USE": "1000000000/second", "KMS_RATE_LIMIT_GENERATE": "1000000/second"}
    environ |= {"KMS_RATE_LIMIT_MANAGE": "1000000/second", "KMS_RATE_LIMIT_AUTHENTICATE": "1000000/second"}
    environ |= {"KMS_RATE_LIMIT_PUBLIC": "1000000/second", "PYTHONPATH": str(ROOT)}
    port, process = _free_port(), None
    command = ["taskset", "-c", core, sys.executable, *program, "--port", str(port)]
    command += ["--workers", str(workers), "--bootstrap-file", "admin.json"]
    try:
        for attempt in ("first", "second"):  # the second start is on an existing vault
            began = time.monotonic()
            with (folder / f"log-{attempt}").open("wb") as log:
                process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
            while b"listening on" not in (folder / f"log-{attempt}").read_bytes():
                if process.poll() is not None:
                    raise RuntimeError((folder / f"log-{attempt}").read_text())
                time.sleep(0.01)
            seconds = time.monotonic() - began
            if attempt == "first":
                process.terminate()
                process.wait()
                seeded = seed(folder)
        assert process is not None
        yield Running(f"https://localhost:{port}", folder, _login(folder, port), process, seconds, seeded)
    finally:
        if process is not None:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def yardsticks(core: str, pair: Path) -> Iterator[str]:
    """The URL of the yardsticks, serving with the certificate of the service in folder `pair`."""
    port = _free_port()
    command = ["taskset", "-c", core, sys.executable, "-m", "benchmarks.yardsticks", str(port)]
    process = subprocess.Popen([*command, str(pair / "server.crt"), str(pair / "server.key")], cwd=ROOT)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            if time.monotonic() > deadline:
                raise RuntimeError("the yardsticks do not start")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait()


def openssl_speed(core: str, algorithm: str) -> float:
    """Signatures a second by `openssl speed` on that core."""
    command = ["taskset", "-c", core, "openssl", "speed", "-seconds", "1", algorithm]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1].split()[-2])


def primitive(core: str, name: str) -> float:
    """How often a second the bare primitive of an operation runs on that core."""
    command = ["taskset", "-c", core, sys.executable, "-m", "benchmarks.primitives", name]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def _latency(text: str, percentile: str) -> float:
    found = re.search(rf"{percentile}\s+([\d.]+)(us|ms|s)", text)
    assert found is not None
    return float(found[1]) * _MILLISECONDS[found[2]]


def _login(folder: Path, port: int) -> str:
    admin = json.loads((folder / "admin.json").read_text())
    code = pyotp.TOTP(admin["totp_secret"]).now()
    basic = base64.b64encode(f"{admin['client_id']}:{admin['client_secret']}".encode()).decode()
    command = ["curl", "-sS", "--fail-with-body", "--cacert", str(folder / "server.crt"), "-X", "POST"]
    command += ["-H", f"Authorization: Basic {basic}", "-H", f"X-TOTP: {code}"]
    done = subprocess.run([*command, f"https://localhost:{port}/auth/token"], capture_output=True, check=True)
    return str(json.loads(done.stdout)["access_token"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
