"""One request has one answer, and no body is ever taken for a request: ambiguous framing, sent to the real server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from helpers.running import Running, Start, process_of, wait_until
from helpers.support import free_port

ROOT = Path(__file__).parents[2]
_SYMMETRIC, _ECC = "admin_symmetric", "admin_ecc"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(start: Start) -> Running:
    return start("--workers", "1", "--rate-limit", "off")


@dataclass
class Sent:
    """What came back for bytes that were sent at once, with a last request behind them that closes the connection."""

    statuses: list[int]
    made: list[str]
    reached_the_last: bool


def sent(service: Running, content: bytes) -> Sent:
    """Send `content` and then a request of its own, and read until the server closes the connection."""
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = b""
    with (
        socket.create_connection(("localhost", service.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        try:
            connection.sendall(content + last)
            while part := connection.recv(65536):
                answer += part
        except OSError:  # closed with bytes that nobody read
            pass
    statuses = [int(each) for each in re.findall(rb"HTTP/1\.[01] (\d+) ", answer)]
    made = [each.decode() for each in re.findall(rb'"key_id":"(\w+)"', answer)]
    return Sent([each for each in statuses if each != 100], made, answer.endswith(b"\r\n\r\nok\n"))


def request(
    service: Running, head: bytes = b"", body: bytes = b"", path: bytes = b"/generate_symmetric_key"
) -> bytes:
    """A request that makes a symmetric key, with these headers and that body."""
    first = b"POST %b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n" % (path, service.token.encode())
    return first + b"Content-Type: application/json\r\n" + head + b"\r\n" + body


def hidden(service: Running) -> bytes:
    """A request that makes an ECC key, to be hidden in the body of another."""
    return request(service, b"Content-Length: 2\r\n", b"{}", b"/generate_ecc_key")


def filled(service: Running, body: bytes) -> bytes:
    """`body` with the hidden request, and its length, in their places."""
    inside = hidden(service)
    return body.replace(HIDDEN, inside).replace(LENGTH, b"%x" % len(inside))


CHUNKED = b"Transfer-Encoding: chunked\r\n"
TWO = b"Content-Length: 2\r\n"
HIDDEN = b"<hidden>"  # where the hidden request stands
LENGTH = b"<length>"  # its length


AMBIGUOUS = [
    (b"Content-Length: 4\r\n" + CHUNKED, LENGTH + b"\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
    (CHUNKED + b"Content-Length: 4\r\n", LENGTH + b"\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
    (CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n" + HIDDEN),
    (b"Transfer-Encoding: identity\r\n" + TWO, b"{}" + HIDDEN),
    (b"Transfer-Encoding: xchunked\r\n" + TWO, b"{}" + HIDDEN),
    (b"Transfer-Encoding: \x0bchunked\r\n" + TWO, b"{}" + HIDDEN),
    (b"Transfer-Encoding : chunked\r\n" + TWO, b"{}" + HIDDEN),
    (b"Transfer-Encoding: chunked, gzip\r\n", b"2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    (b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    (TWO + b"Content-Length: 3\r\n", b"{}" + HIDDEN),
    (b"Content-Length: 2, 2\r\n", b"{}" + HIDDEN),
    (b"Content-Length: +2\r\n", b"{}" + HIDDEN),
    (b"Content-Length: 0x2\r\n", b"{}" + HIDDEN),
    (b"Content-Length: -0\r\n", HIDDEN),
    (b"Content-Length: \r\n", HIDDEN),
    (b"Content-Length: 2 2\r\n", b"{}" + HIDDEN),
    (b"Content-Length : 2\r\n", b"{}" + HIDDEN),
    (b"Content-Length:\r\n 2\r\n", b"{}" + HIDDEN),
    (b"X-A: b\r\n c\r\n" + TWO, b"{}" + HIDDEN),
    (b"X-A: b\rContent-Length: 2\r\n" + TWO, b"{}" + HIDDEN),
    (b"X-A: b\x00c\r\n" + TWO, b"{}" + HIDDEN),
    (b"X-\x00A: b\r\n" + TWO, b"{}" + HIDDEN),
    (CHUNKED, b"2\n{}\n0\n\n" + HIDDEN),
    (CHUNKED, b"2;a\n{}\r\n0\r\n\r\n" + HIDDEN),
    (CHUNKED, b"fffffffffffffffff2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    (CHUNKED, b"0x2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    (CHUNKED, b"-2\r\n{}\r\n0\r\n\r\n" + HIDDEN),
    (CHUNKED, b"2;" + b"a" * 40_000 + b"\r\n{}\r\n0\r\n\r\n" + HIDDEN),
]
"""Headers and body of requests in which two readers may see different ends."""


@pytest.mark.parametrize(("head", "body"), AMBIGUOUS)
def test_what_is_ambiguous_or_malformed_is_refused_and_ends_the_connection(
    service: Running, head: bytes, body: bytes
) -> None:
    came = sent(service, request(service, head, filled(service, body)))
    assert (len(came.statuses), came.made, came.reached_the_last) == (1, [], False)
    assert 400 <= came.statuses[0] < 500


@pytest.mark.parametrize("garbage", [b"XX0\r\n\r\n", b"\r\n-1\r\n", b"\r\n0x1\r\n", b"\r\nfffffffffffffffff\r\n"])
@pytest.mark.parametrize("begun", [b"{}", b'{"client_id": "admin"}'])
def test_a_body_with_malformed_chunks_at_its_end_hides_nothing(
    service: Running, begun: bytes, garbage: bytes
) -> None:
    """Granian hands the chunks before on as the body. A JSON object that was whole in them is taken."""
    body = b"%x\r\n%b%b" % (len(begun), begun, garbage)
    came = sent(service, request(service, CHUNKED, body + hidden(service)))
    assert len(came.statuses) == 1
    assert _ECC not in came.made
    assert not came.reached_the_last


def test_both_lengths_the_body_is_the_chunks_and_the_connection_ends(service: Running) -> None:
    """RFC 9112, section 6.3, item 3."""
    inside = hidden(service)
    head = b"Content-Length: %d\r\n" % (len(inside) + 12) + CHUNKED
    came = sent(service, request(service, head, b"2\r\n{}\r\n0\r\n\r\n" + inside))
    assert (came.statuses, came.made, came.reached_the_last) == ([200], [_SYMMETRIC], False)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (TWO + TWO, b"{}"),  # RFC 9110, section 8.6, allows to take the same length twice
        (CHUNKED, b"2;a=b\r\n{}\r\n0\r\n\r\n"),
        (CHUNKED, b"2 \r\n{}\r\n0\r\n\r\n"),
        (CHUNKED, b"1\r\n{\r\n1\r\n}\r\n0\r\nContent-Length: 50\r\nX: y\r\n\r\n"),
        (b"Expect: 100-continue\r\n" + TWO, b"{}"),
        (b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n" + TWO, b"{}"),
        (b"Content_Length: 400\r\n" + TWO, b"{}"),
    ],
)
def test_what_can_be_read_in_one_way_has_one_answer(service: Running, head: bytes, body: bytes) -> None:
    came = sent(service, request(service, head, body))
    assert (came.statuses, came.made, came.reached_the_last) == ([200, 200], [_SYMMETRIC], True)


def test_requests_that_come_at_once_are_answered_in_order(service: Running) -> None:
    came = sent(service, (request(service, TWO, b"{}") + hidden(service)) * 5)
    assert (came.statuses, came.made, came.reached_the_last) == ([200] * 11, [_SYMMETRIC, _ECC] * 5, True)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\n",
        b"HEAD /livez HTTP/1.1\r\nHost: x\r\n",
        b"POST /nothing HTTP/1.1\r\nHost: x\r\n",
        b"POST /generate_ecc_key HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer none\r\n",
        b"POST /v1/transit/random HTTP/1.1\r\nHost: x\r\nX-Vault-Token: none\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: TrentService.Encrypt\r\n",
        b"GET /console HTTP/1.1\r\nHost: x\r\n",
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_that_nobody_reads_is_no_request(service: Running, line: bytes, in_chunks: bool) -> None:
    inside = hidden(service)
    framed = CHUNKED + b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(inside), inside)
    whole = b"Content-Length: %d\r\n\r\n%b" % (len(inside), inside)
    came = sent(service, line + (framed if in_chunks else whole))
    assert came.made == []
    assert came.statuses[1:] in ([], [200])  # the last request, where the connection goes on


@pytest.mark.parametrize(
    "target", [b"https://elsewhere/generate_symmetric_key", b"https://u:p@elsewhere:1/generate_symmetric_key?x"]
)
def test_an_absolute_target_is_its_path(service: Running, target: bytes) -> None:
    """RFC 9112, section 3.2.2: a server must take it. No name of a host means anything to this one."""
    assert sent(service, request(service, TWO, b"{}", target)).made == [_SYMMETRIC]


@pytest.mark.parametrize("target", [b"/generate_symmetric_key x", b"/generate_symmetric_key\x00", b"\x7f", b""])
def test_a_malformed_target_is_refused(service: Running, target: bytes) -> None:
    came = sent(service, request(service, TWO, b"{}" + hidden(service), target))
    assert (came.statuses, came.made) == ([400], [])


@pytest.mark.parametrize("headers", [200, 5000])
def test_a_flood_of_headers_is_refused(service: Running, headers: int) -> None:
    flood = b"".join(b"X-%d: y\r\n" % number for number in range(headers))
    came = sent(service, request(service, flood + TWO, b"{}"))
    assert came.made == []
    assert came.statuses in ([431], [])  # nothing, where the connection was reset behind the answer


@pytest.fixture
def proxied(service: Running) -> Iterator[Running]:
    """The same service behind nginx with the configuration of deploy/."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed; .ci/install-services installs it")
    folder, front = service.folder, free_port()
    places = {"proxy.crt": "server.crt", "proxy.key": "server.key", "node.crt": "server.crt"}
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for name, own in places.items():
        text = text.replace(f"/run/secrets/{name}", str(folder / own))
    text = re.sub(r"^    server [0-9.]+:8443 .*$", "", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"(?<=server )[0-9.]+:8443", f"127.0.0.1:{service.port}", text)
    text = text.replace("listen 8443", f"listen 127.0.0.1:{front}").replace(
        "proxy_ssl_name kms", "proxy_ssl_name localhost"
    )
    temporary = " ".join(
        f"{each}_temp_path {folder}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    own = "user root;" if os.getuid() == 0 else ""
    main = f"{own} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{main} http {{ access_log off; {temporary}\n{text} }}\n")
    log = folder / "nginx.log"
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    proxy = process_of(command, folder, log, service.environ)

    def answers() -> bool:
        assert proxy.poll() is None, log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", front)) == 0

    wait_until(answers)
    yield replace(service, port=front)
    proxy.terminate()
    proxy.wait(timeout=30)


