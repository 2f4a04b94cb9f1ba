"""Fetch the JWK set of an issuer: from hosts that the operator named, over TLS, bounded in time and size.

`http.client` parses the answer; no redirect is followed, and no proxy is taken from the environment. It reads through
a file with one deadline for everything together, because the time-out of a socket begins again with each byte.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from kms.access.jwks import LONGEST
from kms.errors import StartError, Unavailable, ValidationFailed

_RETRY_AFTER = 60
_LONGEST_HEAD = 65_536
_HOST = r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
_NAMED = re.compile(_HOST)
_URL = re.compile(rf"https://{_HOST}(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)", re.ASCII)


@dataclass(frozen=True)
class _Place:
    host: str
    port: int
    target: str

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"


def named_hosts(setting: str) -> frozenset[str]:
    """The hosts in `jwks_hosts`, `HOST` or `HOST:PORT` with commas between, each with its port (443 where none is).

    Raises StartError for everything else, such as a URL or a wildcard.
    """
    hosts = set()
    for named in filter(None, map(str.strip, setting.split(","))):
        parts = _NAMED.fullmatch(named)
        if parts is None or not 0 < int(parts["port"] or 443) < 65536:
            raise StartError(f"jwks_hosts: {named} must be a host name in lower case, or HOST:PORT.")
        hosts.add(f"{parts['host']}:{int(parts['port'] or 443)}")
    return frozenset(hosts)


def require_url(url: str, hosts: frozenset[str]) -> None:
    """Raise ValidationFailed unless `fetch` would ask for `url`. `hosts` are as `named_hosts` gives them."""
    _place(url, hosts)


def fetch(url: str, hosts: frozenset[str], ca: Path | None = None, seconds: float = 5.0) -> bytes:
    """The body at `url`, at most `LONGEST` bytes, which have to be there within `seconds` altogether.

    The host must be one of `hosts`, exactly; what address it has is the operator's affair. Its certificate must come
    from an authority of the system or of the PEM file `ca`. Raises ValidationFailed for another URL, and Unavailable
    for every other answer than 200 with a body as it is; the reason has nothing of the body in it.
    """
    place = _place(url, hosts)
    try:
        return _fetch(place, ca, monotonic() + seconds)
    except ssl.SSLCertVerificationError as error:
        raise _unavailable(place, f"its certificate is not trusted: {error.verify_message}") from None
    except TimeoutError:
        raise _unavailable(place, f"it did not answer within {seconds:g} seconds") from None
    except HTTPException:
        raise _unavailable(place, "it does not speak HTTP/1.1") from None
    except OSError as error:
        raise _unavailable(place, error.strerror or type(error).__name__) from None


def _place(url: str, hosts: frozenset[str]) -> _Place:
    parts = _URL.fullmatch(url) if len(url) <= 2048 else None
    if parts is None:
        raise ValidationFailed(
            "jwks_uri: write https://HOST/PATH or https://HOST:PORT/PATH with the host in lower case, and no user, "
            "fragment or space."
        )
    place = _Place(parts["host"], int(parts["port"] or 443), parts["target"])
    if place.name not in hosts:
        raise ValidationFailed(
            f"jwks_uri: keys are not fetched from {place.name}. An operator can name it in KMS_JWKS_HOSTS, or give "
            "the keys themselves as jwks."
        )
    return place


def _fetch(place: _Place, ca: Path | None, deadline: float) -> bytes:
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    host = place.host.strip("[]")
    request = (
        f"GET {place.target} HTTP/1.1\r\nHost: {place.name.removesuffix(':443')}\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: kms\r\nConnection: close\r\n\r\n"
    )
    with closing(_connect(host, place.port, deadline)) as plain:
        plain.settimeout(_left(deadline))
        with context.wrap_socket(plain, server_hostname=host) as connection:
            connection.settimeout(_left(deadline))
            connection.sendall(request.encode("ascii"))
            with closing(_Answer(connection, deadline).parsed()) as response:
                return _body(place, response)


def _body(place: _Place, response: HTTPResponse) -> bytes:
    response.begin()
    if response.status != 200:
        redirects = ", and redirects are not followed" if 300 <= response.status < 400 else ""
        raise _unavailable(place, f"it answered {response.status}{redirects}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise _unavailable(place, "its answer is compressed, which was not asked for")
    body = response.read(LONGEST + 1)
    if len(body) > LONGEST:
        raise _unavailable(place, f"its answer has more than {LONGEST} bytes")
    return body


class _Answer(io.RawIOBase):
    """What a connection brings until the deadline, and no more of it than a set can have."""

    def __init__(self, connection: ssl.SSLSocket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline
        self._bytes_left = LONGEST + _LONGEST_HEAD

    def parsed(self) -> HTTPResponse:
        return HTTPResponse(self, method="GET")  # type: ignore[arg-type]  # of a socket it takes `makefile` alone

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        received = self._connection.recv_into(buffer)
        self._bytes_left -= received
        if self._bytes_left < 0:
            raise OSError(None, "its answer is too long")
        return received


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connection to the first of the host's addresses that takes one. Raises OSError."""
    addresses = _addresses(host, port, deadline)
    fault: OSError = OSError(None, "it has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        candidate = socket.socket(family, kind, protocol)
        try:
            candidate.settimeout(_left(deadline) / (len(addresses) - tried))
            candidate.connect(address)
        except OSError as error:
            candidate.close()
            fault = error
        else:
            return candidate
    raise fault


def _addresses(host: str, port: int, deadline: float) -> list[Any]:
    """The addresses of a host. The resolver has time-outs of its own, which are longer: it is left behind."""
    answers: SimpleQueue[list[Any] | OSError] = SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError):
            answers.put(OSError(None, "its name cannot be resolved"))

    Thread(target=resolve, name="jwks-resolver", daemon=True).start()
    try:
        found = answers.get(timeout=_left(deadline))
    except Empty:
        raise TimeoutError from None
    if isinstance(found, OSError):
        raise found
    return found


def _left(deadline: float) -> float:
    """The seconds until the deadline. Raises TimeoutError when it is over."""
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _unavailable(place: _Place, why: str) -> Unavailable:
    return Unavailable(f"The keys of the issuer at {place.name} cannot be fetched: {why}.", retry_after=_RETRY_AFTER)
