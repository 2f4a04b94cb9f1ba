"""Old rows, old parts of the head and old databases put back: a revoked key stays revoked, and it is said aloud."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import Table, delete, insert, select, update

from helpers.running import wait_until
from helpers.support import LEASE, Api, SteeredClock, World, kind_of
from kms.api.application import create_flask_app
from kms.cli.vault import vault as vault_command
from kms.config import Settings
from kms.errors import IntegrityFailure
from kms.operations import Service
from kms.operations.system.checking import INTEGRITY, check_integrity
from kms.vault import tables
from kms.vault.checking import wrong_tables

Rows = dict[str, list[dict[str, Any]]]
OF_KEYS = [tables.keys, tables.key_versions, tables.revocations]


@dataclass
class Attack:
    """A service whose database somebody copied before a key was revoked."""

    settings: Settings
    clock: SteeredClock
    world: World
    alice: Api
    sealed: str
    before: Rows

    def put_back(self, *some: Table) -> None:
        """What an attacker with the database's password does."""
        writing = self.world.service.vault.engine.connect().execution_options(kms_writes=True)
        with writing as connection, connection.begin():
            for table in some:
                connection.execute(delete(table))
                if self.before[table.name]:
                    connection.execute(insert(table), self.before[table.name])
        time.sleep(LEASE.total_seconds() * 2)

    def restart(self) -> None:
        self.world.service.close()
        self.start()

    def start(self) -> None:
        service = Service.open(self.settings, self.clock)
        self.world = World(service, create_flask_app(service).test_client())
        self.alice = Api(self.world.http, self.alice.headers, "alice")

    def decrypt(self, key_id: str = "k", sealed: str | None = None) -> Any:
        return self.alice.post(f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": sealed or self.sealed})

    def accept(self) -> str:
        result = CliRunner().invoke(vault_command, ["accept", "--yes", "--data-dir", str(self.settings.data_dir)])
        assert result.exit_code == 0, result.output
        time.sleep(LEASE.total_seconds() * 2)
        return result.output


def copy_of(service: Service) -> Rows:
    with service.vault.engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables.metadata.sorted_tables
        }


@pytest.fixture
def attack(settings: Settings, clock: SteeredClock) -> Iterator[Attack]:
    service = Service.open(settings, clock)
    world = World(service, create_flask_app(service).test_client())
    alice = world.user("alice")
    for key_id in ("k", "other"):
        alice.post("/api/v1/keys", {"key_id": key_id})
    sealed = alice.post("/api/v1/keys/k/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    made = Attack(settings, clock, world, alice, sealed, copy_of(service))
    assert alice.post("/api/v1/keys/k/revoke").status_code == 200
    assert kind_of(made.decrypt()) == "key-revoked"
    yield made
    made.world.service.close()


def test_old_rows_of_the_versions_alone_are_refused_at_the_next_use(attack: Attack) -> None:
    attack.put_back(tables.key_versions)
    attack.world.service.memory._forget_everything()  # as a worker that has not read the key yet
    assert kind_of(attack.decrypt()) == "integrity-failure"
    assert attack.alice.post("/api/v1/keys/other/encrypt", {"plaintext": ""}).status_code == 200


@pytest.mark.parametrize("restarted", [False, True])
def test_old_rows_of_every_table_of_keys_do_not_bring_a_key_back(attack: Attack, restarted: bool) -> None:
    attack.put_back(*OF_KEYS)
    attack.world.service.memory._forget_everything()
    if restarted:
        attack.restart()
    assert kind_of(attack.decrypt()) == "integrity-failure"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("everything", [False, True])
def test_an_old_head_with_them_stops_every_use(attack: Attack, restarted: bool, everything: bool) -> None:
    attack.put_back(*(tables.metadata.sorted_tables if everything else [*OF_KEYS, tables.head]))
    if restarted:
        attack.restart()
    for answer in (attack.decrypt(), attack.alice.post("/api/v1/keys/other/encrypt", {"plaintext": ""})):
        assert answer.status_code == 503
        assert kind_of(answer) == "integrity-failure"
    ready = attack.world.http.get("/readyz")
    assert ready.status_code == 503
    assert "older than what was seen" in ready.json["detail"]


def test_rows_that_do_not_fit_the_head_stop_every_use_at_the_next_check(attack: Attack) -> None:
    attack.put_back(tables.keys, tables.key_versions)
    attack.clock.advance(hours=1)
    check_integrity(attack.world.service)
    time.sleep(LEASE.total_seconds() * 2)
    assert kind_of(attack.alice.post("/api/v1/keys/other/encrypt", {"plaintext": ""})) == "integrity-failure"
    ready = attack.world.http.get("/readyz")
    assert "key_versions" in ready.json["detail"]
    attack.restart()  # it is remembered
    assert attack.world.http.get("/readyz").status_code == 503


def test_an_operator_can_accept_it_and_that_is_recorded(attack: Attack) -> None:
    attack.put_back(*tables.metadata.sorted_tables)
    verified = CliRunner().invoke(vault_command, ["verify", "--data-dir", str(attack.settings.data_dir)])
    assert verified.exit_code == 1
    assert "not trusted" in verified.output
    assert "older than what was seen" in attack.accept()
    assert attack.decrypt().json["plaintext"] == "AAAA"  # in this database the key was not revoked
    entries = attack.world.admin.get("/api/v1/audit/entries?limit=1000").json["items"]
    assert "accept_vault" in {entry["operation"] for entry in entries}
    assert attack.alice.post("/api/v1/keys/k/revoke").status_code == 200
    assert kind_of(attack.decrypt()) == "key-revoked"
    check_integrity(attack.world.service)
    assert attack.world.http.get("/readyz").status_code == 200


def test_what_is_accepted_on_one_node_is_trusted_on_the_others(attack: Attack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    shutil.copy(attack.settings.data_dir / "root.key", other)
    database = f"sqlite:///{attack.settings.data_dir.absolute() / 'kms.db'}"
    node = Service.open(msgspec.structs.replace(attack.settings, data_dir=other, database_url=database), attack.clock)
    node.memory.require()
    attack.put_back(*tables.metadata.sorted_tables)
    with pytest.raises(IntegrityFailure):
        node.memory.require()
    attack.accept()
    wait_until(lambda: node.memory.held)
    node.memory.require()
    node.close()


def grants_of(service: Service) -> list[dict[str, Any]]:
    with service.vault.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(tables.grants)).mappings()]


