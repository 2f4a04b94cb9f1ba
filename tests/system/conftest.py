"""Starting the real service."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import compatibility
from helpers.running import Running, Start, process_of
from helpers.support import free_port, new_database

ROOT = Path(__file__).parents[2]
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CA_BUNDLE")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts services; stops what is still running when the module's tests are over."""
    running: list[Running] = []

    def go(
        *flags: str,
        folder: Path | None = None,
        port: int | None = None,
        login: bool = True,
        program: tuple[str, ...] = (str(ROOT / "app.py"),),
        **env: str,
    ) -> Running:
        folder = folder or tmp_path_factory.mktemp("service")
        port = port or free_port()
        environ = {name: value for name, value in os.environ.items() if name not in _CA_VARIABLES}
        environ |= {"PYTHONWARNINGS": "ignore", **env}
        log = folder / f"log-{len(running)}"
        command = [
            sys.executable,
            *program,
            "--port",
            str(port),
            "--bootstrap-file",
            "admin.json",
            *flags,
        ]
        service = Running(folder, port, process_of(command, folder, log, environ), log, environ)
        running.append(service)
        service.wait_until_ready()
        if login:
            service.token = service.login(service.admin)
        return service

    yield go
    for service in running:
        compatibility.gather(service, request.module.__name__)
        if service.process.poll() is None:
            service.stop()


@pytest.fixture(scope="module", params=["1-sqlite", "3-sqlite", "3-postgresql"])
def service(request: pytest.FixtureRequest, start: Start) -> Running:
    """A service with one and with three workers, on either database."""
    workers, database = request.param.split("-")
    flags = ["--workers", workers]
    if database == "postgresql":
        flags += ["--database-url", new_database(request.getfixturevalue("postgres"))]
    return start(
        *flags,
        KMS_RATE_LIMIT_GENERATE="1000/minute",
        KMS_RATE_LIMIT_USE="1000000/second",
        HTTP_X_VAULT_TOKEN="of the environment",
    )
