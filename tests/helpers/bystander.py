"""A client that behaves, beside whatever else is done to a service.

Each of its requests has a connection of its own. What is answered 503 it asks again a little later.
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from dataclasses import dataclass, field

from helpers.running import Running

_PATIENCE_SECONDS = 30


@dataclass
class Bystander:
    """Encrypts a few times a second under one key.

    `seconds` has how long each use took until it was answered, `failures` what was not answered well at last,
    `repeated` how often it had to ask again.
    """

    service: Running
    key_id: str = "admin_symmetric"
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    repeated: int = 0

    def __enter__(self) -> Bystander:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=60)

    def _work(self) -> None:
        self._context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        while not self._stopping.wait(0.1):
            began = time.monotonic()
            try:
                status, content = self._use()
                while status == http.HTTPStatus.SERVICE_UNAVAILABLE and time.monotonic() < began + _PATIENCE_SECONDS:
                    self.repeated += 1
                    time.sleep(0.2)
                    status, content = self._use()
                if status != http.HTTPStatus.OK:
                    self.failures.append(f"{status} {content[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__} {error}")
            self.seconds.append(time.monotonic() - began)

    def _use(self) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            "localhost", self.service.port, context=self._context, timeout=_PATIENCE_SECONDS
        )
        headers = {"Authorization": f"Bearer {self.service.token}", "Content-Type": "application/json"}
        try:
            path = f"/api/v1/keys/{self.key_id}/encrypt"
            connection.request("POST", path, b'{"plaintext": "AAAA"}', headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def shown(self) -> str:
        """How it went, for people."""
        took = sorted(self.seconds) or [0.0]
        median, longest = took[len(took) // 2], took[-1]
        counts = f"{len(took)} uses, {len(self.failures)} failed, {self.repeated} asked again"
        return f"{counts}; median {median:.3f} s, longest {longest:.2f} s"
