"""What `wrk` cannot do: logins, each with a code of its own, TLS handshakes, and generating beside other load."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlparse

import pyotp

from benchmarks.programs import Measured, Running, Target

_LOGINS_AT_ONCE = 4
_Request = TypeVar("_Request")


def logins(service: Running, clients: Iterator[tuple[str, str, str]], number: int) -> Measured:
    """Log `number` clients in, several at a time: secret, second factor, and a token that is in the database."""
    waiting = [next(clients) for _ in range(number)]
    durations: list[float] = []
    errors = 0

    def work() -> None:
        nonlocal errors
        connection = connect(service.url, service.folder / "server.crt")
        while waiting:
            try:
                client = waiting.pop()
            except IndexError:
                return
            headers = _credentials(client)
            began = time.perf_counter()
            connection.request("POST", "/auth/token", headers=headers)
            answer = connection.getresponse()
            answer.read()
            durations.append(time.perf_counter() - began)
            errors += answer.status != http.HTTPStatus.OK

    threads = [threading.Thread(target=work) for _ in range(_LOGINS_AT_ONCE)]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seconds = time.perf_counter() - began
    return Measured(number / seconds, *percentiles(durations), errors)


def as_fast_as_they_can(
    service: Running,
    each_of: list[Iterator[_Request]],
    send: Callable[[http.client.HTTPConnection, _Request], bool],
    seconds: float,
) -> Measured:
    """What one connection for each iterator of requests reaches; `send` says whether a request was answered well."""
    durations: list[float] = []
    errors = 0
    until = time.perf_counter() + seconds

    def work(mine: Iterator[_Request]) -> None:
        nonlocal errors
        connection = connect(service.url, service.folder / "server.crt")
        for request in mine:
            began = time.perf_counter()
            if began > until:
                return
            errors += not send(connection, request)
            durations.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work, args=(each,)) for each in each_of]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Measured(len(durations) / (time.perf_counter() - began), *percentiles(durations), errors)


def handshakes(url: str, seconds: int, core: str) -> float:
    """Full TLS handshakes a second, one after the other, by `openssl s_time`."""
    address = urlparse(url)
    command = ["taskset", "-c", core, "openssl", "s_time", "-new", "-time", str(seconds)]
    command += ["-connect", f"{address.hostname}:{address.port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"(\d+) connections in (\d+) real seconds", done.stdout)
    assert found is not None
    return int(found[1]) / int(found[2])


def beside_generation(service: Running, tokens: list[str], target: Target, core: str, seconds: int) -> Measured:
    """The load of `target` while other clients, each with one of `tokens`, make RSA-4096 keys all the time."""
    stop = threading.Event()

    def generate(token: str) -> None:
        connection = connect(service.url, service.folder / "server.crt")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while not stop.is_set():
            connection.request("POST", "/api/v1/keys", b'{"type": "rsa-4096"}', headers)
            connection.getresponse().read()

    threads = [threading.Thread(target=generate, args=(token,)) for token in tokens]
    for each in threads:
        each.start()
    try:
        return target.load(seconds, 4, core)
    finally:
        stop.set()
        for each in threads:
            each.join()


def log_in(service: Running, client: tuple[str, str, str]) -> str:
    """A session token of the client."""
    connection = connect(service.url, service.folder / "server.crt")
    connection.request("POST", "/auth/token", headers=_credentials(client))
    return str(json.loads(connection.getresponse().read())["access_token"])


def _credentials(client: tuple[str, str, str]) -> dict[str, str]:
    client_id, secret, totp_secret = client
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"Authorization": f"Basic {basic}", "X-TOTP": pyotp.TOTP(totp_secret).now()}


def connect(url: str, certificate: Path) -> http.client.HTTPSConnection:
    """A connection to the service that is verified by its certificate."""
    context = ssl.create_default_context(cafile=str(certificate))
    address = urlparse(url)
    assert address.hostname is not None
    return http.client.HTTPSConnection(address.hostname, address.port, context=context, timeout=60)


def percentiles(durations: list[float]) -> tuple[float, float]:
    """Median and 99th percentile of so many seconds, in milliseconds."""
    cuts = statistics.quantiles(durations, n=100)
    return cuts[49] * 1000, cuts[98] * 1000
