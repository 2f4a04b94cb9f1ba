"""Connections without number, and bytes without end: who behaves is served meanwhile, and nothing is left behind."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.bystander import Bystander
from helpers.running import Running, Start, wait_until

pytestmark = pytest.mark.slow
_WORKERS = 2
_LEFT_DESCRIPTORS = _WORKERS * 20 * 2  # a worker may keep 20 connections of the database, each of two files
_AT_REST_BYTES = 8 << 20  # less than a sixth of what a round of deep JSON sends
_MOST_ROUNDS = 12
_THREADS = 32


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """A service whose processes were given 1,024 descriptors, as most systems do, and may have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        service = start("--workers", str(_WORKERS), "--rate-limit", "off")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else soft, hard))
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
    # A worker that has not looked at itself yet is not counted, so that one looks like half of what there will be.
    wait_until(lambda: metric(service, "leases_held") == _WORKERS, every=0.2)
    return service


def metric(service: Running, name: str) -> float:
    """What the workers say together."""
    found = re.search(rf"^kms_{name} ([0-9.e+]+)$", service.curl("GET", "/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def resident_bytes(service: Running) -> int:
    """Of all workers, as they are at this moment."""
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in service.worker_pids()]
    assert len(pages) == _WORKERS
    return sum(pages) * resource.getpagesize()


class Attack:
    """Connections to one service, all of them closed in the end."""

    def __init__(self, service: Running) -> None:
        self.service = service
        self.open: list[socket.socket] = []
        self.context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
        self._descriptors = metric(service, "open_descriptors")

    def repeat(self, attack: Callable[[], object]) -> None:
        """Do it at least twice, until it leaves nothing behind that it has not left before.

        Each time the descriptors are as few afterwards as they were. The memory grows at first: a thread that reads
        something large keeps room for the next. What leaks grows with every round.
        """
        left: list[int] = []
        while len(left) < _MOST_ROUNDS:
            attack()
            self.close()
            self._wait_until_it_is_over()
            left.append(resident_bytes(self.service))
            if len(left) > 1 and left[-1] <= max(left[:-1]) + _AT_REST_BYTES:
                print("resident MiB after each round:", *(each >> 20 for each in left))
                return
        raise AssertionError(f"each round leaves more resident bytes: {left}")

    def _wait_until_it_is_over(self) -> None:
        most = self._descriptors + _LEFT_DESCRIPTORS
        wait_until(
            lambda: metric(self.service, "open_descriptors") <= most,
            lambda: (self._descriptors, metric(self.service, "open_descriptors")),
            1,
        )

    def plain(self) -> socket.socket:
        """A connection on which nothing was sent."""
        made = socket.create_connection(("127.0.0.1", self.service.port), timeout=60)
        self.open.append(made)
        return made

    def secured(self, content: bytes = b"") -> socket.socket:
        """A connection after its handshake, on which `content` was sent."""
        made = self.context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.service.port), timeout=60), server_hostname="localhost"
        )
        self.open.append(made)
        if content:
            with contextlib.suppress(OSError):
                made.sendall(content)
        return made

    def many(self, number: int, open_one: Callable[[], object]) -> None:
        """Open so many, several at a time."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(open_one) for _ in range(number)]:
                done.result()

    def close(self) -> None:
        """Close them all."""
        for each in self.open:
            each.close()
        self.open.clear()


@pytest.fixture
def attack(service: Running) -> Iterator[Attack]:
    """An attack beside which somebody behaves."""
    made = Attack(service)
    with Bystander(service) as bystander:
        wait_until(lambda: len(bystander.seconds) > 2)
        yield made
        made.close()
    print(bystander.shown())
    assert bystander.failures == []
    assert len(bystander.seconds) > 2


def _head(service: Running, *lines: str) -> bytes:
    first = ("POST /api/v1/keys/admin_symmetric/encrypt HTTP/1.1", "Host: x", "Content-Type: application/json")
    return "".join(f"{line}\r\n" for line in (*first, f"Authorization: Bearer {service.token}", *lines)).encode()


_TO_LOG_IN = b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_AWS = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: TrentService.Encrypt\r\n"


def test_5000_idle_connections(attack: Attack) -> None:
    def idle() -> None:
        attack.many(1500, attack.secured)
        attack.many(3500, attack.plain)
        time.sleep(3)

    attack.repeat(idle)


def test_10000_connections_opened_and_closed(attack: Attack) -> None:
    def open_and_close() -> None:
        attack.many(500, lambda: attack.secured(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").close())
        attack.many(500, lambda: attack.secured().close())
        attack.many(9000, lambda: attack.plain().close())

    attack.repeat(open_and_close)


def test_slow_headers(attack: Attack) -> None:
    def send_slowly() -> None:
        attack.many(600, lambda: attack.secured(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "))
        for _ in range(12):  # a byte a second does not keep a connection: the headers have ten seconds in all
            for each in attack.open:
                with contextlib.suppress(OSError):
                    each.send(b"a")
            time.sleep(1)
        assert sum(_is_over(each) for each in attack.open) > 550

    attack.repeat(send_slowly)


def _is_over(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return connection.recv(1024) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_slow_bodies_of_somebody_else_and_of_nobody(service: Running, attack: Attack) -> None:
    other = service.user("slow-one")
    body = _head(service, "Content-Length: 1000", "").replace(service.token.encode(), other.encode()) + b"{"
    nobodys = _TO_LOG_IN + b"Content-Length: 1000\r\n\r\n{"

    def hold() -> None:
        attack.many(100, lambda: attack.secured(body))
        attack.many(100, lambda: attack.secured(nobodys))
        time.sleep(5)

    attack.repeat(hold)


def test_a_flood_of_headers(service: Running, attack: Attack) -> None:
    flood = _head(service, *(f"X-{number}: {'y' * 100}" for number in range(4000)))
    endless = _head(service) + b"X: " + b"y" * (2 << 20)

    def send() -> None:
        attack.many(200, lambda: attack.secured(flood))
        attack.many(50, lambda: attack.secured(endless))

    attack.repeat(send)


@pytest.mark.parametrize("deep", [b"[" * 1_400_000, b'{"a":' * 280_000, b'{"items":' + b"[" * 1_400_000])
def test_deep_json(service: Running, attack: Attack, deep: bytes) -> None:
    request = _head(service, f"Content-Length: {len(deep)}", "") + deep
    aws = _AWS + b"Content-Length: %d\r\n\r\n" % len(deep) + deep
    token = _TO_LOG_IN + b"Content-Length: 16000\r\n\r\n" + deep[:16000]

    def ask(content: bytes) -> None:
        connection = attack.secured(content)
        with contextlib.suppress(OSError):
            assert re.match(rb"HTTP/1.1 (4\d\d|503) ", connection.recv(4096))

    def send() -> None:
        attack.many(20, lambda: ask(request))
        attack.many(20, lambda: ask(aws))
        attack.many(20, lambda: ask(token))

    attack.repeat(send)
