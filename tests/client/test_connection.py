"""What the library does when the service is away, busy or gone in the middle; the server here does just that."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from helpers.certificates import write_pair
from kms.client import Client, errors
from kms.client.logins import Proof

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 46\r\nRetry-After: 0\r\n\r\n"
BUSY += b'{"type": "/problems/unavailable", "detail":""}'
LIMITED = BUSY.replace(b"503", b"429").replace(b'/unavailable"', b'/rate-limited"').replace(b"46", b"47")
HANG_UP = b""


class Server:
    """Gives each request the next of some answers; nothing at all hangs up."""

    def __init__(self, folder: Path) -> None:
        write_pair(folder)
        self.ca = folder / "server.crt"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        plain = socket.create_server(("127.0.0.1", 0))
        self.socket = context.wrap_socket(plain, server_side=True)
        self.answers: list[bytes] = []
        self.requests: list[str] = []
        Thread(target=self._serve, daemon=True).start()

    def client(self, *answers: bytes, patience: float = 5) -> Client:
        """A client of it, whose requests will get these answers."""
        self.answers, self.requests = list(answers), []
        return Client(f"https://localhost:{self.socket.getsockname()[1]}", ca=self.ca, token="t", patience=patience)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: ssl.SSLSocket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            while first := lines.readline():
                self.requests.append(first.decode().strip())
                headers = dict(line.decode().lower().strip().split(": ") for line in iter(lines.readline, b"\r\n"))
                lines.read(int(headers.get("content-length", 0)))
                answer = self.answers.pop(0)
                if answer == HANG_UP:
                    return
                connection.sendall(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that kind."""
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    made.socket.close()


def content(answer: dict[str, object]) -> bytes:
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


USED = content({"key_id": "k", "version": 1, "ciphertext": "aGVsbG8="})


@pytest.mark.parametrize("trouble", [BUSY, LIMITED, HANG_UP], ids=["busy", "limited", "hang up"])
def test_a_use_is_repeated(server: Server, trouble: bytes) -> None:
    assert server.client(trouble, trouble, USED).encrypt("k", b"x") == b"hello"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("change", "arguments"),
    [(Client.rotate, ("k",)), (Client.create_key, ("k",)), (Client.revoke, ("k",))],
    ids=["rotate", "create", "revoke"],
)
def test_a_change_is_not_asked_for_twice(
    server: Server, change: Callable[..., object], arguments: tuple[str, ...]
) -> None:
    with pytest.raises(errors.OutcomeUnknown, match="Look whether the change was made"):
        change(server.client(HANG_UP, USED), *arguments)
    assert len(server.requests) == 1
    with pytest.raises(errors.Unavailable):
        change(server.client(BUSY, USED), *arguments)
    assert len(server.requests) == 1


def test_what_was_refused_for_its_rate_is_asked_for_again(server: Server) -> None:
    done = content({"key_id": "k"})
    assert server.client(LIMITED, done).call("rotate_key_version", key_id="k") == {"key_id": "k"}
    assert len(server.requests) == 2


def test_logging_in_is_tried_again_with_a_proof_that_is_new(server: Server) -> None:
    session = content({"access_token": "t", "expires_in": 60})
    proofs: list[str] = []

    class Login:
        def proof(self, url: str) -> Proof:
            proofs.append(url)
            return Proof()

    client = server.client(BUSY, HANG_UP, session, USED)
    again = Client(client.connection.url, ca=server.ca, login=Login(), patience=5)
    assert again.encrypt("k", b"x") == b"hello"
    assert (len(proofs), len(server.requests)) == (3, 4)


def test_patience_ends(server: Server) -> None:
    later = LIMITED.replace(b"Retry-After: 0", b"Retry-After: 9")
    with pytest.raises(errors.RateLimited) as told:
        server.client(later, patience=1).encrypt("k", b"x")
    assert told.value.retry_after == 9
    with pytest.raises(errors.Unavailable):
        server.client(*[BUSY] * 50, patience=0.3).encrypt("k", b"x")
    assert len(server.requests) > 1
    with pytest.raises(errors.Unreachable):
        Client("https://localhost:1", token="t", patience=0.3).encrypt("k", b"x")


def test_an_answer_that_is_not_of_the_service(server: Server) -> None:
    with pytest.raises(errors.Refused, match="502 with something that is not JSON"):
        server.client(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\n<a/>").encrypt("k", b"x")
    with pytest.raises(errors.Refused, match="302"):
        server.client(b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n").key("k")
    assert len(server.requests) == 1
    with pytest.raises(errors.KmsError, match="cannot be read"):
        server.client(content({"nothing": 1})).encrypt("k", b"x")


def test_an_answer_is_not_larger_than_what_is_waited_for(server: Server) -> None:
    """The service, or who is in its place, decides how much it sends; not how much of it is kept."""
    body = b"x" * 200_000
    many = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % body[:4096] * 40 + b"0\r\n\r\n"
    )
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    connection = server.client(large, many, large, many).connection
    assert connection.send("GET", "/x", repeatable=True, most=len(body)) == body
    assert len(connection.send("GET", "/x", repeatable=True)) == 40 * 4096
    for _ in range(2):
        with pytest.raises(errors.KmsError, match="more than 100000 bytes"):
            connection.send("GET", "/x", repeatable=True, most=100_000)
    bomb = gzip.compress(bytes(1 << 20))
    packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    with pytest.raises(errors.KmsError, match="compressed"):
        server.client(packed).connection.send("GET", "/x", repeatable=True)


def test_a_refusal_that_nobody_expects(server: Server) -> None:
    def refused(body: bytes, wait: bytes = b"0", status: bytes = b"404 X") -> bytes:
        head = b"HTTP/1.1 %b\r\nRetry-After: %b\r\nContent-Length: %d\r\n\r\n"
        return head % (status, wait, len(body)) + body

    deep = b'{"detail":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(errors.Refused, match="not JSON"):
        server.client(refused(deep)).key("k")
    with pytest.raises(errors.Refused, match="answered 404"):
        server.client(refused(b'{"detail":{"x":["y"]},"type":[]}')).key("k")
    with pytest.raises(errors.KmsError, match="more than"):
        server.client(refused(b"x" * 2_000_000)).key("k")
    with pytest.raises(errors.Refused) as told:
        server.client(refused(b"{}", b"9" * 5000, b"503 X"), patience=0).key("k")
    assert told.value.retry_after is None
    nested = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000
    with pytest.raises(errors.KmsError, match="cannot be read"):
        server.client(nested).call("get_key", key_id="k")
