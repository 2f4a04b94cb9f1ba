"""The other end of sd_notify(3): a datagram socket on which a service says how far it is."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self

_CREDENTIALS = struct.Struct("3i")


class ListeningManager:
    """Listens at `address`, a path or `@` and an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def told(self) -> tuple[dict[str, str], int]:
        """The next message, and the process that sent it. Waits half a minute at most."""
        message, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        ((_, _, credentials),) = ancillary
        assignments = dict(line.split("=", 1) for line in message.decode().splitlines())
        return assignments, int(_CREDENTIALS.unpack(credentials)[0])

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False
