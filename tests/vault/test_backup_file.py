"""A backup of the vault comes back whole, on either database, or not at all."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text, update

from helpers.backups import (
    ENTRY,
    another_host,
    backup_of,
    begin_another_root_key,
    body_at,
    carry_it_through,
    chunks,
    made_again,
    restored,
    sealed_bytes,
)
from helpers.support import Api, SteeredClock, Template, World, make_key, new_database, settings_for
from kms.access.model import Client
from kms.clock import utc_now
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import IntegrityFailure, StartError
from kms.keys.model import Key
from kms.operations import Service
from kms.vault import tables
from kms.vault.backup.container import BackupRefused, Header, Rows, read_header
from kms.vault.backup.content import backed_up_tables, rows_of, unsealing_tables
from kms.vault.backup.restore import read_backup
from kms.vault.backup.write import back_up, last_backup
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.database import connect
from kms.vault.head import Head
from kms.vault.opening import open_vault
from kms.vault.sealed_schema import Schema, write_schema
from kms.vault.sealing import DerivedKeys


@dataclass
class Original:
    """A vault in use, and a backup of it."""

    world: World
    alice: Api
    folder: Path
    ciphertext: str
    backup: bytes

    @property
    def keys(self) -> DerivedKeys:
        return self.world.service.vault.derived_keys


@pytest.fixture(scope="module")
def original(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    folder = tmp_path_factory.mktemp("original") / "data"
    world = World.of(template.open(settings_for(folder, rate_limit="off"), SteeredClock()))
    alice = world.user("alice")
    for name in ("aes-256-gcm", "xaes-256-gcm", "ec-p256"):
        assert alice.post("/api/v1/keys", {"key_id": name, "type": name}).status_code == 201
    alice.post("/api/v1/keys/xaes-256-gcm/rotate")
    alice.post("/api/v1/keys/ec-p256/revoke", {"reason": "superseded"})
    alice.post("/api/v1/keys/aes-256-gcm/encrypt", {"plaintext": "AAAA"})
    kind = key_type("xaes-256-gcm")
    with world.service.vault.change() as change:
        for number in range(700):  # several chunks, and several records
            make_key(change, f"k{number}", "alice", kind, kind.generate(), utc_now())
    ciphertext = alice.post("/api/v1/keys/xaes-256-gcm/encrypt", {"plaintext": "AAAA"}).json["ciphertext"]
    yield Original(world, alice, folder, ciphertext, backup_of(world.service.vault))
    world.service.close()


def rows(settings: Settings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that a backup has, but for the head, the vault's own row, and the entry of the restoring itself."""
    engine = connect(settings.database, pool_size=1)
    left_out = {"head", "vault"}
    with engine.connect() as connection:
        found = {
            str(table.name): sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
            for table in [*unsealing_tables(), *backed_up_tables()]
            if table.name not in left_out
        }
    engine.dispose()
    found["audit_outbox"] = [row for row in found["audit_outbox"] if "restore_vault" not in row[1]]
    return found


def is_empty(settings: Settings) -> bool:
    engine = connect(settings.database, pool_size=1)
    with engine.connect() as connection:
        kind = "sqlite_master" if connection.dialect.name == "sqlite" else "pg_tables WHERE schemaname = 'public'"
        count = connection.execute(text(f"SELECT count(*) FROM {kind}")).scalar_one()
    engine.dispose()
    return bool(count == 0)


