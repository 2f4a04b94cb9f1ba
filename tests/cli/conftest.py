"""The command, run in this process against a world over TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from helpers import tls_world
from helpers.shell import objects
from helpers.support import World
from kms.access.model import Role
from kms.cli import main
from kms.client import kept_login
from kms.client.kept_login import KeptLogin

Kms = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def served(shared_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of the world, which is served over TLS, and the certificate to trust."""
    for client_id in ("alice", "bob"):
        shared_world.enrol(client_id)
    with tls_world.served(shared_world, tmp_path_factory.mktemp("tls")) as made:
        yield made


@pytest.fixture
def kms(shared_world: World, served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kms:
    """Runs the command, with a new session of the client `by` if one is named; gives the JSON that it shows.

    Of a command that ends with another `code` than 0 it gives the text.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KMS_HOME", str(tmp_path / "home"))

    def run(*arguments: str, by: str = "", code: int = 0, given: str = "") -> list[Any]:
        if by:
            api = shared_world.login(by, Role.ADMIN if by == "admin" else Role.USER, by_person=by == "admin")
            token = api.headers["Authorization"].removeprefix("Bearer ")
            kept_login.save(KeptLogin(*served, token, by))
        with capture_logs():  # the service in this process logs to where the command writes
            done = CliRunner().invoke(main, arguments, input=given)
        assert done.exit_code == code, done.output
        if code:
            return [done.stderr]
        return objects(done.stdout) if done.stdout.startswith("{") else [done.stdout]

    return run
