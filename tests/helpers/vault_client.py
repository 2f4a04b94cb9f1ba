"""A client of the Vault dialect that sends exactly what it is told to, to a service in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from helpers.support import Api, World
from helpers.wsgi import called, environ_of


@dataclass
class Answer:
    """What the dialect answered."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The whole body."""
        return json.loads(self.content)

    @property
    def data(self) -> Any:
        """What the answer is about."""
        return self.json["data"]

    @property
    def error(self) -> str:
        """The one error that is told."""
        (only,) = self.json["errors"]
        return str(only)


@dataclass
class Vault:
    """A client of Vault's that sends exactly what it is told to."""

    world: World
    token: str = ""

    @classmethod
    def of(cls, world: World, api: Api) -> Vault:
        """The client of a session."""
        return cls(world, api.headers["Authorization"].removeprefix("Bearer "))

    def send(self, method: str, path: str, body: bytes = b"", **given: Any) -> Answer:
        """Send a request; `given` are variables of it, None leaves one out."""
        split = urlsplit(path)
        environ = {"REQUEST_METHOD": method, "PATH_INFO": f"/v1/{split.path}", "QUERY_STRING": split.query}
        environ |= {"HTTP_X_VAULT_TOKEN": self.token, **given}
        app = self.world.http.application.wsgi_app
        status, headers, content = called(app, environ_of(body, **environ))
        return Answer(int(status.split()[0]), dict(headers), content)

    def read(self, path: str) -> Answer:
        """GET."""
        return self.send("GET", path)

    def write(self, path: str, **members: Any) -> Answer:
        """POST."""
        return self.send("POST", path, json.dumps(members).encode())

    def make(self, name: str, key_type: str = "aes256-gcm96", **members: Any) -> str:
        """A key of that name."""
        assert self.write(f"transit/keys/{name}", type=key_type, **members).status == 200
        return name
