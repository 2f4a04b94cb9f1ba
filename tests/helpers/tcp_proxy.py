"""A TCP proxy on loopback between a node and its database, which can be cut, hang, and be slow."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

_CHUNK = 65536
_TICK_SECONDS = 0.05


@dataclass
class TcpProxy:
    """Passes bytes on to `target` (host and port) from a port of its own, from `start` to `stop`.

    While it `hangs` it takes connections and bytes and passes nothing on, as a frozen server does whose kernel still
    acknowledges. `delay_seconds` is added to each piece on its way.
    """

    target: tuple[str, int]
    hangs: bool = False
    delay_seconds: float = 0.0
    _refuses: bool = False
    _frozen: set[tuple[socket.socket, socket.socket]] = field(default_factory=set)
    _pairs: set[tuple[socket.socket, socket.socket]] = field(default_factory=set)
    _stopping: bool = False

    def start(self) -> TcpProxy:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TICK_SECONDS)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def cut(self, *, refuse: bool = False) -> None:
        """End every connection at once; also those that are made from now on, if it is to `refuse` them."""
        self._refuses = refuse
        for pair in list(self._pairs):
            self._close(pair)

    def freeze(self) -> int:
        """Pass nothing on any more through the connections that there are; returns how many. Later ones work."""
        self._frozen |= self._pairs
        return len(self._frozen)

    def heal(self) -> None:
        """Pass everything on again, also what hung."""
        self._refuses, self.hangs, self.delay_seconds = False, False, 0.0

    def stop(self) -> None:
        """End."""
        self._stopping = True
        self._thread.join(timeout=5)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._refuses:
                near.close()
                continue
            try:
                far = socket.create_connection(self.target, timeout=5)
            except OSError:
                near.close()
                continue
            pair = (near, far)
            for each in pair:
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs.add(pair)
            threading.Thread(target=self._carry, args=(pair,), daemon=True).start()

    def _carry(self, pair: tuple[socket.socket, socket.socket]) -> None:
        near, far = pair
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while not self._stopping:
                for each, _ in ready.select(_TICK_SECONDS):
                    piece = each.fileobj.recv(_CHUNK)  # type: ignore[union-attr]  # it is a socket
                    while (self.hangs or pair in self._frozen) and not self._stopping:
                        time.sleep(_TICK_SECONDS)
                    if not piece:
                        return self._close(pair)
                    if self.delay_seconds:
                        time.sleep(self.delay_seconds)
                    each.data.sendall(piece)
        return self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for each in pair:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
