"""The documented way to back up a database and to put it back: as it is pasted, beside a service that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from helpers.shell import ROOT, blocks
from helpers.support import Template, World, settings_for
from kms.cli.vault import vault
from kms.operations import Service

BACK_UP, LOOK, PUT_BACK = blocks("docs/how-to/operate.md", "Backup")


def run(folder: Path, script: str) -> str:
    """`script` in `folder`, by somebody whose files others may read."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environ = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euc", f"umask 022\n{script}"], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backup_is_private_whole_and_can_be_put_back(template: Template, tmp_path: Path) -> None:
    data = tmp_path / "kms-data"
    world = World.of(template.open(settings_for(data)))
    alice = world.user("alice")
    alice.post("/api/v1/keys", {"key_id": "before"})
    run(tmp_path, BACK_UP)  # while it runs
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o600
    assert "Every row is as the service wrote it." in run(tmp_path, LOOK)
    assert not (tmp_path / "check").exists()
    alice.post("/api/v1/keys", {"key_id": "after"})
    left = {name: (data / name).read_bytes() for name in ("kms.db", "kms.db-wal", "kms.db-shm")}
    assert world.http.get("/readyz").status_code == 200  # what was looked into is not what it serves from
    world.service.close()
    for name, content in left.items():  # as a service leaves them that was killed
        (data / name).write_bytes(content)

    run(tmp_path, PUT_BACK)
    assert (data / "kms.db").stat().st_mode & 0o777 == 0o600
    service = Service.open(settings_for(data))
    try:
        again = World.of(service)
        assert again.http.get("/readyz").json["type"] == "/problems/integrity-failure"
        accepted = CliRunner().invoke(vault, ["accept", "--yes", "--data-dir", str(data)])
        assert accepted.exit_code == 0, accepted.output
        service.memory.catch_up()
        found = again.login("alice").get("/api/v1/keys").json["items"]
        assert [key["key_id"] for key in found] == ["before"]
    finally:
        service.close()
