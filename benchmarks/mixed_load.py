"""Everything that clients do, at once and without a pause: each part is a thread that repeats its round."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import boto3
import pyotp
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks.connections import connect
from benchmarks.programs import Running
from benchmarks.seeding import KEY_PATTERN

_PLAIN = base64.b64encode(b"x" * 32).decode()
_FORM = "application/x-www-form-urlencoded"
_DEEP = b"[" * 100_000
_KEYS_USED = 2_000  # so many that each worker has met all of them long before a run ends


class Unavailable(Exception):
    """The answer was 503: the service says that it cannot do it now, and that nothing was done."""


@dataclass
class MixedLoad:
    """The load on one service; `answers` counts them by part and status, `unexpected` those that should not be.

    While it `revokes`, and suspends, the list of revocations grows, which every worker holds: about a kibibyte for
    each entry.
    """

    service: Running
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.revokes = True
        self._stopping = threading.Event()
        self._clients = itertools.cycle(self.service.seeded.credentials)
        self._used: dict[str, int] = {}
        self._keys = itertools.count()
        self._lock = threading.Lock()

    def run(self) -> list[threading.Thread]:
        """Start all parts; `stop` ends them."""
        parts: list[Callable[[], Iterator[None]]] = [
            self.uses, self.uses, self.changes, self.logins, self.console, self.refusals, self.aws, self.vault,
            self.connections,
        ]  # fmt: skip
        threads = [threading.Thread(target=self._repeat, args=(part,)) for part in parts]
        for each in threads:
            each.start()
        return threads

    def stop(self) -> None:
        """End the load after the requests that are under way."""
        self._stopping.set()

    def _repeat(self, part: Callable[[], Iterator[None]]) -> None:
        while not self._stopping.is_set():
            try:
                for _ in part():
                    if self._stopping.is_set():
                        return
            except Unavailable:
                time.sleep(0.1)  # and then again, as clients do
            except (OSError, http.client.HTTPException) as error:
                if part == self.refusals:  # a body that was not read ends its connection, as HTTP allows
                    self.answers["refusals", 0] += 1
                else:
                    self.unexpected[f"{part.__name__}: {type(error).__name__} {error}"] += 1
                time.sleep(0.1)

    def uses(self) -> Iterator[None]:
        """Encrypt and decrypt under one key of many after the other."""
        ask = self._asker("uses")
        for _ in range(200):
            path = f"/api/v1/keys/{KEY_PATTERN % (next(self._keys) % _KEYS_USED + 1)}"
            sent = ask("POST", f"{path}/encrypt", {"plaintext": _PLAIN}, {200})
            ask("POST", f"{path}/decrypt", {"ciphertext": sent["ciphertext"]}, {200})
            yield

    def changes(self) -> Iterator[None]:
        """Make keys, rotate them, change them, revoke and delete them."""
        ask = self._asker("changes")
        for kind in ("xaes-256-gcm", "ec-p256", "ed25519", "hmac-sha256"):
            path = f"/api/v1/keys/{ask('POST', '/api/v1/keys', {'type': kind}, {201})['key_id']}"
            ask("POST", f"{path}/rotate", {}, {200})
            ask("PATCH", path, {"labels": {"team": "soak"}}, {200})
            ask("GET", path, None, {200})
            if self.revokes:
                ask("POST", f"{path}/suspend", {}, {200})
                ask("POST", f"{path}/resume", {}, {200})
                ask("POST", f"{path}/revoke", {"reason": "superseded"}, {200})
            yield
        ask("GET", "/revocation_list", None, {200})
        ask("GET", "/api/v1/keys?limit=100", None, {200})

    def logins(self) -> Iterator[None]:
        """Log in, narrow the session, log out; and fail to log in."""
        ask = self._asker("logins", token="")
        client, headers = self._credentials()
        token = ask("POST", "/auth/token", None, {200}, headers)["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        ask("POST", "/generate_symmetric_key", {}, {200}, bearer)
        wrong = base64.b64encode(f"{client}:wrong".encode()).decode()
        refused = {"Authorization": f"Basic {wrong}", "X-TOTP": "000000"}
        if random.random() < 0.05:
            ask("POST", "/auth/token", None, {401, 429}, refused)
        ask("POST", "/auth/logout", {}, {200, 204}, bearer)
        ask("GET", "/api/v1/keys", None, {401}, bearer)
        yield

    def console(self) -> Iterator[None]:
        """Log in to the console, look at its pages, log out."""
        ask = self._asker("console", token="")
        client, headers = self._credentials()
        secret = base64.b64decode(headers["Authorization"].split()[1]).decode().partition(":")[2]
        own = {"Sec-Fetch-Site": "same-origin", "Origin": self.service.url, "Content-Type": _FORM}
        ask("GET", "/console/login", None, {200})
        form = {"client_id": client, "client_secret": secret, "code": headers["X-TOTP"]}
        answer = ask("POST", "/console/login", urlencode(form).encode(), {303}, own)
        cookie = {"Cookie": answer["set-cookie"].partition(";")[0]}
        page = ""
        for path in ("", "/keys", "/keys/new", "/grants", "/clients", "/audit", "/nothing"):
            text = ask("GET", f"/console{path}", None, {200, 303, 403, 404}, cookie)["text"]
            page = text if 'name="csrf"' in text else page
            yield
        if found := re.search(r'name="csrf" value="([^"]+)"', page):
            ask("POST", "/console/logout", urlencode({"csrf": found[1]}).encode(), {200}, own | cookie)

    def refusals(self) -> Iterator[None]:
        """Send what has to be refused."""
        ask = self._asker("refusals")
        key = f"/api/v1/keys/{KEY_PATTERN % 1}"
        ask("POST", f"{key}/encrypt", b"{", {400})
        ask("POST", f"{key}/encrypt", _DEEP, {400, 422})
        ask("POST", f"{key}/encrypt", {"plaintext": "?"}, {422})
        ask("POST", f"{key}/decrypt", {"ciphertext": _PLAIN}, {400})
        ask("POST", f"/api/v1/keys/none-{random.random()}/encrypt", {"plaintext": ""}, {404})
        ask("GET", f"/nothing/{random.random()}", None, {404})
        ask("BREW", key, None, {404, 405})
        ask("POST", "/api/v1/keys", {"type": "rot13"}, {400})
        ask("POST", f"{key}/encrypt", {}, {401}, {"Authorization": f"Bearer {random.random()}"})
        ask("POST", "/", b"{}", {400, 403}, {"X-Amz-Target": "TrentService.Encrypt", "Authorization": "AWS4 x"})
        ask("GET", "/v1/transit/keys/none", None, {403}, {"Authorization": "", "X-Vault-Token": "none"})
        yield

    def aws(self) -> Iterator[None]:
        """Boto3, with an access key of its own."""
        access = self._asker("aws")("POST", "/api/v1/access-keys", {}, {201})
        client = boto3.client(
            "kms",
            endpoint_url=self.service.url,
            region_name="us-east-1",
            aws_access_key_id=access["access_key_id"],
            aws_secret_access_key=access["secret_access_key"],
            verify=str(self.service.folder / "server.crt"),
            config=Config(retries={"max_attempts": 0}),
        )

        def ask(name: str, **given: Any) -> Any:
            try:
                answer = getattr(client, name)(**given)
            except ClientError as refused:
                code = refused.response["Error"]["Code"]
                self._count(
                    "aws", refused.response["ResponseMetadata"]["HTTPStatusCode"], {400, 503}, f"{name} {code}"
                )
                if code != "InvalidCiphertextException":
                    raise Unavailable from None
                return None
            self._count("aws", 200, {200})
            return answer

        key_id = ask("create_key")["KeyMetadata"]["KeyId"]
        for _ in range(50):
            sealed = ask("encrypt", KeyId=key_id, Plaintext=b"x" * 32)["CiphertextBlob"]
            ask("decrypt", CiphertextBlob=sealed)
            ask("generate_data_key", KeyId=key_id, KeySpec="AES_256")
            ask("describe_key", KeyId=key_id)
            ask("decrypt", CiphertextBlob=b"nonsense")
            yield
        ask("schedule_key_deletion", KeyId=key_id)
        client.close()
        self._asker("aws")("DELETE", f"/api/v1/access-keys/{access['access_key_id']}", None, {200})

    def vault(self) -> Iterator[None]:
        """The Vault dialect."""
        ask = self._asker("vault")
        name = f"soak-{random.getrandbits(48):x}"
        given = {"Authorization": "", "X-Vault-Token": self.service.token}
        ask("POST", f"/v1/transit/keys/{name}", {}, {200, 204}, given)
        for _ in range(20):
            sealed = ask("POST", f"/v1/transit/encrypt/{name}", {"plaintext": _PLAIN}, {200}, given)["data"]
            ask("POST", f"/v1/transit/decrypt/{name}", {"ciphertext": sealed["ciphertext"]}, {200}, given)
            ask("GET", "/v1/auth/token/lookup-self", None, {200}, given)
            yield
        ask("POST", f"/v1/transit/keys/{name}/rotate", {}, {200, 204}, given)
        ask("GET", f"/v1/transit/keys/{name}", None, {200}, given)

    def connections(self) -> Iterator[None]:
        """Connect and leave: at once, without TLS, in the middle of headers, in the middle of a body."""
        context = ssl.create_default_context(cafile=str(self.service.folder / "server.crt"))
        port = int(self.service.url.rpartition(":")[2])
        head = f"POST /generate_symmetric_key HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.service.token}\r\n"
        for sent in (None, b"", b"GET / HTTP/1.1\r\nX-A", head.encode() + b"Content-Length: 100\r\n\r\n{"):
            with socket.create_connection(("localhost", port), timeout=30) as plain:
                if sent is None:
                    plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                else:
                    with context.wrap_socket(plain, server_hostname="localhost") as secured:
                        secured.sendall(sent)
            self.answers["connections", 0] += 1
            yield

    def _asker(self, part: str, token: str | None = None) -> Callable[..., Any]:
        """What sends requests over one connection, and counts their answers."""
        connection = connect(self.service.url, self.service.folder / "server.crt")
        bearer = self.service.token if token is None else token
        standing = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {bearer}"} if bearer else {})

        def ask(method: str, path: str, body: Any, expected: set[int], headers: dict[str, str] | None = None) -> Any:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, sent, {**standing, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
                self.answers[part, answer.status] += 1
                raise Unavailable
            self._count(part, answer.status, expected, f"{method} {path.partition('?')[0]} {content[:200]!r}")
            if answer.headers.get_content_type() in {"application/json", "application/problem+json"}:
                return json.loads(content)
            return {"text": content.decode(errors="replace"), "set-cookie": answer.headers.get("Set-Cookie", "")}

        return ask

    def _count(self, part: str, status: int, expected: set[int], what: str = "") -> None:
        self.answers[part, status] += 1
        if status not in expected:
            self.unexpected[f"{part}: {status} {what}"] += 1

    def _credentials(self) -> tuple[str, dict[str, str]]:
        """A client whose code has not been used in this time step, and its headers."""
        while True:
            with self._lock:
                client_id, secret, totp_secret = next(self._clients)
                step = int(time.time()) // 30
                if self._used.get(client_id) != step:
                    self._used[client_id] = step
                    break
            time.sleep(0.1)
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        return client_id, {"Authorization": f"Basic {basic}", "X-TOTP": pyotp.TOTP(totp_secret).at(step * 30)}
