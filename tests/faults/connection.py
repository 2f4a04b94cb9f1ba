"""A client's connection to the service: kept alive, made anew after a fault."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any

from faults.site import Site, problem_of


class Unanswered(Exception):
    """No answer came: the connection could not be made, or broke."""

    def __init__(self, sent: bool) -> None:
        """`sent`: whether the request may have arrived."""
        super().__init__("no answer")
        self.sent = sent


@dataclass(frozen=True)
class Reply:
    """An answer: status, decoded body, request id."""

    status: int
    body: Any
    request_id: str

    @property
    def is_success(self) -> bool:
        """Whether it is an acknowledgement."""
        return self.status in {200, 201}

    @property
    def problem(self) -> str:
        """The problem type of a refusal."""
        return problem_of(self.body)


class Connection:
    """Requests of one session, one after the other."""

    def __init__(self, site: Site, token: str, timeout: float = 60) -> None:
        self._site, self._token, self._timeout = site, token, timeout
        self._context = ssl.create_default_context(cafile=str(site.folder / "server.crt"))
        self._http: http.client.HTTPSConnection | None = None

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """Send one request. Raises Unanswered."""
        sent = False
        try:
            if self._http is None:
                self._http = http.client.HTTPSConnection(
                    "localhost", self._site.port, context=self._context, timeout=self._timeout
                )
                self._http.connect()
            headers = {"Authorization": f"Bearer {self._token}"}
            content = None
            if body is not None:
                headers["Content-Type"], content = "application/json", json.dumps(body).encode()
            sent = True
            self._http.request(method, path, content, headers)
            answer = self._http.getresponse()
            text = answer.read()
            if answer.getheader("Connection") == "close":
                self.close()
            return Reply(answer.status, _decoded(text), answer.getheader("X-Request-Id", ""))
        except (OSError, http.client.HTTPException):
            self.close()
            raise Unanswered(sent) from None

    def close(self) -> None:
        """Let go of the connection; the next request makes another."""
        if self._http is not None:
            self._http.close()
            self._http = None


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text.decode(errors="replace")