def test_nothing_is_smuggled_through_nginx(proxied: Running) -> None:
    """What nginx lets pass it frames anew, with a Content-Length; the service sees nothing ambiguous.

    It takes more than the service does for chunks: a bare LF, long extensions. What follows the last chunk is then a
    request for both of them.
    """
    with ThreadPoolExecutor(8) as pool:
        requests = [request(proxied, head, filled(proxied, body)) for head, body in AMBIGUOUS]
        came = list(pool.map(lambda content: sent(proxied, content), requests))
    for (head, body), each in zip(AMBIGUOUS, came, strict=True):
        if head == CHUNKED and body.startswith((b"2\n", b"2;")):
            assert each in (Sent([200] * 3, [_SYMMETRIC, _ECC], True), Sent([400], [], False)), (head, body)
        else:
            assert _ECC not in each.made, (head, body)
            assert len(each.statuses) <= 1 or each.reached_the_last, (head, body)
    assert sent(proxied, request(proxied, TWO, b"{}") + hidden(proxied)).made == [_SYMMETRIC, _ECC]


def test_http_2_is_not_spoken(service: Running) -> None:
    """So streams that are reset at once and endless CONTINUATION frames do not exist here."""
    context = ssl.create_default_context(cafile=str(service.folder / "server.crt"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("localhost", service.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() != "h2"
        frames = (
            b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08" * 1000
        )
        try:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames)
            assert not connection.recv(4096).startswith(b"\x00")
        except OSError:
            pass
    assert service.curl("GET", "/livez").status == 200
