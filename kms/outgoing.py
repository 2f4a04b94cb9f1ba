"""HTTPS requests to hosts that an operator named, and to no others; bounded in time and size.

`http.client` parses the answer; no redirect is followed, and no proxy is taken from the environment. It reads through
a file with one deadline for everything together, because the time-out of a socket begins again with each byte.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, TypeVar

from kms.errors import StartError, ValidationFailed

T = TypeVar("T")
Address = IPv4Address | IPv6Address

_LONGEST_HEAD = 65_536
_LONGEST_URL = 2048
_CONTEXT_SECONDS = 300  # after that the system's authorities are read again
_HOST = r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
_NAMED = re.compile(_HOST)
_URL = re.compile(rf"https://{_HOST}(?P<target>/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)", re.ASCII)


class Unreachable(Exception):
    """What was asked for did not come; `reason` says why and has nothing of an answer in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Untrusted(Unreachable):
    """What answers is not who it should be, or nobody is trusted: trying again does not help."""


@dataclass(frozen=True)
class Place:
    """Where a request goes: a host, a port, and the path with its query."""

    host: str
    port: int
    target: str

    @property
    def name(self) -> str:
        """The host with its port."""
        return f"{self.host}:{self.port}"


def named_hosts(setting: str, name: str) -> frozenset[str]:
    """The hosts in a setting, `HOST` or `HOST:PORT` with commas between, each with its port (443 where none is).

    `name` is that of the setting. Raises StartError for everything else, such as a URL or a wildcard.
    """
    hosts = set()
    for named in filter(None, map(str.strip, setting.split(","))):
        parts = _NAMED.fullmatch(named)
        if parts is None or not 0 < int(parts["port"] or 443) < 65536:
            raise StartError(f"{name}: {named} must be a host name in lower case, or HOST:PORT.")
        hosts.add(f"{parts['host']}:{int(parts['port'] or 443)}")
    return frozenset(hosts)


def place_of(url: str, hosts: frozenset[str], member: str, not_named: str) -> Place:
    """The place that `url` names, if it is at one of `hosts`, which are as `named_hosts` gives them.

    `member` is where the URL was given. Raises ValidationFailed; for another host with `not_named`, in which
    `{place}` stands for that.
    """
    place = any_place(url, member)
    if place.name not in hosts:
        raise ValidationFailed(f"{member}: {not_named.format(place=place.name)}")
    return place


def any_place(url: str, member: str) -> Place:
    """The place that `url` names, which an operator gave. `member` is where. Raises ValidationFailed."""
    parts = _URL.fullmatch(url) if len(url) <= _LONGEST_URL else None
    if parts is None:
        raise ValidationFailed(
            f"{member}: write https://HOST/PATH or https://HOST:PORT/PATH with the host in lower case, and no user, "
            "fragment or space."
        )
    return Place(parts["host"], int(parts["port"] or 443), parts["target"])


def exchange(
    place: Place,
    request: bytes,
    read: Callable[[HTTPResponse], T],
    *,
    seconds: float,
    most: int,
    ca: Path | None = None,
    ca_setting: str = "",
    admits: Callable[[Address], bool] = lambda _: True,
) -> T:
    """What `read` makes of the answer to `request` (its head and body as they are sent), begun and not yet read.

    Everything together takes at most `seconds`, and of the body come at most `most` bytes. Only addresses that it
    `admits` are connected to: it is asked about the very address, after the name was resolved. The certificate must
    come from an authority of the system or of the PEM file `ca`, which `ca_setting` names. Raises Unreachable.
    """
    deadline = monotonic() + seconds
    try:
        context = tls_context(ca, ca_setting)
        host = place.host.strip("[]")
        with closing(_connect(host, place.port, deadline, admits)) as plain:
            plain.settimeout(_left(deadline))
            with context.wrap_socket(plain, server_hostname=host) as connection:
                connection.settimeout(_left(deadline))
                connection.sendall(request)
                with closing(_Answer(connection, deadline, most).parsed()) as response:
                    response.begin()
                    return read(response)
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(f"its certificate is not trusted: {error.verify_message}") from None
    except TimeoutError:
        raise Unreachable(f"it did not answer within {seconds:g} seconds") from None
    except (HTTPException, ValueError):
        raise Unreachable("it does not speak HTTP/1.1") from None
    except OSError as error:
        raise Unreachable(error.strerror or type(error).__name__) from None


def redirects(status: int) -> str:
    """What to add where an answer of that status is refused."""
    return ", and redirects are not followed" if 300 <= status < 400 else ""


def tls_context(ca: Path | None, setting: str) -> ssl.SSLContext:
    """What certificates are verified by: the system's authorities and those in the PEM file `ca`.

    Reading them takes longer than a request, so they serve for a while. Raises Unreachable, naming the `setting`,
    where the file cannot be read.
    """
    try:
        status = ca.stat() if ca is not None else None
        version = (status.st_ino, status.st_mtime_ns, status.st_size) if status is not None else None
        return _context_made(ca, version, int(monotonic() / _CONTEXT_SECONDS))
    except OSError:
        raise Untrusted(f"the file that {setting} names has no certificates that can be read") from None


@lru_cache(maxsize=4)
def _context_made(ca: Path | None, _version: tuple[int, int, int] | None, _period: int) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context


class _Answer(io.RawIOBase):
    """What a connection brings until the deadline, and no more of it than a body may have."""

    def __init__(self, connection: ssl.SSLSocket, deadline: float, most: int) -> None:
        self._connection, self._deadline = connection, deadline
        self._bytes_left = most + _LONGEST_HEAD

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


def _connect(host: str, port: int, deadline: float, admits: Callable[[Address], bool]) -> socket.socket:
    """A connection to the first of the host's addresses that takes one. Raises OSError."""
    addresses = _addresses(host, port, deadline)
    fault: OSError = OSError(None, "it has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        if not admits(_address(address[0])):
            fault = OSError(None, f"its name leads to {address[0]}, which is no address that it may have")
            continue
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


def _address(text: str) -> Address:
    """An address as the resolver gives it; one of IPv4 also where it is written in IPv6."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _addresses(host: str, port: int, deadline: float) -> list[Any]:
    """The addresses of a host. The resolver has time-outs of its own, which are longer: it is left behind."""
    answers: SimpleQueue[list[Any] | OSError] = SimpleQueue()

    def resolve() -> None:
        try:
            answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError):
            answers.put(OSError(None, "its name cannot be resolved"))

    Thread(target=resolve, name="resolver", daemon=True).start()
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
