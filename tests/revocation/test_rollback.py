"""An old backup is named as a rollback, and what was revoked after it stays revoked where that can be proven."""

from __future__ import annotations

import json
import shutil
import sqlite3
from base64 import b64decode
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from helpers.backups import another_host, backup_of, begin_another_root_key, carry_it_through, restored
from helpers.support import Api, SteeredClock, Template, World, kind_of, make_version, new_database, settings_for
from kms.audit.tree import leaf_hash
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import StartError
from kms.operations import Service
from kms.revocation.again import Evidence
from kms.revocation.evidence import of_database, of_signed_list
from kms.revocation.rollback import RollbackRefused, Source
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.checking import wrong_tables
from kms.vault.head import ACCEPTED_BEYOND
from kms.vault.host import newest_seen
from kms.vault.opening import open_vault
from kms.vault.rows import OutboxEntry


@dataclass
class Story:
    """A vault that was backed up, in which keys were revoked afterwards, and whose database is then lost.

    `compromised` was revoked for compromise, `replaced` as superseded after two more rotations, `held` is on hold,
    `lifted` was on hold for a while, `later` was made and revoked after the backup, `fine` and `counted` are in use.
    """

    settings: Settings
    folder: Path
    backup: bytes
    published: bytes
    ciphertexts: dict[str, str] = field(default_factory=dict)

    @property
    def damaged(self) -> Path:
        """The database that was lost."""
        return self.folder / "damaged.db"

    def empty(self, database_url: str | None = None) -> Settings:
        """The same host with an empty database."""
        for left in self.settings.data_dir.glob("kms.db*"):
            left.unlink()
        return settings_for(self.settings.data_dir, database_url=database_url)


KEYS = ("compromised", "replaced", "held", "lifted", "fine")


