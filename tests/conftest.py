"""Fixtures: a real SQLite and a real PostgreSQL, a service in this process, and a clock to steer it by."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import compatibility
from helpers.postgres_server import PostgresServer, require_postgres
from helpers.support import SteeredClock, Template, World, new_database, settings_for
from kms import process_protection
from kms.config import Settings
from kms.operations import Service
from kms.server import leave
from kms.vault.opening import open_vault


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tables", action="store_true", help="write docs/reference/compatibility.md anew")
    parser.addoption("--screenshots", action="store_true", help="write docs/images/console-*.png anew")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # here, and not in each of several processes
        os.environ[compatibility.RESULTS] = tempfile.mkdtemp(prefix="kms-test-results-")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Hold the page of what clients can do to what they did, where all of them were there and all went well."""
    if hasattr(session.config, "workerinput"):
        return
    results = compatibility.gathered()
    shutil.rmtree(os.environ[compatibility.RESULTS], ignore_errors=True)
    if exitstatus or set(results) != compatibility.MODULES:
        return
    page = compatibility.page(results)
    if session.config.getoption("--tables"):
        compatibility.PAGE.write_text(page)
    elif compatibility.PAGE.read_text() != page:
        print(f"\n{compatibility.PAGE.name} is not what came out; write it anew with --tables")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def nothing_withheld() -> None:
    """A command that ran in this process has taken its secrets out of the environment, for itself alone."""
    process_protection.withheld.clear()


@pytest.fixture(autouse=True)
def _trust_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """These variables would silently beat the CA that a client was given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own_metric_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The library keeps the files that a process opened first, which is right for a worker and not for tests."""
    from prometheus_client import values  # late: it looks when it is imported where its files are

    monkeypatch.chdir(tmp_path)  # here is no certificate unless a test makes one
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())  # type: ignore[no-untyped-call]


@pytest.fixture
def clock() -> SteeredClock:
    """A clock that this test steers."""
    return SteeredClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL, without a database, of a PostgreSQL on loopback with a data directory of its own."""
    require_postgres()
    server = PostgresServer.new(max_connections="300").initialize()
    try:
        yield server.start().url
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a service in this process, whose data directory is not there yet."""
    return settings_for(tmp_path / "data")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A vault with its first administrator and nothing else."""
    made = Template(tmp_path_factory.mktemp("template") / "data")
    Service.open(settings_for(made.folder)).close()
    leave(open_vault(settings_for(made.folder)))  # a copy is another host, and would wait for this one
    return made


@pytest.fixture
def service(template: Template, settings: Settings, clock: SteeredClock) -> Iterator[Service]:
    """A service on a vault of its own, with its first administrator."""
    opened = template.open(settings, clock)
    yield opened
    opened.close()


@pytest.fixture
def world(service: Service) -> World:
    """The service with its application and clients."""
    return World.of(service)


@pytest.fixture(scope="module")
def shared_world(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for the tests of a module that leave each other alone. Nobody moves its clock.

    Its clients may make as many requests in a minute as all of these tests do.
    """
    limits = {"rate_limit_generate": "100000/minute", "rate_limit_manage": "100000/minute"}
    yield from _world_of_a_module(template, settings_for(tmp_path_factory.mktemp("shared") / "data", **limits))


@pytest.fixture(scope="module")
def unlimited_world(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """As `shared_world`, and without any rate limit."""
    yield from _world_of_a_module(
        template, settings_for(tmp_path_factory.mktemp("shared") / "data", rate_limit="off")
    )


def _world_of_a_module(template: Template, settings: Settings) -> Iterator[World]:
    opened = template.open(settings, SteeredClock())
    yield World.of(opened)
    opened.close()
