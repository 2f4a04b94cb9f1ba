"""`vault rotate-root-key --offline`: what it takes for a service that runs, and what it does not."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.support import settings_for
from kms.cli import main
from kms.config import Settings
from kms.vault.database import shown
from kms.vault.nodes import Nodes
from kms.vault.opening import open_vault
from kms.vault.store import Vault

HOLDER = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); f.write(sys.argv[2]); f.flush();"
    "print('held', flush=True); input()"
)


@pytest.fixture
def killed(tmp_path: Path, database_url: str) -> Settings:
    """The settings of a host whose service was killed, so that its row stayed among the nodes."""
    settings = settings_for(tmp_path / "data", database_url=database_url)
    changed(settings, lambda vault: vault.nodes)
    return settings


def changed(settings: Settings, nodes: Callable[[Vault], Nodes], *, leave: bool = False) -> None:
    vault = open_vault(settings)
    with vault.change() as change:
        (nodes(vault).leave if leave else nodes(vault).join)(change)
    vault.close()


def rotate(settings: Settings) -> Result:
    where = ["--data-dir", str(settings.data_dir), "--database-url", settings.database]
    return CliRunner().invoke(main, ["vault", "rotate-root-key", "--offline", "--yes", "--fast", *where])


def test_the_row_of_this_host_is_no_service(killed: Settings) -> None:
    done = rotate(killed)
    assert done.exit_code == 0, done.output
    assert "Everything is under root key 2" in done.output


def test_another_node_is_named_and_what_to_do(killed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Nodes("0123456789abcdef", 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "far\x1b[2Jaway")  # nothing authenticates a node's row
        changed(killed, lambda _: other)
    refused = rotate(killed)
    assert refused.exit_code == 1
    assert "(node 0123456789abcdef)" in refused.output and "\x1b" not in refused.output
    assert "Stop the service there" in refused.output and "wait about a minute" in refused.output
    changed(killed, lambda _: other, leave=True)
    assert rotate(killed).exit_code == 0


def test_a_service_that_runs_here_is_one(killed: Settings) -> None:
    (killed.data_dir / "run").mkdir(exist_ok=True)
    lock = killed.run_dir / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), shown(killed.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = rotate(killed)
        holder.communicate(b"\n", timeout=10)
    assert refused.exit_code == 1
    assert "runs on this host" in refused.output
    assert rotate(killed).exit_code == 0
