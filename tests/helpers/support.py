"""What tests share: a clock to steer by, a service in this process, clients of it, databases."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import socket
import subprocess
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from flask.testing import FlaskClient

from kms.access import clients
from kms.access.model import Caller, Client, Role
from kms.api.application import create_flask_app
from kms.clock import Clock, utc_now
from kms.config import Settings
from kms.crypto.keytype import KeyMaterial, KeyType
from kms.keys.cryptoperiod import Cryptoperiods
from kms.keys.model import Key
from kms.operations import Service
from kms.operations.keys import key_factory
from kms.vault.change import Change

LEASE = timedelta(milliseconds=60)


@dataclass
class SteeredClock:
    """A clock that stands still until a test moves it."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **period: float) -> None:
        """Move it on, by the arguments of a timedelta."""
        self.now += timedelta(**period)


@dataclass
class Api:
    """A client of the service in this process, logged in without spending a TOTP code."""

    http: FlaskClient
    headers: dict[str, str]
    client_id: str

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """POST `body` as JSON."""
        return self.http.post(path, json=body, headers={**self.headers, **headers})

    def get(self, path: str, **headers: str) -> Any:
        """GET."""
        return self.http.get(path, headers={**self.headers, **headers})

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with `body` as JSON."""
        return self.http.patch(path, json=body, headers=self.headers)

    def put(self, path: str, body: Any) -> Any:
        """PUT `body` as JSON."""
        return self.http.put(path, json=body, headers=self.headers)

    def delete(self, path: str, body: Any = None) -> Any:
        """DELETE, with `body` as JSON where there is one."""
        return self.http.delete(path, json=body, headers=self.headers)


@dataclass
class World:
    """A service, its application, and clients made at will."""

    service: Service
    http: FlaskClient

    @classmethod
    def of(cls, service: Service) -> World:
        """The world of a service, with an application of its own."""
        return cls(service, create_flask_app(service).test_client())

    def enrol(self, client_id: str, *roles: Role) -> clients.Enrolment:
        """Make a client, with the role `user` unless others are given."""
        with self.service.vault.change() as change:
            return clients.create(change, client_id, frozenset(roles or {Role.USER}), self.service.clock())

    def login(self, client_id: str, *roles: Role, by_person: bool = False) -> Api:
        """A client of the application, with a new session; `by_person` with a second factor given just now."""
        given_at = self.service.clock() if by_person else None
        caller = Caller(client_id, frozenset(roles), (), second_factor_at=given_at)
        with self.service.vault.change() as change:
            token, _ = self.service.authenticator.issue(change, caller)
        return Api(self.http, {"Authorization": f"Bearer {token}"}, client_id)

    def user(self, client_id: str, *roles: Role) -> Api:
        """A new client, logged in."""
        self.enrol(client_id, *roles)
        return self.login(client_id, *roles)

    @property
    def admin(self) -> Api:
        """The first administrator, logged in."""
        return self.login("admin", Role.ADMIN)

    def bootstrap(self) -> dict[str, Any]:
        """The credentials that the first start wrote down."""
        return dict(json.loads((self.service.settings.data_dir / "bootstrap.json").read_text()))


@dataclass(frozen=True)
class Template:
    """The data directory of a vault that was made once: a copy of it opens in half the time that a new one takes."""

    folder: Path

    def open(self, settings: Settings, clock: Clock = utc_now) -> Service:
        """A service on a copy of the vault, in the data directory of `settings`, which must not be there yet."""
        # Counters and metrics are of the boot, and the audit log of a test begins with the test.
        shutil.copytree(self.folder, settings.data_dir, ignore=shutil.ignore_patterns("run", "audit"))
        return Service.open(settings, clock)


def settings_for(data_dir: Path, **given: Any) -> Settings:
    """The settings of a service in this process. It counts logins, but no test comes near the limit by chance."""
    many = {"rate_limit_authenticate": "100000/minute", "rate_limit_public": "100000/minute"}
    return Settings(data_dir=data_dir, lease=LEASE, threads=8, log_format="json", **{**many, **given})


def kind_of(answer: Any) -> str:
    """The problem type of a refusal."""
    return str(answer.json["type"]).removeprefix("/problems/")


def make_key(change: Change, key_id: str, owner: str, kind: KeyType, material: bytes, now: datetime) -> Key:
    """A key of the simplest kind, and its owner where there is none."""
    if change.find(Client, owner) is None:
        clients.create(change, owner, frozenset({Role.USER}), now)
    template = key_factory.KeySpec(kind, owner, key_id)
    return key_factory.new_key(change, Cryptoperiods(), template, KeyMaterial.of(kind, material), now)[0]


def make_version(change: Change, key: Key, kind: KeyType, now: datetime) -> Key:
    """The next version of a key."""
    return key_factory.next_version(change, Cryptoperiods(), key, kind, KeyMaterial.of(kind, kind.generate()), now)[0]


def new_database(server: str) -> str:
    """The URL of a new, empty database."""
    name = f"t{uuid.uuid4().hex}"
    with closing(psycopg.connect(f"{server}/postgres", autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def wait_for_postgres(url: str) -> None:
    """Wait until the server at that URL takes connections, at most half a minute."""
    for attempt in itertools.count():
        try:
            psycopg.connect(f"{url}/postgres").close()
        except psycopg.OperationalError:
            if attempt > 300:
                raise
            subprocess.run(["sleep", "0.1"], check=True)
        else:
            return


def b64(content: bytes) -> str:
    """Base64, as the API takes and gives bytes."""
    return base64.b64encode(content).decode()


def unb64(text: str) -> bytes:
    """The bytes of strict base64."""
    return base64.b64decode(text, validate=True)


def basic(client_id: str, secret: str, **headers: str) -> dict[str, str]:
    """The headers with HTTP Basic credentials among them."""
    return {"Authorization": "Basic " + b64(f"{client_id}:{secret}".encode()), **headers}


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
