"""A receiver of webhooks on loopback, served over TLS, that fails as often as it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event, Lock
from typing import Any

from standardwebhooks import Webhook

from helpers.https_server import https_server


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        """What tells it from others, the same for every attempt."""
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        """Which event it is."""
        return str(json.loads(self.body)["type"])

    @property
    def data(self) -> dict[str, Any]:
        """What is told."""
        return dict(json.loads(self.body)["data"])

    def is_signed_with(self, secret: str) -> bool:
        """Whether a signature is right, whatever the time is."""
        at = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), UTC)
        return Webhook(secret).sign(self.id, at, self.body) in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """What came, and how the next requests are answered: `statuses` in their order, then 204.

    While `held` is set nothing is answered. `ca` is the certificate by which it is trusted.
    """

    port: int
    ca: Path
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    held: Event = field(default_factory=Event)
    released: Event = field(default_factory=Event)
    on_request: Callable[[Received], None] = lambda received: None
    _lock: Lock = field(default_factory=Lock)

    @property
    def host(self) -> str:
        """As `KMS_NOTICE_HOSTS` names it."""
        return f"localhost:{self.port}"

    def url(self, path: str = "/hook") -> str:
        """Where it takes webhooks."""
        return f"https://{self.host}{path}"

    def taken(self, received: Received) -> int:
        """Note a request, and give the status of its answer."""
        with self._lock:
            self.received.append(received)
            status = self.statuses.pop(0) if self.statuses else 204
        self.on_request(received)
        if self.held.is_set():
            self.released.wait()
        return status


@contextmanager
def receiving(folder: Path) -> Iterator[Receiver]:
    """A receiver with a certificate of its own in `folder`, or the one that is there."""

    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        request.send_response(made.taken(Received(request.path, headers, body.decode())))
        for name, value in {"Content-Length": "0", **made.headers}.items():
            request.send_header(name, value)
        request.end_headers()

    with https_server(folder, answer) as port:
        made = Receiver(port, folder / "server.crt")
        try:
            yield made
        finally:
            made.released.set()
