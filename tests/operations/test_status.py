"""The status in one answer: what it says is so, who may see it, and what it asks operators to act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from structlog.testing import capture_logs

from helpers.certificates import write_pair
from helpers.support import SteeredClock, Template, World, kind_of, new_database, settings_for
from kms import __version__
from kms.access.model import Role
from kms.audit.checkpoint import Checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.log_files import CHECKPOINT
from kms.audit.note import Ed25519Signer, signed
from kms.operations import Service
from kms.operations.system.checking import check_integrity
from kms.operations.system.schedule import rotate_due_keys
from kms.operations.system.status_sections import PeopleSection
from kms.vault import claims, root_keys
from kms.vault.backup.write import BACKUP
from kms.vault.seals import Seals

pytestmark = pytest.mark.usefixtures("own_metric_files")


def status(world: World) -> dict[str, Any]:
    answer = world.admin.get("/api/v1/status")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def test_it_says_what_there_is(world: World, clock: SteeredClock, tmp_path: Path) -> None:
    write_pair(tmp_path)
    alice = world.user("alice")
    for key_id in ("a", "b"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    alice.post("/api/v1/keys/b/suspend")
    found = status(world)
    assert found["answered_by"]["version"] == __version__
    (node,) = found["nodes"]
    assert (node["answers"], node["leaving"], node["host"]) == (True, False, found["answered_by"]["host"])
    with world.service.vault.read() as snapshot:
        (revision,) = snapshot.connection.execute(text("SELECT version_num FROM alembic_version")).one()
    assert found["database"] | {"changes": 0} == {
        "kind": "sqlite", "schema_revision": revision, "changes": 0, "lease_milliseconds": 60,
    }  # fmt: skip
    assert found["seal"] == {"name": "file", "root_keys": [1], "recovery_key": False}
    assert found["backup"] == {}
    assert found["keys"]["by_state"] == {"active": 1, "suspended": 1}
    assert found["certificate"]["expires_at"] > clock().isoformat()
    assert found["audit_log"]["files"] == 1
    assert found["rate_limits"] == {"counted_by": "each node for itself", "locked_out": 0}
    assert found["schedule"] == {"due_for_rotation": 0, "due_for_deletion": 0}
    assert found["notices"] == {"waiting": 0, "late": 0, "dead": 0, "disabled": 0}
    assert found["people"]["administrators"] == 1


def test_it_says_so_while_there_is_one_administrator(world: World) -> None:
    assert PeopleSection.ONLY_ONE in status(world)["attention"]
    world.enrol("second", Role.ADMIN)
    assert PeopleSection.ONLY_ONE not in status(world)["attention"]
    world.admin.post("/api/v1/clients/second/disable")
    assert PeopleSection.ONLY_ONE in status(world)["attention"]


def test_the_integrity_check(world: World, clock: SteeredClock) -> None:
    assert status(world)["integrity_check"] == {"state": "due"}
    check_integrity(world.service)
    found = status(world)["integrity_check"]
    assert (found["state"], found["finished_at"]) == ("done", clock().isoformat().replace("+00:00", "Z"))
    clock.advance(days=3)
    assert any("integrity check is overdue" in sentence for sentence in status(world)["attention"])


def test_what_is_late(world: World, clock: SteeredClock) -> None:
    alice = world.user("alice")
    assert alice.post("/api/v1/keys", {"key_id": "k", "rotation_period": "P1D"}).status_code == 201
    assert alice.post("/api/v1/keys", {"key_id": "held", "rotation_period": "P1D"}).status_code == 201
    alice.post("/api/v1/keys/held/suspend")  # waits, and is not late
    clock.now = datetime.fromisoformat(alice.get("/api/v1/keys/k").json["next_rotation_at"]) + timedelta(minutes=1)
    found = status(world)
    assert found["schedule"]["due_for_rotation"] == 1
    assert not [sentence for sentence in found["attention"] if "rotations" in sentence]
    clock.advance(minutes=10)
    assert any("1 rotations" in sentence for sentence in status(world)["attention"])
    rotate_due_keys(world.service, clock())
    assert status(world)["schedule"]["due_for_rotation"] == 0


def test_a_certificate_that_ends_soon(world: World, clock: SteeredClock, tmp_path: Path) -> None:
    assert "expires_at" not in status(world)["certificate"]
    write_pair(tmp_path)
    ends = status(world)["certificate"]["expires_at"]

    clock.now = datetime.fromisoformat(ends) - timedelta(days=3)
    assert any("TLS certificate" in sentence for sentence in status(world)["attention"])


def test_who_may_see_it(world: World) -> None:
    assert kind_of(world.user("alice").get("/api/v1/status")) == "permission-denied"
    assert world.user("aude", Role.AUDITOR).get("/api/v1/status").status_code == 200
    assert world.http.get("/api/v1/status").status_code == 401


def test_a_node_that_is_not_ready_answers_with_the_reason(world: World) -> None:
    admin = world.admin
    assert admin.get("/api/v1/status").status_code == 200
    world.service.vault.stop_trusting("Rows were altered.")
    answer = admin.get("/api/v1/status")
    assert (answer.status_code, kind_of(answer)) == (503, "integrity-failure")


@pytest.fixture
def two_nodes(postgres: str, tmp_path: Path, clock: SteeredClock) -> Iterator[tuple[World, World]]:
    url = new_database(postgres)
    first = Service.open(settings_for(tmp_path / "a", database_url=url), clock)
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / "root.key").write_bytes((tmp_path / "a" / "root.key").read_bytes())
    (tmp_path / "b" / "root.key").chmod(0o600)
    second = Service.open(settings_for(tmp_path / "b", database_url=url), clock)
    yield World.of(first), World.of(second)
    first.close()
    second.close()


def test_every_node_is_listed(two_nodes: tuple[World, World]) -> None:
    first, second = two_nodes
    second.service.memory.require()
    first.service.memory.refresh()
    with first.service.vault.change() as change:
        first.service.vault.nodes.beat(change)
    found = status(first)
    assert found["database"]["kind"] == "postgresql"
    mine, other = found["nodes"]
    assert (mine["answers"], other["answers"]) == (True, False)
    assert other["node_id"] == second.service.vault.host.node_id
    assert 0 <= other["heartbeat_seconds_ago"] < 60
    assert "heartbeat_seconds_ago" not in mine


def test_it_says_when_the_last_backup_was_made_and_what_is_being_changed(world: World) -> None:
    assert any("No backup" in sentence for sentence in status(world)["attention"])
    vault = world.service.vault
    with vault.change() as change:
        before = change.head().counter
    claims.note(vault, BACKUP, world.service.clock(), str(before))
    rewrap = root_keys.Rewrap(Seals(world.service.settings), vault.derived_keys.vault_id)
    root_keys.begin(vault, rewrap, world.service.clock(), "{}")
    found = status(world)
    assert found["backup"]["changes_since"] >= 1
    assert found["seal"]["root_keys"] == [1, 2]
    assert any("root key is being changed" in sentence for sentence in found["attention"])
    assert not any("No backup" in sentence for sentence in found["attention"])


def test_it_says_how_far_the_audit_log_is(world: World, clock: SteeredClock) -> None:
    before = status(world)["audit_log"]
    assert (before["entries"], "folded_at" in before) == (0, False)
    assert before["waiting"] >= 1
    world.service.folder.fold()
    after = status(world)["audit_log"]
    assert after["entries"] >= before["waiting"]
    assert after["folded_at"] == clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    clock.advance(seconds=90)  # the entry of the status before waits since then
    assert any("wait for longer than a minute" in sentence for sentence in status(world)["attention"])
    world.service.folder.fold()
    assert not any("audit log" in sentence for sentence in status(world)["attention"])
    lines = world.http.get("/readyz?verbose").text
    assert "audit log entries: " in lines
    assert "folded last at" in lines


def test_it_says_so_where_the_directory_of_the_audit_log_is_wrong(world: World) -> None:
    world.service.folder.fold()
    directory = world.service.settings.audit_log_dir
    directory.rename(directory.with_name("elsewhere"))
    world.user("alice")
    world.service.folder._sequencer._applied = None  # as another process has it
    with capture_logs():
        world.service.folder.fold()
    (told,) = [sentence for sentence in status(world)["attention"] if "audit log" in sentence]
    assert "KMS_AUDIT_DIR" in told
    rmtree(directory)
    directory.with_name("elsewhere").rename(directory)
    with capture_logs():
        world.service.folder.fold()
    assert not any("audit log" in sentence for sentence in status(world)["attention"])


@pytest.mark.parametrize("how", ["altered", "of another log", "empty", "no text"])
def test_it_says_so_where_the_checkpoint_of_the_audit_log_is_wrong(world: World, how: str) -> None:
    world.service.folder.fold()
    path = world.service.settings.audit_log_dir / CHECKPOINT
    genuine = path.read_bytes()
    other = Ed25519Signer("other.example/audit", Ed25519PrivateKey.generate())
    wrong = {
        "altered": genuine.replace(b"\n", b"\n1", 1),
        "of another log": bytes(signed(Checkpoint(other.key.name, 1, bytes(32)).text, other)),
        "empty": b"",
        "no text": b"\xff\xfe",
    }
    path.write_bytes(wrong[how])
    for _ in range(2):
        with capture_logs():
            world.service.folder.fold()
        (told,) = [sentence for sentence in status(world)["attention"] if "audit log" in sentence]
        assert "`checkpoint`" in told
        world.service.folder._sequencer._applied = None  # as another process has it
    path.write_bytes(genuine)
    with capture_logs():
        world.service.folder.fold()
    assert not any("audit log" in sentence for sentence in status(world)["attention"])


def test_it_says_so_where_no_witness_cosigns(tmp_path: Path, template: Template, clock: SteeredClock) -> None:
    key = Cosigner("witness", Ed25519PrivateKey.generate(), lambda: 0).key
    settings = settings_for(tmp_path / "data", witness_urls="https://localhost:1", witness_keys=str(key))
    with closing(template.open(settings, clock)) as service, capture_logs():
        world = World.of(service)
        world.service.folder.fold()
        found = status(world)
        assert found["audit_log"]["cosigned_entries"] == 0
        assert any("No witness has cosigned" in sentence for sentence in found["attention"])