def test_it_goes_from_sqlite_to_postgresql_and_back(original: Original, postgres: str, tmp_path: Path) -> None:
    backup = original.backup
    expected = rows(settings_for(original.folder))
    for number, url in enumerate((new_database(postgres), None)):
        settings = another_host(original.folder, tmp_path / f"host-{number}", url)
        loaded, judge = restored(settings, backup)
        assert not judge.is_rollback
        assert loaded.rows > 1400
        assert rows(settings) == expected
        vault = open_vault(settings, create=False)
        backup = backup_of(vault)
        assert vault.host.distrust is None
        vault.close()
        expected["audit_outbox"] = rows(settings)["audit_outbox"]  # with that of the backup


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restored_vault_is_used_as_the_one_before(
    original: Original, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = None if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    settings = another_host(original.folder, tmp_path / "host", url)
    restored(settings, original.backup)
    service = Service.open(settings, SteeredClock())
    try:
        assert wrong_tables(service.vault) == []
        assert list(altered_rows(service.vault)) == []
        alice = World.of(service).login("alice")
        opened = alice.post("/api/v1/keys/xaes-256-gcm/decrypt", {"ciphertext": original.ciphertext})
        assert opened.json["plaintext"] == "AAAA"
        assert alice.post("/api/v1/keys/ec-p256/sign", {"message": "AAAA"}).status_code == 403
        assert alice.post("/api/v1/keys", {"key_id": "new"}).status_code == 201
        assert alice.post("/api/v1/keys/new/encrypt", {"plaintext": "AAAA"}).status_code == 200
        entries = [entry for entry in outbox(service) if entry["operation"] == "restore_vault"]
        assert [entry["source"] for entry in entries] == ["local"]
    finally:
        service.close()


def outbox(service: Service) -> list[dict[str, Any]]:
    with service.vault.read() as snapshot:
        found = snapshot.connection.execute(select(tables.audit_outbox.c.entry)).scalars()
        return [json.loads(entry) for entry in found]


def test_the_backup_is_audited_and_leaves_a_mark(original: Original) -> None:
    vault = original.world.service.vault
    before = last_backup(vault)
    backup_of(vault)
    mark = last_backup(vault)
    assert before is not None and mark is not None
    assert mark.counter > before.counter
    with vault.read() as snapshot:
        assert snapshot.head().counter == mark.counter  # nothing was changed after it: it is the newest state
    assert outbox(original.world.service)[-1]["operation"] == "backup_vault"


def refuse(original: Original, folder: Path, backup: bytes) -> str:
    """The sentence by which a file is refused when it is read."""
    with pytest.raises(StartError) as refusal:
        read_backup(settings_for(folder), io.BytesIO(backup), lambda _: None)
    return str(refusal.value)


@pytest.fixture(scope="module")
def reader(original: Original, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a host that has the root key."""
    folder = tmp_path_factory.mktemp("reader") / "data"
    another_host(original.folder, folder)
    return folder


def test_nothing_of_it_can_be_read_but_how_it_is_unsealed(original: Original) -> None:
    backup, begins = original.backup, body_at(original.backup)
    header = read_header(io.BytesIO(backup))
    assert {each.table for each in header.unsealing_rows()} <= {str(each.name) for each in unsealing_tables()}
    with original.world.service.vault.read() as snapshot:
        clients, keys = snapshot.select(Client), snapshot.select(Key)
        hidden = [each.client_id for each in clients if len(each.client_id) > 4]
        hidden += [each.secret_hash for each in clients] + [each.key_id for each in keys if len(each.key_id) > 5]
    secrets = [each.reveal() for each in original.keys.keyset.root_keys.values()]
    assert len(hidden) > 4
    for each in [*(name.encode() for name in hidden), *secrets, b"PRIVATE KEY", b"certificateHold", b"superseded"]:
        assert each not in backup
    assert len(zlib.compress(backup[begins:], 9)) > 0.999 * (len(backup) - begins)  # as random bytes are


def test_a_file_altered_anywhere_is_refused(original: Original, reader: Path) -> None:
    good = original.backup
    assert read_backup(settings_for(reader), io.BytesIO(good), lambda _: None).rows > 1400
    begins = body_at(good)
    places = [*range(0, begins, 7), *range(begins, begins + 60), *range(begins, len(good), 997), len(good) - 1]
    for place in places:
        altered = bytearray(good)
        altered[place] ^= 1
        refuse(original, reader, bytes(altered))


def test_a_file_cut_off_anywhere_or_added_to_is_refused(original: Original, reader: Path) -> None:
    parts = chunks(original.backup)
    assert len(parts) > 4
    ends = [len(b"".join(parts[:number])) for number in range(len(parts))]
    for end in {*ends, 0, 5, 30, body_at(original.backup), len(original.backup) - 1, *range(100, ends[-1], 4999)}:
        refuse(original, reader, original.backup[:end])
    for added in (b"\0", original.backup, parts[1], bytes(16)):
        refuse(original, reader, original.backup + added)


def test_exchanged_repeated_and_mixed_parts_are_refused(original: Original, reader: Path) -> None:
    one, two = chunks(original.backup), chunks(backup_of(original.world.service.vault))
    mixed = [
        [one[0], one[2], one[1], *one[3:]],
        [one[0], one[1], one[1], *one[2:]],
        [one[0], *one[2:]],
        [one[0], two[1], *one[2:]],
        [one[0], *two[1:]],
        [two[0], *one[1:]],
        [*one[:-1], two[-1]],
    ]
    for parts in mixed:
        refuse(original, reader, b"".join(parts))
    header_of_two = two[0][: body_at(two[0])]
    assert "altered" in refuse(original, reader, header_of_two + original.backup[body_at(original.backup) :])


def test_what_is_no_backup_is_refused(original: Original, reader: Path) -> None:
    for other in (b"", b"SQLite format 3\0" + bytes(200), b"kms backup v1\0" + bytes(99), b"\n" * 500):
        assert "not a backup" in refuse(original, reader, other)
    header = read_header(io.BytesIO(original.backup))
    for content in (b"\0\0\0\1", b"\0\0\0\1\xc1", b"\xff\xff\xff\xff" + bytes(9), b""):
        refuse(original, reader, sealed_bytes(header, original.keys, content))


def test_an_authentic_file_whose_rows_do_not_fit_its_head_is_refused(original: Original, reader: Path) -> None:
    def without(table: str) -> bytes:
        return made_again(original.backup, original.keys, same, lambda each: None if each.table == table else each)

    for table in ("keys", "revocations", "head", "service_keys"):
        assert "does not fit" in refuse(original, reader, without(table))
    assert "audit log" in refuse(original, reader, without("audit_outbox"))

    def cut(record: Rows) -> Rows:
        return msgspec.structs.replace(record, rows=record.rows[:-1]) if record.table == "revocations" else record

    assert "revocations" in refuse(original, reader, made_again(original.backup, original.keys, same, cut))

    def renamed(record: Rows) -> Rows:
        return msgspec.structs.replace(record, table="other") if record.table == "clients" else record

    refuse(original, reader, made_again(original.backup, original.keys, same, renamed))

    def with_other_columns(record: Rows) -> Rows:
        columns = [f"{name}_" for name in record.columns] if record.table == "clients" else record.columns
        return msgspec.structs.replace(record, columns=columns)

    said = refuse(original, reader, made_again(original.backup, original.keys, same, with_other_columns))
    assert "other columns of clients" in said


def same(header: Header) -> Header:
    return header


@pytest.mark.parametrize("how", ["another root key", "no root key", "another seal"])
def test_without_the_seal_nothing_is_restored(original: Original, how: str, tmp_path: Path) -> None:
    settings = another_host(original.folder, tmp_path / "host")
    key = tmp_path / "host" / "root.key"
    if how == "another root key":
        line = key.read_bytes()
        key.write_bytes(line[:20] + (b"A" if line[20:21] != b"A" else b"B") + line[21:])
    elif how == "no root key":
        key.unlink()
    else:
        settings = msgspec.structs.replace(settings, seal="passphrase", seal_passphrase="correct horse battery")
    with pytest.raises(StartError):
        restored(settings, original.backup)
    assert not (tmp_path / "host" / "kms.db").exists()
    assert key.exists() == (how != "no root key")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_refused_backup_leaves_an_empty_database(
    original: Original, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = None if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    settings = another_host(original.folder, tmp_path / "host", url)
    parts = chunks(original.backup)
    for bad in (b"".join(parts[:-1]), original.backup[:-1], original.backup + b"\0"):
        with pytest.raises(BackupRefused):
            restored(settings, bad)
        assert is_empty(settings)
        assert not list(settings.data_dir.glob("newest-*"))
    restored(settings, original.backup)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_that_has_a_vault_is_left_as_it_is(
    original: Original, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = None if kind == "sqlite" else new_database(request.getfixturevalue("postgres"))
    settings = settings_for(tmp_path / "host", database_url=url)
    open_vault(settings).close()
    (tmp_path / "host" / "root.key").write_bytes((original.folder / "root.key").read_bytes())
    before = rows(settings)
    with pytest.raises(StartError, match="vault in this database already"):
        restored(settings, original.backup)
    assert rows(settings) == before


def test_a_vault_that_somebody_altered_gives_no_backup(
    template: Template, settings: Settings, clock: SteeredClock
) -> None:
    service = template.open(settings, clock)
    writing = service.vault.engine.connect().execution_options(kms_writes=True)
    with writing as connection, connection.begin():
        connection.execute(update(tables.clients).values(roles="admin auditor"))
    out = io.BytesIO()
    with pytest.raises(IntegrityFailure, match="clients"):
        back_up(service.vault, out.write, ENTRY, clock())
    assert last_backup(service.vault) is None
    with pytest.raises(StartError):
        read_backup(settings, io.BytesIO(out.getvalue()), lambda _: None)
    service.close()


def of_schema_10(original: Original, tmp_path: Path) -> bytes:
    """A backup as the release of schema 0010 would have made it: here without one table and one column."""
    keys = original.keys
    copy = tmp_path / "older"
    shutil.copytree(original.folder, copy, ignore=shutil.ignore_patterns("run", "audit", "newest-*"))
    engine = connect(settings_for(copy).database, pool_size=1)
    with engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        write_schema(connection, keys, Schema.of("0010"))
        rows = [record for table in unsealing_tables() for record in rows_of(connection, table)]
    engine.dispose()

    def header(now: Header) -> Header:
        return msgspec.structs.replace(now, schema="0010", unsealing=msgspec.msgpack.encode(rows))

    def older(record: Rows) -> Rows | None:
        if record.table == "passkeys":
            return None
        if record.table == "head":
            head = Head.unsealed(keys, record.rows[0][1])
            digests = {name: each for name, each in head.digests.items() if name != "passkeys"}
            sealed = replace(head, digests=digests).sealed(keys)
            return msgspec.structs.replace(record, rows=[[record.rows[0][0], sealed]])
        if record.table == "keys":
            at = record.columns.index("exportable_later")
            columns = record.columns[:at] + record.columns[at + 1 :]
            return Rows(record.table, columns, [row[:at] + row[at + 1 :] for row in record.rows])
        return record

    return made_again(original.backup, keys, header, older)


def test_a_backup_of_an_older_schema_is_brought_up_to_date(original: Original, tmp_path: Path) -> None:
    settings = another_host(original.folder, tmp_path / "host")
    restored(settings, of_schema_10(original, tmp_path))
    vault = open_vault(settings, create=False)
    assert vault.host.distrust is None
    assert wrong_tables(vault) == []
    assert list(altered_rows(vault)) == []
    with vault.read() as snapshot:
        key = snapshot.key_by_id("xaes-256-gcm")
        assert key is not None and not key.exportable_later
    vault.close()


def test_a_backup_of_a_newer_release_names_it(original: Original, reader: Path) -> None:
    def header(now: Header) -> Header:
        return msgspec.structs.replace(now, schema="9999")

    newer = made_again(original.backup, original.keys, header, lambda record: record)
    assert "schema 9999, made by a newer release" in refuse(original, reader, newer)


def test_a_vault_whose_root_key_is_being_changed(template: Template, clock: SteeredClock, tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    service = template.open(settings, clock)
    World.of(service).user("alice").post("/api/v1/keys", {"key_id": "k"})
    before = backup_of(service.vault)
    begin_another_root_key(service.vault, settings)
    during = backup_of(service.vault)
    carry_it_through(service.vault)
    after = backup_of(service.vault)
    assert [read_header(io.BytesIO(each)).root_key for each in (before, during, after)] == [1, 2, 2]
    for number, backup in enumerate((before, during, after)):
        host = another_host(settings.data_dir, tmp_path / f"host-{number}")
        restored(host, backup)
        vault = open_vault(host, create=False)
        assert vault.host.distrust is None
        assert wrong_tables(vault) == []
        if backup is during:  # it goes on where it was
            carry_it_through(vault)
            assert wrong_tables(vault) == []
        with vault.read() as snapshot:
            key = snapshot.key_by_id("k")
            assert key is not None
            assert len(snapshot.material(key, snapshot.versions(key)[0])) == 32
        vault.close()
    service.close()
