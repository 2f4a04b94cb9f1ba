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

import pytest

from helpers.bystander import Bystander
from helpers.running import Running, Start, wait_until

pytestmark = pytest.mark.slow
_LEFT_DESCRIPTORS = 12  # connections of the database that were opened meanwhile, those of whoever looks
_LEFT_BYTES = 48 << 20
_THREADS = 32


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    """A service whose processes were given 1,024 descriptors, as most systems do, and may have more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        service = start("--workers", "2", "--rate-limit", "off")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else soft, hard))
    assert service.curl("POST", "/generate_symmetric_key", {}).status == 200
    return service


def held(service: Running) -> tuple[float, float]:
    """Open descriptors and resident bytes of the workers together."""
    text = service.curl("GET", "/metrics").text
    found = [re.search(rf"^kms_{name} ([0-9.e+]+)$", text, re.MULTILINE) for name in
             ("open_descriptors", "resident_memory_bytes")]  # fmt: skip
    assert found[0] and found[1]
    return float(found[0][1]), float(found[1][1])


class Attack:
    """Connections to one service, all of them closed in the end."""

    def __init__(self, service: Running) -> None:
        self.service = service
        self.open: list[socket.socket] = []
        self.context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))

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
    """An attack beside which somebody behaves, and after which the service has what it had before."""
    descriptors, resident = held(service)
    made = Attack(service)
    with Bystander(service) as bystander:
        wait_until(lambda: len(bystander.seconds) > 2)
        yield made
        made.close()
    print(bystander.shown())
    assert bystander.failures == []
    assert len(bystander.seconds) > 2
    wait_until(lambda: held(service)[0] <= descriptors + _LEFT_DESCRIPTORS, lambda: (descriptors, held(service)), 1)
    assert held(service)[1] <= resident + _LEFT_BYTES


def _head(service: Running, *lines: str) -> bytes:
    first = ("POST /api/v1/keys/admin_symmetric/encrypt HTTP/1.1", "Host: x", "Content-Type: application/json")
    return "".join(f"{line}\r\n" for line in (*first, f"Authorization: Bearer {service.token}", *lines)).encode()


_TO_LOG_IN = b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_AWS = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: TrentService.Encrypt\r\n"


def test_5000_idle_connections(attack: Attack) -> None:
    attack.many(1500, attack.secured)
    attack.many(3500, attack.plain)
    time.sleep(3)


def test_10000_connections_opened_and_closed(attack: Attack) -> None:
    attack.many(500, lambda: attack.secured(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").close())
    attack.many(500, lambda: attack.secured().close())
    attack.many(9000, lambda: attack.plain().close())


def test_slow_headers(attack: Attack) -> None:
    attack.many(600, lambda: attack.secured(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "))
    for _ in range(12):  # a byte a second does not keep a connection: the headers have ten seconds in all
        for each in attack.open:
            with contextlib.suppress(OSError):
                each.send(b"a")
        time.sleep(1)
    assert sum(_is_over(each) for each in attack.open) > 550


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
    attack.many(100, lambda: attack.secured(body))
    attack.many(100, lambda: attack.secured(nobodys))
    time.sleep(5)


def test_a_flood_of_headers(service: Running, attack: Attack) -> None:
    flood = _head(service, *(f"X-{number}: {'y' * 100}" for number in range(4000)))
    attack.many(200, lambda: attack.secured(flood))
    endless = _head(service) + b"X: " + b"y" * (2 << 20)
    attack.many(50, lambda: attack.secured(endless))


@pytest.mark.parametrize("deep", [b"[" * 1_400_000, b'{"a":' * 280_000, b'{"items":' + b"[" * 1_400_000])
def test_deep_json(service: Running, attack: Attack, deep: bytes) -> None:
    request = _head(service, f"Content-Length: {len(deep)}", "") + deep
    aws = _AWS + b"Content-Length: %d\r\n\r\n" % len(deep) + deep
    token = _TO_LOG_IN + b"Content-Length: 16000\r\n\r\n" + deep[:16000]

    def ask(content: bytes) -> None:
        connection = attack.secured(content)
        with contextlib.suppress(OSError):
            assert re.match(rb"HTTP/1.1 (4\d\d|503) ", connection.recv(4096))

    attack.many(20, lambda: ask(request))
    attack.many(20, lambda: ask(aws))
    attack.many(20, lambda: ask(token))
