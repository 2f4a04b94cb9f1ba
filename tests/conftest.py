"""Fixtures: a real SQLite and a real PostgreSQL, a service in this process, and a clock to steer it by."""

from __future__ import annotations

import base64
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from kms.access import clients
from kms.access.model import Caller, Role
from kms.api.application import create_flask_app
from kms.config import Settings
from kms.operations import Service

LEASE = timedelta(milliseconds=60)


@pytest.fixture(autouse=True)
def _trust_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """These variables would silently beat the CA that a client was given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class SteeredClock:
    """A clock that stands still until a test moves it."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **period: float) -> None:
        self.now += timedelta(**period)


@pytest.fixture
def clock() -> SteeredClock:
    return SteeredClock()


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL, without a database, of a PostgreSQL on loopback with a data directory of its own."""
    programs = _postgres_programs()
    if programs is None:
        message = "PostgreSQL is not installed; .ci/install-services installs it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    as_user: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
    home = Path(subprocess.check_output(["mktemp", "-d", "/tmp/kms-test-pg.XXXXXX"], text=True).strip())
    if as_user:
        shutil.chown(home, user)
    data, port = home / "data", free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home, **as_user}
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "kms", "-A", "trust", "--no-sync"], check=True, **quiet
        )
        options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={home}"]
        options += ["-c", "fsync=off", "-c", "max_connections=300"]
        server = subprocess.Popen([programs / "postgres", "-D", data, *options], **quiet)
        try:
            url = f"postgresql://kms@127.0.0.1:{port}"
            _wait_for_postgres(url)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait_for_postgres(url: str) -> None:
    for attempt in itertools.count():
        try:
            psycopg.connect(f"{url}/postgres").close()
        except psycopg.OperationalError:
            if attempt > 300:
                raise
            subprocess.run(["sleep", "0.1"], check=True)
        else:
            return


def new_database(server: str) -> str:
    """The URL of a new, empty database."""
    name = f"t{uuid.uuid4().hex}"
    with closing(psycopg.connect(f"{server}/postgres", autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", lease=LEASE, threads=8, log_format="json")


@pytest.fixture
def service(settings: Settings, clock: SteeredClock) -> Iterator[Service]:
    opened = Service.open(settings, clock)
    yield opened
    opened.close()


@dataclass
class Api:
    """A client of the service in this process, logged in without spending a TOTP code."""

    http: FlaskClient
    headers: dict[str, str]
    client_id: str

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.http.post(path, json=body, headers={**self.headers, **headers})

    def get(self, path: str, **headers: str) -> Any:
        return self.http.get(path, headers={**self.headers, **headers})

    def patch(self, path: str, body: Any) -> Any:
        return self.http.patch(path, json=body, headers=self.headers)

    def delete(self, path: str) -> Any:
        return self.http.delete(path, headers=self.headers)


@dataclass
class World:
    """A service, its application, and clients made at will."""

    service: Service
    http: FlaskClient

    def enrol(self, client_id: str, *roles: Role) -> clients.Enrolment:
        with self.service.vault.change() as change:
            return clients.create(change, client_id, frozenset(roles or {Role.USER}), self.service.clock())

    def login(self, client_id: str, *roles: Role) -> Api:
        with self.service.vault.change() as change:
            token, _ = self.service.authenticator.issue(change, Caller(client_id, frozenset(roles), ()))
        return Api(self.http, {"Authorization": f"Bearer {token}"}, client_id)

    def user(self, client_id: str, *roles: Role) -> Api:
        self.enrol(client_id, *roles)
        return self.login(client_id, *roles)

    @property
    def admin(self) -> Api:
        return self.login("admin", Role.ADMIN)

    def bootstrap(self) -> dict[str, Any]:
        return dict(json.loads((self.service.settings.data_dir / "bootstrap.json").read_text()))


@pytest.fixture
def world(service: Service) -> World:
    return World(service, create_flask_app(service).test_client())


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def basic(client_id: str, secret: str, **headers: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64(f"{client_id}:{secret}".encode()), **headers}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
