"""A real OIDC issuer on loopback: discovery document, keys and tokens, served over TLS."""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc.jwk import Key

from helpers.certificates import write_pair
from helpers.tokens import PlatformIssuer, new_key


@dataclass
class OidcIssuer(PlatformIssuer):
    """An issuer that serves its keys, and a token for the job that it runs, as CI systems do.

    `ca` is the certificate by which clients trust it. Whoever shows `request_token` at `/token` gets a token for the
    audience asked for, with the claims in `job`, `sub` among them. While it `is_down` it answers 503.
    """

    alg: str = "RS256"
    key: Key = field(default_factory=lambda: new_key("RS256"))
    ca: Path = Path()
    url: str = ""
    request_token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    job: dict[str, Any] = field(default_factory=dict)
    is_down: bool = False
    answers: int = 0

    @property
    def host(self) -> str:
        """Where it listens, as `HOST:PORT`."""
        return urlsplit(self.url).netloc

    def answer(self, target: str, authorization: str) -> tuple[int, Any]:
        """Status and JSON of the answer to a GET."""
        self.answers += 1
        if self.is_down:
            return 503, {}
        parts = urlsplit(target)
        if parts.path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "jwks_uri": f"{self.url}/.well-known/jwks",
                "id_token_signing_alg_values_supported": [self.alg],
            }
        if parts.path in ("/.well-known/jwks", "/openid/v1/jwks"):
            return 200, self.jwks
        if parts.path != "/token":
            return 404, {}
        if authorization.lower() != f"bearer {self.request_token}".lower():
            return 401, {}
        (audience,) = parse_qs(parts.query)["audience"]
        return 200, {"count": 1, "value": self.token("", aud=audience, jti=secrets.token_hex(8), **self.job)}


@contextmanager
def serving(folder: Path, **given: Any) -> Iterator[OidcIssuer]:
    """An issuer with a certificate of its own in `folder`; `issuer` is its URL unless given."""
    folder.mkdir()
    write_pair(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = made.answer(self.path, self.headers.get("Authorization", ""))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = f"https://localhost:{server.server_port}"
        made = OidcIssuer(**{"issuer": url, "url": url, "ca": folder / "server.crt", **given})
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()
