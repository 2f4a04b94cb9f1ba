"""The page about backups is followed with the real service: under load, and after everything was lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.load import Load
from helpers.running import Running, Start
from helpers.shell import ROOT, blocks
from helpers.shell import run as as_pasted
from helpers.support import Template, World, new_database, settings_for
from kms.cli.vault import vault
from kms.operations import Service

PAGE = "docs/how-to/backup.md"
BACK_UP, LOOK, PUT_BACK = blocks(PAGE, "With the tools of the database")
FLAGS = ("--workers", "2", "--rate-limit", "off")


def run(folder: Path, script: str) -> str:
    """`script` in `folder`, by somebody whose files others may read."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environ = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euc", f"umask 022\n{script}"], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_copy_by_the_database_is_private_whole_and_can_be_put_back(template: Template, tmp_path: Path) -> None:
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


class Changing(threading.Thread):
    """Makes and revokes keys without a pause, and remembers what was acknowledged."""

    def __init__(self, service: Running) -> None:
        super().__init__(daemon=True)
        self.service = service
        self.stopping = threading.Event()
        self.made: list[str] = []
        self.revoked: list[str] = []

    def run(self) -> None:
        """Until it is told to stop."""
        number = 0
        while not self.stopping.is_set():
            number += 1
            key_id = f"made-{number}"
            if self.service.curl("POST", "/api/v1/keys", {"key_id": key_id}).status == 201:
                self.made.append(key_id)
            if number % 3 == 0 and self.service.curl("POST", f"/api/v1/keys/{key_id}/revoke", {}).status == 200:
                self.revoked.append(key_id)


def encrypted(service: Running, key_id: str) -> str:
    answer = service.curl("POST", f"/api/v1/keys/{key_id}/encrypt", {"plaintext": "aGVsbG8="})
    assert answer.status == 200, answer.text
    return str(answer.json["ciphertext"])


def decrypted(service: Running, key_id: str, ciphertext: str) -> str:
    answer = service.curl("POST", f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": ciphertext})
    return str(answer.json["plaintext"] if answer.status == 200 else answer.json["type"])


def fails(service: Running, script: str) -> str:
    """What `script` says as it refuses."""
    environ = {**service.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environ["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["bash", "-euc", script], cwd=service.folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0, done.stdout
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_drill(start: Start, kind: str, request: pytest.FixtureRequest) -> None:
    back_up, fetch = blocks(PAGE, "Make a backup")
    drill = blocks(PAGE, "The drill")[0]
    lose, accept = blocks(PAGE, "After a loss")[:2]
    (move,) = blocks(PAGE, "Move to PostgreSQL, or back")
    postgres = request.getfixturevalue("postgres")
    first_url = new_database(postgres) if kind == "postgresql" else ""
    database = {"KMS_DATABASE_URL": first_url} if first_url else {}

    service = start(*FLAGS, **database)
    as_pasted(service, "python -m kms login --credentials admin.json")
    service.curl("POST", "/api/v1/keys", {"key_id": "fine"})
    service.curl("POST", "/api/v1/keys", {"key_id": "leaked"})
    ciphertexts = {key_id: encrypted(service, key_id) for key_id in ("fine", "leaked")}
    changing = Changing(service)
    with Load(service, service.token, "fine") as load:
        changing.start()
        load.wait_for(200)
        began, made_before = time.monotonic(), None
        while len(changing.made) < 5:
            time.sleep(0.05)
        made_before = list(changing.made)
        said = as_pasted(service, back_up)
        assert load.statuses(began) == {200}
        changing.stopping.set()
        changing.join()
    assert "Whole and authentic" in said
    assert (service.folder / "kms.backup").stat().st_mode & 0o777 == 0o600
    assert service.curl("POST", "/api/v1/keys/leaked/revoke", {"reason": "keyCompromise"}).status == 200
    as_pasted(service, fetch)

    # The drill, beside the service that goes on.
    drill_url = f"sqlite:///{service.folder}/drill/kms.db"
    said = as_pasted(service, drill, **({"KMS_DATABASE_URL": drill_url} if database else {}))
    assert "has not seen this vault before" in said and "Every row is as the service wrote it." in said
    copy = service.folder / "copy"
    copy.mkdir()
    shutil.move(service.folder / "drill", copy / "kms-data")
    drilled = start(*FLAGS, folder=copy, login=False)
    drilled.token = service.token
    assert decrypted(drilled, "fine", ciphertexts["fine"]) == "aGVsbG8="
    there = {key["key_id"] for key in everything(drilled)}
    assert set(made_before) <= there
    assert drilled.stop() == 0

    # The loss.
    assert service.stop() == 0
    if database:
        newer, database = first_url, {"KMS_DATABASE_URL": new_database(postgres)}
        lose, accept = (
            each.replace("mv kms-data/kms.db* lost/\n", "").replace("lost/kms.db", newer) for each in (lose, accept)
        )
    service.environ |= database
    assert "ROLLBACK" in fails(service, lose)
    said = as_pasted(service, accept)
    assert "Revoked again: leaked up to version 1, keyCompromise" in said
    again = start(*FLAGS, folder=service.folder, login=False, **database)
    again.token = service.token
    assert again.curl("GET", "/readyz").status == 200
    assert decrypted(again, "fine", ciphertexts["fine"]) == "aGVsbG8="
    assert decrypted(again, "leaked", ciphertexts["leaked"]) == "/problems/key-revoked"
    listed = again.curl("GET", "/revocation_list").json["revoked_keys"]
    assert {"leaked", *changing.revoked} <= {entry["key_id"] for entry in listed}
    assert again.stop() == 0

    # To the other kind of database, with nothing lost.
    other = f"sqlite:///{service.folder}/moved.db" if first_url else new_database(postgres)
    said = as_pasted(again, move, NEW_DATABASE=other)
    assert "ROLLBACK" not in said
    moved = start(*FLAGS, folder=service.folder, login=False, KMS_DATABASE_URL=other)
    moved.token = service.token
    assert moved.curl("GET", "/readyz").status == 200
    assert decrypted(moved, "fine", ciphertexts["fine"]) == "aGVsbG8="
    assert decrypted(moved, "leaked", ciphertexts["leaked"]) == "/problems/key-revoked"
    assert moved.curl("POST", "/api/v1/keys", {"key_id": "after-it-all"}).status == 201


def everything(service: Running) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = ""
    while True:
        answer = service.curl("GET", f"/api/v1/keys?limit=100{cursor}")
        assert answer.status == 200, answer.text
        found += answer.json["items"]
        if answer.json["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer.json['next_cursor']}"