@pytest.fixture(scope="module")
def lost(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    settings = settings_for(folder / "data")
    service = template.open(settings, SteeredClock())
    world = World.of(service)
    alice = world.user("alice")
    story = Story(settings, folder, b"", b"")
    for key_id in KEYS:
        alice.post("/api/v1/keys", {"key_id": key_id})
    alice.post("/api/v1/keys", {"key_id": "counted", "type": "aes-256-gcm"})
    for key_id in (*KEYS, "counted"):
        answer = alice.post(f"/api/v1/keys/{key_id}/encrypt", {"plaintext": "AAAA"})
        story.ciphertexts[key_id] = answer.json["ciphertext"]
    story.backup = backup_of(service.vault)
    change(alice)
    story.published = world.http.get("/revocation_list", headers=alice.headers).data
    service.close()
    shutil.copy(settings.data_dir / "kms.db", story.damaged)
    return story


def change(alice: Api) -> None:
    assert alice.post("/api/v1/keys/compromised/revoke", {"reason": "keyCompromise"}).status_code == 200
    for _ in range(2):
        assert alice.post("/api/v1/keys/replaced/rotate").status_code == 200
    assert alice.post("/api/v1/keys/replaced/revoke", {"reason": "superseded"}).status_code == 200
    assert alice.post("/api/v1/keys/held/suspend").status_code == 200
    assert alice.post("/api/v1/keys/lifted/suspend").status_code == 200
    assert alice.post("/api/v1/keys/lifted/resume").status_code == 200
    assert alice.post("/api/v1/keys", {"key_id": "later"}).status_code == 201
    assert alice.post("/api/v1/keys/later/revoke", {"reason": "keyCompromise"}).status_code == 200


@pytest.fixture
def story(lost: Story, tmp_path: Path) -> Story:
    """The same for one test, which may do with the data directory what it wants."""
    data = tmp_path / "data"
    shutil.copytree(lost.settings.data_dir, data, ignore=shutil.ignore_patterns("run", "audit"))
    shutil.copy(lost.damaged, tmp_path / "damaged.db")
    return Story(settings_for(data), tmp_path, lost.backup, lost.published, lost.ciphertexts)


def test_it_is_named_and_not_done_by_itself(story: Story) -> None:
    settings = story.empty()
    seen = newest_seen(settings.data_dir, vault_id(story))
    with pytest.raises(RollbackRefused) as refusal:
        restored(settings, story.backup)
    said = str(refusal.value)
    assert f"this data directory has seen change {seen[0]}" in said
    assert "revocation" in said and "--accept-rollback" in said
    assert newest_seen(settings.data_dir, vault_id(story)) == seen
    with sqlite3.connect(settings.data_dir / "kms.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def vault_id(story: Story) -> bytes:
    (path,) = (path for path in story.settings.data_dir.glob("newest-*") if not path.suffix)
    return bytes.fromhex(path.name.removeprefix("newest-"))


def by_list(story: Story) -> list[Source]:
    return [partial(of_signed_list, document=story.published)]


def by_database(story: Story) -> list[Source]:
    return [lambda change: of_database(change.derived_keys, story.settings, str(story.damaged))]


def by_path(path: str, change: Change) -> Evidence:
    return of_database(change.derived_keys, settings_for(Path("nowhere")), path)


def by_both(story: Story) -> list[Source]:
    return by_list(story) + by_database(story)


@pytest.mark.parametrize(
    ("sources", "kind"),
    [(by_list, "sqlite"), (by_database, "sqlite"), (by_both, "sqlite"), (by_both, "postgresql")],
)
def test_what_can_be_proven_is_revoked_again(
    story: Story, sources: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    url = None if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    settings = story.empty(url)
    before = newest_seen(settings.data_dir, vault_id(story))[0]
    _, judge = restored(settings, story.backup, *sources(story), accepting=True)
    assert judge.is_rollback
    assert sorted((each.entry.key_id, each.is_key_here) for each in judge.applied) == [
        ("compromised", True), ("held", True), ("later", False), ("replaced", True),
    ]  # fmt: skip
    assert newest_seen(settings.data_dir, vault_id(story))[0] >= before + ACCEPTED_BEYOND
    service = Service.open(settings, SteeredClock())
    try:
        world = World.of(service)
        alice = world.login("alice")
        decrypted = {key_id: decrypt(alice, key_id, story.ciphertexts[key_id]) for key_id in story.ciphertexts}
        assert decrypted == {
            "compromised": "key-revoked",
            "replaced": "AAAA",  # superseded: it still decrypts
            "held": "key-state",
            "lifted": "AAAA",
            "fine": "AAAA",
            "counted": "AAAA",
        }
        for key_id, problem in {"replaced": "key-state", "held": "key-state", "later": "not-found"}.items():
            assert kind_of(alice.post(f"/api/v1/keys/{key_id}/encrypt", {"plaintext": "AAAA"})) == problem
        published = world.http.get("/revocation_list", headers=alice.headers).json["revoked_keys"]
        listed = {(entry["key_id"], entry["up_to_version"], entry["reason"]) for entry in published}
        assert listed == {
            ("compromised", 1, "keyCompromise"), ("replaced", 3, "superseded"), ("held", 1, "certificateHold"),
            ("later", 1, "keyCompromise"),
        }  # fmt: skip
        with service.vault.read() as snapshot:
            waiting = snapshot.select(OutboxEntry)
        written = {leaf_hash(each.entry.encode()): each.entry for each in waiting}
        assert max(each.sequence for each in waiting) > ACCEPTED_BEYOND  # a number that no lost entry had
        for entry in published:  # each names the entry of the restore about it
            made = json.loads(written[b64decode(entry["audit_leaf"])])
            assert (made["operation"], made["key_id"], made["target"]) == (
                "revoke_key", entry["key_id"], f"again, {entry['reason']}",
            )  # fmt: skip
        assert wrong_tables(service.vault) == []
        kind = key_type("xaes-256-gcm")
        with service.vault.change() as writing:
            replaced = writing.key_by_id("replaced")
            assert replaced is not None
            make_version(writing, replaced, kind, service.clock())  # with a number that nothing had before
        assert alice.get("/api/v1/keys/replaced").json["latest_version"] == 4
        assert alice.post("/api/v1/keys/replaced/encrypt", {"plaintext": "AAAA"}).json["version"] == 4
        assert alice.post("/api/v1/keys/held/resume").status_code == 200
        assert decrypt(alice, "held", story.ciphertexts["held"]) == "AAAA"
        audited = [entry for entry in outbox(service) if entry["operation"] in {"restore_vault", "revoke_key"}]
        again = [entry["key_id"] for entry in audited if entry.get("target", "").startswith("again")]
        assert sorted(again) == ["compromised", "held", "later", "replaced"]
        assert any("rollback" in entry.get("target", "") for entry in audited)
    finally:
        service.close()


def decrypt(caller: Api, key_id: str, ciphertext: str) -> str:
    answer = caller.post(f"/api/v1/keys/{key_id}/decrypt", {"ciphertext": ciphertext})
    return str(answer.json["plaintext"]) if answer.status_code == 200 else kind_of(answer)


def outbox(service: Service) -> list[dict[str, Any]]:
    with service.vault.read() as snapshot:
        found = snapshot.connection.execute(select(tables.audit_outbox.c.entry)).scalars()
        return [json.loads(entry) for entry in found]


def test_without_any_proof_it_says_what_cannot_be_known(story: Story) -> None:
    settings = story.empty()
    _, judge = restored(settings, story.backup, accepting=True)
    assert judge.applied == []
    assert any("Nothing was given that says what was revoked" in sentence for sentence in judge.report)
    assert any("1 keys are rotated" in sentence for sentence in judge.report)
    service = Service.open(settings, SteeredClock())
    try:
        alice = World.of(service).login("alice")
        assert decrypt(alice, "compromised", story.ciphertexts["compromised"]) == "AAAA"
    finally:
        service.close()


def test_a_host_that_knows_nothing_is_told_so(story: Story, tmp_path: Path) -> None:
    settings = another_host(story.settings.data_dir, tmp_path / "new")
    _, judge = restored(settings, story.backup)
    assert not judge.is_rollback
    assert any("has not seen this vault before" in sentence for sentence in judge.report)


@pytest.mark.parametrize("sources", [by_list, by_database])
def test_on_such_a_host_the_proof_alone_makes_it_a_rollback(story: Story, tmp_path: Path, sources: Any) -> None:
    settings = another_host(story.settings.data_dir, tmp_path / "new")
    with pytest.raises(RollbackRefused, match="compromised up to version 1, keyCompromise"):
        restored(settings, story.backup, *sources(story))
    _, judge = restored(settings, story.backup, *sources(story), accepting=True)
    assert len(judge.applied) == 4


def test_a_list_of_another_vault_is_no_proof(story: Story, tmp_path: Path, template: Template) -> None:
    other = Service.open(settings_for(tmp_path / "other"), SteeredClock())
    alice = World.of(other).user("alice")
    foreign = World.of(other).http.get("/revocation_list", headers=alice.headers).data
    other.close()
    vault = open_vault(story.settings)
    document = json.loads(story.published)
    header, payload, signature = document["jws"].split(".")
    altered = json.dumps({**document, "jws": ".".join([header, payload[:-4] + "AAAA", signature])}).encode()
    for wrong in (foreign, altered, b"{}", b"", b"\xff", json.dumps({"jws": "a.b.c"}).encode()):
        with (
            pytest.raises(StartError, match="not one that the vault of this backup signed"),
            vault.read() as snapshot,
        ):
            of_signed_list(snapshot, wrong)
    with pytest.raises(StartError, match="not one that the vault of this backup signed"):
        restored(story.empty(), story.backup, partial(of_signed_list, document=foreign), accepting=True)
    vault.close()


def test_of_a_damaged_database_what_is_authentic_counts(story: Story) -> None:
    with sqlite3.connect(story.damaged) as connection:
        connection.execute("UPDATE revocations SET key_id = 'fine' WHERE key_id = 'held'")
        connection.execute("UPDATE head SET sealed = x'00'")
    _, judge = restored(story.empty(), story.backup, *by_database(story), accepting=True)
    assert sorted(each.entry.key_id for each in judge.applied) == ["compromised", "later", "replaced"]
    said = " ".join(judge.report)
    assert "head cannot be read" in said
    assert "1 entries of its revocation list are not ones that the service wrote" in said


def test_a_torn_database_gives_what_can_be_read(story: Story) -> None:
    content = story.damaged.read_bytes()
    story.damaged.write_bytes(content[: len(content) // 3])
    settings = story.empty()
    try:
        _, judge = restored(settings, story.backup, *by_database(story), accepting=True)
    except StartError as error:
        assert "cannot be read" in str(error)
    else:
        assert any("cannot be read" in sentence for sentence in judge.report)
    for nothing in (str(story.folder / "nowhere.db"), "sqlite:////nowhere/at/all.db"):
        with pytest.raises(StartError, match="is not there"):
            restored(story.empty(), story.backup, partial(by_path, nothing))


def test_a_newer_database_on_postgresql(story: Story, postgres: str, tmp_path: Path) -> None:
    url = new_database(postgres)
    newer = settings_for(story.settings.data_dir, database_url=url)
    restored(newer, story.backup, accepting=True)
    service = Service.open(newer, SteeredClock())
    change(World.of(service).login("alice"))
    service.close()
    settings = another_host(story.settings.data_dir, tmp_path / "new")
    _, judge = restored(
        settings, story.backup, lambda change: of_database(change.derived_keys, settings, url), accepting=True
    )
    assert len(judge.applied) == 4
    assert newest_seen(settings.data_dir, vault_id(story))[0] > 2 * ACCEPTED_BEYOND


@pytest.mark.parametrize("has_head", [True, False])
def test_a_newer_database_whose_root_key_was_changed_since(story: Story, *, has_head: bool) -> None:
    """Its rows are under a root key that the backup has not got."""
    vault = open_vault(story.settings, create=False)
    begin_another_root_key(vault, story.settings)
    carry_it_through(vault)
    vault.checkpoint()
    vault.close()
    shutil.copy(story.settings.data_dir / "kms.db", story.damaged)
    if not has_head:
        with sqlite3.connect(story.damaged) as connection:
            connection.execute("UPDATE head SET sealed = x'00'")
    _, judge = restored(story.empty(), story.backup, *by_database(story), accepting=True)
    assert len(judge.applied) == 4
    assert judge.report
    assert any("head cannot be read" in sentence for sentence in judge.report) is not has_head
