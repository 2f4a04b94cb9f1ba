"""The store on SQLite and PostgreSQL: transactions, the epoch, faults; and nothing secret at rest."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.hazmat.primitives.serialization import load_der_private_key
from sqlalchemy import event, insert, select
from structlog.testing import capture_logs

from helpers.running import wait_until
from helpers.support import Template, World, make_key, make_version
from kms.access import clients
from kms.access.model import Client, ClientStatus, Role, Token
from kms.config import Settings
from kms.crypto.keytype import KeyType
from kms.crypto.registry import KEY_TYPES, key_type
from kms.errors import AlreadyExists, Conflict, Unavailable
from kms.keys.model import KeyState, KeyVersion
from kms.operations import Service
from kms.vault import queue, tables
from kms.vault.checking import wrong_tables
from kms.vault.head import Head
from kms.vault.opening import open_vault
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, 12, 30, 0, 123456, tzinfo=UTC)
LEASE = timedelta(milliseconds=40)


@pytest.fixture
def vault(database_url: str, tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(Settings(data_dir=tmp_path / "data", database_url=database_url, lease=LEASE))
    yield opened
    opened.engine.dispose()


def make(vault: Vault, key_id: str, type_name: str = "xaes-256-gcm") -> bytes:
    kind = key_type(type_name)
    material = kind.generate()
    with vault.change() as change:
        make_key(change, key_id, "user1", kind, material, NOW)
    return material


def test_the_schema_is_what_the_tables_say(vault: Vault) -> None:
    with vault.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_what_goes_in_comes_out(vault: Vault) -> None:
    material = make(vault, "k")
    with vault.read() as snapshot:
        key = snapshot.key_by_id("k")
        assert key is not None
        (version,) = snapshot.versions(key)
        assert snapshot.material(key, version) == material
        assert (key.created_at, key.cryptoperiod, key.usages) == (
            NOW,
            timedelta(days=365),
            KEY_TYPES[key.type].usages,
        )
        assert (version.state, version.expires_at) == (KeyState.ACTIVE, NOW + timedelta(days=365))
    assert wrong_tables(vault) == []


def test_a_change_that_raises_leaves_nothing(vault: Vault) -> None:
    with pytest.raises(Conflict), vault.change() as change:
        make_key(change, "k", "u", key_type("x25519"), key_type("x25519").generate(), NOW)
        change.record("entry")
        raise Conflict("no")
    with vault.read() as snapshot:
        assert snapshot.key_by_id("k") is None
        assert snapshot.connection.execute(select(tables.audit_outbox)).all() == []
    assert wrong_tables(vault) == []


def test_a_name_is_given_once(vault: Vault) -> None:
    make(vault, "k")
    with pytest.raises(AlreadyExists):
        make(vault, "k")
    assert wrong_tables(vault) == []


def test_changes_are_one_after_the_other(vault: Vault) -> None:
    make(vault, "k")

    def add_label(number: int) -> None:
        with vault.change() as change:
            key = change.key_by_id("k")
            assert key is not None
            time.sleep(0.005)
            change.replace(key, replace(key, labels={**key.labels, str(number): ""}))

    threads = [threading.Thread(target=add_label, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with vault.read() as snapshot:
        key = snapshot.key_by_id("k")
        assert key is not None
        assert set(key.labels) == {str(number) for number in range(8)}
    assert wrong_tables(vault) == []


def head_of(vault: Vault) -> Head:
    with vault.read() as snapshot:
        return snapshot.head()


def test_every_commit_moves_the_counter_and_what_outdates_something_the_epoch(vault: Vault) -> None:
    make(vault, "k")
    before = head_of(vault)
    with vault.change() as change:
        key = change.key_by_id("k")
        assert key is not None
        change.replace(key, replace(key, labels={"a": "tag"}))
    assert (head_of(vault).counter, head_of(vault).epoch) == (before.counter + 1, before.epoch)
    with vault.change() as change:
        key = change.key_by_id("k")
        assert key is not None
        change.replace(key, replace(key, exportable=True))
    assert (head_of(vault).counter, head_of(vault).epoch) == (before.counter + 2, before.epoch + 1)


@pytest.mark.parametrize("outdates", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_a_change_waits_for_leases_only_where_another_node_may_have_some(
    vault: Vault, outdates: bool, others: bool
) -> None:
    make(vault, "k")
    if others:
        with vault.change() as change:
            change.connection.execute(insert(tables.nodes).values(node_id="x", host="other", beats=0, leaving=0))
    began = time.monotonic()
    with vault.change() as change:
        key = change.key_by_id("k")
        assert key is not None
        change.replace(key, replace(key, exportable=outdates))
        held = time.monotonic()
    waited = time.monotonic() - began
    if outdates and others:
        assert waited >= LEASE.total_seconds()
        with vault.change():  # who waits holds up nobody else
            assert time.monotonic() - held < 10


def test_a_refused_change_takes_nobody_of_its_group_with_it(vault: Vault) -> None:
    """Many at once join one transaction; the refused ones go back to where they began."""
    start = threading.Barrier(16)
    outcomes: dict[int, str] = {}

    def work(number: int) -> None:
        start.wait()
        try:
            make(vault, f"k{number // 2}")  # of each two one is refused
            outcomes[number] = "made"
        except AlreadyExists:
            outcomes[number] = "refused"

    with vault.change() as change:
        clients.create(change, "user1", frozenset({Role.USER}), NOW)
    before = head_of(vault).counter
    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == ["made"] * 8 + ["refused"] * 8
    with vault.read() as snapshot:
        assert all(snapshot.key_by_id(f"k{number}") is not None for number in range(8))
    assert wrong_tables(vault) == []
    assert head_of(vault).counter - before < 16


def test_a_refusal_comes_once_what_it_rests_on_is_durable(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or whoever hears that a name is taken would find nothing under it."""
    monkeypatch.setattr(queue, "_LONGEST_SECONDS", 10.0)  # the group takes all three, however slow the machine
    kind = key_type("xaes-256-gcm")
    made, refused = threading.Event(), threading.Event()
    found: list[object] = []

    def waiting(number: int) -> None:
        wait_until(lambda: len(vault._turns._waiting) >= number)

    def first() -> None:
        with vault.change() as change:
            make_key(change, "k", "user1", kind, kind.generate(), NOW)
            made.set()
            waiting(2)

    def second() -> None:
        made.wait()
        with suppress(AlreadyExists), vault.change() as change:
            assert change.key_by_id("k") is not None
            raise AlreadyExists("The name is taken.")
        with vault.read() as snapshot:
            found.append(snapshot.key_by_id("k"))
        refused.set()

    def third() -> None:
        made.wait()
        waiting(1)
        with vault.change():
            refused.wait(0.5)  # keeps the group from being committed for a while

    threads = [threading.Thread(target=each) for each in (first, second, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is not None


def test_a_group_that_cannot_be_committed_is_refused_as_a_whole(vault: Vault) -> None:
    """Its members wait for one commit; where that fails, none of them is told that it was done."""
    make(vault, "k")
    began, refused = threading.Event(), []

    def label(number: int) -> None:
        began.wait()
        try:
            with vault.change() as change:
                key = change.key_by_id("k")
                assert key is not None
                change.replace(key, replace(key, labels={**key.labels, str(number): ""}))
        except Unavailable:
            refused.append(number)

    threads = [threading.Thread(target=label, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    with pytest.raises(Unavailable), vault.change() as change:
        began.set()
        while len(vault._turns._waiting) < len(threads):
            time.sleep(0.001)
        change.record("an entry")
        change.connection.connection.dbapi_connection.rollback()  # what a full disk does, or a lost connection
        change.connection.connection.dbapi_connection.close()
        raise Unavailable("the connection is gone")
    for thread in threads:
        thread.join()
    with vault.read() as snapshot:
        key = snapshot.key_by_id("k")
        assert key is not None
        assert set(key.labels) == {str(number) for number in range(4)} - set(map(str, refused))
    assert wrong_tables(vault) == []


def test_a_database_that_is_away_is_a_refusal(tmp_path: Path) -> None:
    opened = open_vault(Settings(data_dir=tmp_path / "data"))
    opened.engine.dispose()
    (tmp_path / "data" / "kms.db").unlink()
    (tmp_path / "data" / "kms.db").mkdir()
    with pytest.raises(Unavailable), opened.read() as snapshot:
        snapshot.sealed_head()


def test_a_deleted_client_keeps_its_name_and_nothing_else(vault: Vault) -> None:
    with vault.change() as change:
        enrolment = clients.create(change, "gone", frozenset({Role.USER}), NOW)
        change.insert(Token(b"h" * 32, "gone", NOW, NOW))
        clients.set_status(change, enrolment.client, ClientStatus.DELETED)
    with vault.read() as snapshot:
        client = snapshot.find(Client, "gone")
        assert client is not None
        assert (client.secret_hash, client.totp_secret) == ("", b"")
        assert snapshot.find(Token, b"h" * 32) is None
    with pytest.raises(AlreadyExists), vault.change() as change:
        clients.create(change, "gone", frozenset({Role.USER}), NOW)


def private_parts(kind: KeyType, material: bytes) -> list[bytes]:
    """What is secret in key material: all of it, and the private numbers without the public ones beside them."""
    if "raw" in kind.formats:
        return [material, kind.exported(material, "raw")]
    numbers: Any = load_der_private_key(material, None).private_numbers()  # type: ignore[union-attr]
    found = [getattr(numbers, name, None) for name in ("p", "q", "d", "dmp1", "x", "private_value")]
    return [material, *(value.to_bytes((value.bit_length() + 7) // 8) for value in found if value)]


def _contents(vault: Vault, tmp_path: Path) -> bytes:
    """Every byte that the database keeps."""
    if vault.engine.dialect.name == "sqlite":
        return b"".join(path.read_bytes() for path in tmp_path.glob("test.db*"))
    url = vault.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    dump = subprocess.run(["pg_dump", "--inserts", url], capture_output=True, check=True).stdout
    return dump + b"".join(bytes.fromhex(part[:100_000].decode()) for part in _bytea(dump))


def _bytea(dump: bytes) -> list[bytes]:
    return [part.split(b"'")[0] for part in dump.split(b"'\\x")[1:]]


def test_the_database_holds_no_secret_in_clear(vault: Vault, tmp_path: Path) -> None:
    secrets = []
    for number, name in enumerate(KEY_TYPES):
        secrets += private_parts(key_type(name), make(vault, f"k{number}", name))
    with vault.change() as change:
        enrolment = clients.create(change, "user2", frozenset({Role.USER}), NOW)
    secrets += [
        enrolment.client_secret.encode(),
        enrolment.totp_secret.encode(),
        *(each.reveal() for each in vault.derived_keys.keyset.root_keys.values()),
    ]
    secrets += [base64.b32decode(enrolment.totp_secret), *(code.encode() for code in enrolment.recovery_codes)]
    vault.engine.dispose()  # also what the write-ahead log held is now in the file
    kept = _contents(vault, tmp_path)
    assert b"user1" in kept
    for secret in secrets:
        forms = [secret, base64.b64encode(secret).rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"=")]
        forms += [secret.hex().encode(), *(base64.b64encode(secret[skip:])[:32] for skip in (1, 2))]
        for form in forms:
            assert form not in kept
    assert b"PRIVATE KEY" not in kept


def test_deletion_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    opened = open_vault(Settings(data_dir=tmp_path / "data"))
    make(opened, "k")
    with opened.change() as change:
        key = change.key_by_id("k")
        assert key is not None
        (version,) = change.versions(key)
        change.replace(version, replace(version, material=None, state=KeyState.DESTROYED))
    opened.engine.dispose()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("kms.db*"))
    assert version.material is not None
    assert version.material not in kept


@pytest.mark.slow
def test_ten_thousand_versions_of_one_key_are_rows_like_any_other(tmp_path: Path) -> None:
    opened = open_vault(Settings(data_dir=tmp_path / "data", lease=timedelta(milliseconds=20)))
    make(opened, "k")
    kind = key_type("xaes-256-gcm")
    with opened.change() as change:
        for _ in range(9_999):
            key = change.key_by_id("k")
            assert key is not None
            make_version(change, key, kind, NOW)
    with opened.read() as snapshot:
        key = snapshot.key_by_id("k")
        assert key is not None
        assert key.latest_version == 10_000
        assert snapshot.find(KeyVersion, key.uid, 1) is not None
    assert wrong_tables(opened) == []
    opened.engine.dispose()


def test_a_full_disk_is_named_once_and_nothing_is_changed(template: Template, settings: Settings) -> None:
    template.open(settings).close()
    opened, is_full = open_vault(settings, create=False), threading.Event()
    engine = opened.engine

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        if is_full.is_set():
            connection.execute("PRAGMA max_page_count=1")  # no more than there are

    event.listen(engine, "connect", limit)  # before a thread connects that would go through the listeners meanwhile
    service = Service(settings, opened)
    user = World.of(service).user("user1")
    is_full.set()
    engine.dispose()
    with capture_logs() as logged:
        answers = [user.post("/api/v1/keys", {"description": "x" * 1000}) for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) > 1
    assert all("disk full" in answer.json["detail"] for answer in refused)
    assert [line["log_level"] for line in logged if "DISK" in line["event"]] == ["warning"]
    made = [answer for answer in answers if answer.status_code == 201]
    assert len(user.get("/api/v1/keys").json["items"]) == len(made)
    is_full.clear()
    engine.dispose()
    assert user.post("/api/v1/keys", {}).status_code == 201
    service.close()