@pytest.mark.parametrize("claim", [{"claimed_until": 2**62}, {"claimed_until": 0, "position": "zzzz"}])
def test_the_check_cannot_be_put_off_by_its_claim(attack: Attack, claim: dict[str, Any]) -> None:
    service = attack.world.service
    grant = {"subject": "role:user", "key_pattern": "other", "permission": "keys:encrypt"}
    grant_id = attack.alice.post("/api/v1/grants", grant).json["grant_id"]
    old = grants_of(service)
    attack.alice.delete(f"/api/v1/grants/{grant_id}")
    check_integrity(service)
    with service.vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.execute(insert(tables.grants), old)
        connection.execute(update(tables.claims).where(tables.claims.c.task == INTEGRITY).values(claim))
    attack.clock.advance(minutes=6)
    check_integrity(service)
    assert "grants" in (service.vault.host.distrust or "")


def test_an_accepted_loss_of_audit_entries_is_not_found_again(attack: Attack) -> None:
    service = attack.world.service
    with service.vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.execute(delete(tables.audit_outbox).where(tables.audit_outbox.c.sequence == 2))
    assert wrong_tables(service.vault) == ["audit_outbox"]
    attack.accept()
    assert wrong_tables(service.vault) == []
    assert attack.alice.post("/api/v1/keys", {}).status_code == 201
    assert wrong_tables(service.vault) == []


@pytest.mark.parametrize("harm", ["put back", "head removed"])
def test_after_an_acceptance_changes_are_noticed_by_every_node(attack: Attack, tmp_path: Path, harm: str) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    shutil.copy(attack.settings.data_dir / "root.key", other)
    database = f"sqlite:///{attack.settings.data_dir.absolute() / 'kms.db'}"
    node = Service.open(msgspec.structs.replace(attack.settings, data_dir=other, database_url=database), attack.clock)
    world = World.of(node)
    attack.alice.post("/api/v1/keys/other/rotate")
    node.memory.require()
    if harm == "put back":
        attack.put_back(*tables.metadata.sorted_tables)
    else:
        with node.vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
            connection.execute(delete(tables.head))
        time.sleep(LEASE.total_seconds() * 2)
    attack.accept()
    wait_until(lambda: node.memory.held and attack.world.service.memory.held)
    there = Api(world.http, attack.alice.headers, "alice")
    for _ in range(3):
        assert there.post("/api/v1/keys/other/encrypt", {"plaintext": ""}).status_code == 200
        assert attack.alice.post("/api/v1/keys/other/suspend").status_code == 200
        assert there.post("/api/v1/keys/other/encrypt", {"plaintext": ""}).status_code == 409
        assert attack.alice.post("/api/v1/keys/other/resume").status_code == 200
    node.close()


def test_what_is_left_is_the_whole_database_with_the_file_of_the_host(attack: Attack, tmp_path: Path) -> None:
    """The threat model says so: nothing tells that from a service that was never used since."""
    files = {path: path.read_bytes() for path in attack.settings.data_dir.glob("newest-*")}
    assert files
    attack.put_back(*tables.metadata.sorted_tables)
    attack.world.service.close()
    for path, content in files.items():
        current = bytearray(content)
        current[8:24] = bytes(16)  # the epoch and the counter, set back
        current[256:1024] = bytes(768)
        current[1024:4096] = bytes(3072)  # what each process saw
        path.write_bytes(bytes(current))
    attack.world = World(
        service := Service.open(attack.settings, attack.clock), create_flask_app(service).test_client()
    )
    attack.alice = Api(attack.world.http, attack.alice.headers, "alice")
    assert attack.decrypt().status_code == 200
