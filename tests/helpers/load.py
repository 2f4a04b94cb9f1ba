"""Threads that use a key without a pause, and what each use got."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from dataclasses import dataclass, field

from helpers.running import Running

THREADS = 6


@dataclass
class Use:
    """One operation, as its caller saw it; times are on the monotonic clock."""

    began: float
    ended: float
    status: int


@dataclass
class Load:
    """Threads that encrypt without a pause under one key, with one token."""

    service: Running
    token: str
    key_id: str
    uses: list[Use] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for each in self.threads:
            each.join(timeout=60)

    def _work(self) -> None:
        context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection = http.client.HTTPSConnection("localhost", self.service.port, context=context, timeout=60)
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                connection.request("POST", f"/api/v1/keys/{self.key_id}/encrypt", b'{"plaintext": "AAAA"}', headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):  # after a refusal that came before the body was read
                connection.close()
                continue
            self.uses.append(Use(began, time.monotonic(), answer.status))

    def statuses(self, after: float, before: float = float("inf")) -> set[int]:
        """Of the uses that began after a moment and ended before another."""
        return {use.status for use in self.uses if use.began > after and use.ended < before}

    def wait_for(self, status: int) -> None:
        """Until some use that begins now ends so."""
        now, deadline = time.monotonic(), time.monotonic() + 30
        while status not in self.statuses(now):
            assert time.monotonic() < deadline, self.uses[-3:]
            time.sleep(0.01)
