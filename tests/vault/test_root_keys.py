"""The root key is changed while others read and write; afterwards nothing is under the old one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import LargeBinary, Table, delete, insert, select

from helpers.support import make_key, make_version
from kms.access import access_keys, authentication
from kms.access.access_keys import AccessKey
from kms.access.model import Caller, Client
from kms.approvals import deciding, filing
from kms.approvals.canonical import CanonicalCall
from kms.approvals.model import Approval, ApprovalRule
from kms.clock import utc_now
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import Conflict, IntegrityFailure, StartError, Unavailable
from kms.keys.model import KeyVersion, RevocationReason
from kms.notices import targets
from kms.notices.model import Channel, Notice, NoticeStatus
from kms.revocation.published import ensure_signing_key
from kms.revocation.revoke import revoke
from kms.vault import claims, root_keys, sealed_columns, tables
from kms.vault.accepting import accept
from kms.vault.change import Change
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.memory import Cache, Memory
from kms.vault.opening import open_vault
from kms.vault.records import microseconds
from kms.vault.rows import NewRootKey, WrappingKey
from kms.vault.sealing import number_of_code, number_of_sealed
from kms.vault.seals import Seals
from kms.vault.service_keys import ServiceKey
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = key_type("xaes-256-gcm")
KEYS = 120
NOT_SEALED = {"mac", "public_key", "fingerprint", "credential_id", "wrapped", "sealed", "names", "code", "vault_id"}


def in_two_minutes() -> datetime:
    """When the claim of whoever died now is over."""
    return utc_now() + timedelta(minutes=2)


def material(number: int) -> bytes:
    return number.to_bytes(32)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, lease=timedelta(seconds=2))


def waiting(change: Change) -> None:
    """Have a call wait for approval, and an answer to one be kept."""
    rules = frozenset({"keys:delete"}), frozenset[str]()
    rule = ApprovalRule("r", "1" * 32, *rules, "*", 1, frozenset({"ann"}), timedelta(days=1), "ann", NOW)
    asked = CanonicalCall(b'{"body":{}}', {"operation": "delete_key"})
    made, _ = filing.file(change, Caller("user1", frozenset(), ()), [rule], asked, "k0", {}, "local", NOW)
    bound_to = sealed_columns.approval(made.approval_id, made.requester, "result")
    change.replace(made, replace(made, result=change.derived_keys.seal(b"answer", bound_to)))


@pytest.fixture
def vault(settings: Settings) -> Iterator[Vault]:
    """A vault with something sealed in every column that can hold it."""
    opened = open_vault(settings)
    with opened.change() as change:
        ensure_signing_key(change, NOW)
        for number in range(KEYS):
            make_key(change, f"k{number}", "user1", KIND, material(number), NOW)
        first, renamed, revoked = (change.key_by_id(f"k{number}") for number in range(3))
        assert first is not None
        assert renamed is not None
        assert revoked is not None
        make_version(change, first, KIND, NOW)
        change.replace(renamed, replace(renamed, key_id="renamed", former_id="k1"))
        revoke(change, revoked, RevocationReason.SUPERSEDED, NOW)
        access_keys.mint(change, Caller("user1", frozenset(), ()), NOW, NOW + timedelta(days=1))
        sealed = change.derived_keys.seal(b"private", sealed_columns.wrapping_key("w" * 32, "user1"))
        change.insert(WrappingKey("w" * 32, "user1", "HPKE", sealed, NOW))
        target, secret = targets.sealed(change.derived_keys, "2" * 24, "https://example.com", "s")
        kind, status = Channel.WEBHOOK, NoticeStatus.ENABLED
        change.insert(Notice("2" * 24, "user1", False, kind, target, secret, frozenset(), "*", status, "", NOW))
        waiting(change)
        for number in range(120):
            change.record(f"entry {number}")
    yield opened
    opened.close()


def begun(settings: Settings, vault: Vault) -> int:
    return root_keys.begin(vault, root_keys.Rewrap(Seals(settings), vault.derived_keys.vault_id), utc_now(), "begun")


def renewed(vault: Vault, **given: Any) -> root_keys.Left | None:
    return root_keys.renew_rows(vault, utc_now, lambda: None, **given)


def changed(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    assert renewed(vault) == root_keys.Left((), vault.derived_keys.current)
    root_keys.end(vault, vault.derived_keys.current, "ended")


def raw(vault: Vault, table: Table) -> list[dict[str, Any]]:
    with vault.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def numbers(vault: Vault) -> set[int]:
    """The root keys under which there is anything."""
    found = set()
    for table in tables.authenticated_tables():
        for row in raw(vault, table):
            found.add(number_of_code(bytes(row["mac"])))
            for name, column in sealed_columns_of(table):
                if row[name] is not None and column in sealed_columns.SEALED_COLUMNS:
                    found.add(number_of_sealed(bytes(row[name])))
    (head,) = raw(vault, tables.head)
    return found | {number_of_sealed(bytes(head["sealed"]))}


def sealed_columns_of(table: Table) -> list[tuple[str, tuple[str, str]]]:
    return [(column.name, (str(table.name), column.name)) for column in table.columns]


def everything_opens(vault: Vault) -> None:
    keys = vault.derived_keys
    with vault.read() as snapshot:
        for number in range(KEYS):
            key = snapshot.key_by_id("renamed" if number == 1 else f"k{number}")
            assert key is not None
            assert snapshot.material(key, snapshot.versions(key)[0]) == material(number)
        (client,) = snapshot.select(Client)
        assert authentication.totp_secret(snapshot, client)
        (access_key,) = snapshot.select(AccessKey)
        assert access_keys.secret_of(keys, access_key) is not None
        (signing,) = snapshot.select(ServiceKey)
        assert keys.open(signing.material, sealed_columns.service_key(signing.name))
        (wrapping,) = snapshot.select(WrappingKey)
        assert keys.open(wrapping.material, sealed_columns.wrapping_key("w" * 32, "user1")) == b"private"
        (notice,) = snapshot.select(Notice)
        assert targets.target_of(keys, notice) == "https://example.com"
        (approval,) = snapshot.select(Approval)
        assert (filing.content_of(snapshot, approval), deciding.result_of(snapshot, approval)) == (
            b'{"body":{}}',
            b"answer",
        )
    assert wrong_tables(vault) == []
    assert list(altered_rows(vault)) == []


def test_every_binary_column_is_known_to_be_sealed_or_not() -> None:
    binary = {
        (str(table.name), column.name)
        for table in tables.authenticated_tables()
        for column in table.columns
        if isinstance(column.type, LargeBinary) and column.type.length is None
    }
    assert {each for each in binary if each[1] not in NOT_SEALED} == sealed_columns.SEALED_COLUMNS


def test_afterwards_everything_is_under_the_new_root_key(settings: Settings, vault: Vault) -> None:
    old = vault.derived_keys.keyset
    changed(settings, vault)
    assert numbers(vault) == {2}
    assert vault.derived_keys.keyset.root_keys.keys() == {2}
    everything_opens(vault)
    vault.engine.dispose()
    again = open_vault(settings)
    assert again.derived_keys.keyset.root_keys.keys() == {2}
    assert again.derived_keys.keyset.root_keys[2] != old.root_keys[1]
    everything_opens(again)
    assert {row["slot"] for row in raw(again, tables.keyslots)} == {"seal"}
    assert raw(again, tables.root_keys) == []
    changed(settings, again)  # and once more
    assert numbers(again) == {3}
    everything_opens(again)
    again.close()


def test_another_process_learns_the_new_root_key_as_it_reads_and_writes(settings: Settings, vault: Vault) -> None:
    other = open_vault(settings, Unsealed(vault.derived_keys.keyset))
    begun(settings, vault)
    with other.change() as change:
        make_key(change, "meanwhile", "user1", KIND, material(7), NOW)
    assert other.derived_keys.current == 2
    assert other.unsealed is not None
    assert other.unsealed.keyset().root_keys.keys() == {1, 2}
    everything_opens(other)
    third = open_vault(settings, Unsealed(vault.derived_keys.keyset.since(1)))
    assert renewed(other) == root_keys.Left((), 2)
    root_keys.end(other, other.derived_keys.current, "ended")
    with third.read() as snapshot:
        snapshot.head()
    assert third.derived_keys.keyset.root_keys.keys() == {2}
    everything_opens(third)
    third.close()
    other.close()


def test_a_process_that_slept_through_it_says_that_it_must_be_restarted(settings: Settings, vault: Vault) -> None:
    asleep = open_vault(settings, Unsealed(vault.derived_keys.keyset))
    changed(settings, vault)
    with pytest.raises(Unavailable, match="Restart"), asleep.read() as snapshot:
        snapshot.head()
    with pytest.raises(Unavailable, match="Restart"), asleep.change() as change:
        change.record("never")
    assert asleep.host.distrust is None
    asleep.close()


def test_a_process_that_starts_in_the_middle_learns_it(settings: Settings, vault: Vault) -> None:
    before = Unsealed(vault.derived_keys.keyset)  # no process of this host has met the new root key yet
    begun(settings, vault)
    started = open_vault(settings, before)
    everything_opens(started)
    assert before.keyset().root_keys.keys() == {1, 2}
    started.close()


def test_a_process_that_slept_is_told_by_another_of_its_host(settings: Settings, vault: Vault) -> None:
    shared = Unsealed(vault.derived_keys.keyset)
    asleep, awake = open_vault(settings, shared), open_vault(settings, shared)
    begun(settings, vault)
    everything_opens(awake)
    assert renewed(vault) == root_keys.Left((), 2)
    root_keys.end(vault, vault.derived_keys.current, "ended")
    everything_opens(awake)
    with asleep.change() as change:
        change.record("awake again")
    everything_opens(asleep)
    awake.close()
    asleep.close()


def test_another_process_goes_on_where_one_ended(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    stops = iter([False, False, True])
    assert renewed(vault, is_stopping=lambda: next(stops)) is None
    assert numbers(vault) == {1, 2}
    everything_opens(vault)
    vault.engine.dispose()
    other = open_vault(settings)
    seen: list[root_keys.Progress] = []
    assert renewed(other) is None  # the claim of the first is not over yet
    assert root_keys.renew_rows(other, in_two_minutes, lambda: None, progress=seen.append) == root_keys.Left((), 2)
    assert seen[-1].done >= KEYS
    root_keys.end(other, other.derived_keys.current, "ended")
    root_keys.end(other, other.derived_keys.current, "ended twice")
    assert numbers(other) == {2}
    everything_opens(other)
    other.close()


def test_what_is_replaced_meanwhile_is_renewed_too(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    with vault.change() as change:  # gives the rows codes under the new root key; what is sealed in them stays
        for version in change.select(KeyVersion):
            change.replace(version, replace(version, expires_at=version.expires_at + timedelta(days=1)))
        (client,) = change.select(Client)
        change.replace(client, replace(client, last_totp_step=1))
        (notice,) = change.select(Notice)
        change.replace(notice, replace(notice, key_pattern="k*"))
    assert numbers(vault) == {1, 2}
    assert renewed(vault) == root_keys.Left((), 2)
    root_keys.end(vault, 2, "ended")
    assert numbers(vault) == {2}
    vault.engine.dispose()
    again = open_vault(settings)
    everything_opens(again)
    again.close()


def test_who_is_late_does_not_end_the_next_change(settings: Settings, vault: Vault) -> None:
    late = open_vault(settings, Unsealed(vault.derived_keys.keyset))
    begun(settings, vault)

    def others_end_it_and_begin_the_next() -> None:
        if vault.derived_keys.current == 2:
            assert root_keys.renew_rows(vault, in_two_minutes, lambda: None) == root_keys.Left((), 2)
            root_keys.end(vault, 2, "ended")
            begun(settings, vault)

    assert root_keys.renew_rows(late, utc_now, others_end_it_and_begin_the_next) is None  # the next one is under way
    root_keys.end(late, 2, "ended too late")
    assert vault.derived_keys.keyset.root_keys.keys() == {2, 3}
    vault.engine.dispose()
    again = open_vault(settings)
    everything_opens(again)
    again.close()
    late.close()


def put_back(vault: Vault, before: dict[str, list[dict[str, Any]]]) -> None:
    with vault.engine.execution_options(kms_writes=True).begin() as connection:
        for name, rows in before.items():
            table = tables.metadata.tables[name]
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)


def test_nothing_is_written_under_a_root_key_that_a_failover_lost(settings: Settings, vault: Vault) -> None:
    before = {table.name: raw(vault, table) for table in [*tables.authenticated_tables(), tables.vault, tables.head]}
    worker = open_vault(settings, Unsealed(vault.derived_keys.keyset))
    begun(settings, vault)
    everything_opens(worker)
    assert worker.derived_keys.current == 2
    put_back(vault, before)
    operator = open_vault(settings)
    accept(operator, "accepted")
    with pytest.raises(Unavailable, match="Restart this node"), worker.change() as change:
        make_key(change, "lost", "user1", KIND, material(7), NOW)
    for each in (vault, worker, operator):
        each.engine.dispose()
    again = open_vault(settings)
    with again.change() as change:
        make_key(change, "kept", "user1", KIND, material(7), NOW)
    everything_opens(again)
    again.close()


def test_a_head_from_before_that_is_put_back_can_be_accepted(settings: Settings, vault: Vault) -> None:
    before = {"head": raw(vault, tables.head)}
    memory = Memory(vault)
    memory.start()
    changed(settings, vault)
    put_back(vault, before)
    with pytest.raises(IntegrityFailure, match="under root key 1"):
        vault.require_newest()
    with pytest.raises(IntegrityFailure, match="under root key 1"), vault.change() as change:
        change.record("never")
    with pytest.raises((IntegrityFailure, Unavailable)):
        while True:
            memory.require()
    memory.stop()
    vault.engine.dispose()
    again = open_vault(settings)
    assert again.host.distrust is not None
    accept(again, "accepted")
    everything_opens(again)
    again.close()


def test_what_is_known_of_tasks_stays_known(settings: Settings, vault: Vault) -> None:
    claims.note(vault, "backup", NOW, "17")
    changed(settings, vault)
    assert claims.look(vault, "backup") == claims.Claim(microseconds(NOW), "17")


def test_offline_the_new_root_key_is_not_in_the_database(settings: Settings, vault: Vault) -> None:
    stranger = open_vault(settings, Unsealed(vault.derived_keys.keyset))  # with the old root key
    rewrap = root_keys.Rewrap(Seals(settings), vault.derived_keys.vault_id)
    root_keys.begin(vault, rewrap, utc_now(), "begun", offline=True)
    with pytest.raises(Unavailable, match="Restart"), stranger.read() as snapshot:
        snapshot.head()
    stranger.engine.dispose()
    vault.engine.dispose()
    again = open_vault(settings)  # as after a crash
    assert root_keys.renew_rows(again, in_two_minutes, lambda: None) == root_keys.Left((), 2)
    root_keys.end(again, again.derived_keys.current, "ended")
    everything_opens(again)
    again.close()


def test_only_one_change_at_a_time(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    with pytest.raises(Conflict, match="already"):
        begun(settings, vault)
    assert numbers(vault) == {1, 2}


@pytest.mark.parametrize("fails", ["wrap", "commit"])
def test_a_change_that_fails_as_it_begins_changes_nothing(
    settings: Settings, vault: Vault, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def refuse(*_: object) -> Any:
        raise StartError("The other KMS is away.")

    with monkeypatch.context() as patched:
        patched.setattr(root_keys, "sealed_again" if fails == "commit" else "_require_quiet", refuse)
        with pytest.raises(StartError):
            begun(settings, vault)
    assert vault.derived_keys.current == 1
    with vault.change() as change:
        make_key(change, "afterwards", "user1", KIND, material(8), NOW)
    assert numbers(vault) == {1}
    everything_opens(vault)
    changed(settings, vault)
    everything_opens(vault)


def test_a_seal_whose_key_was_replaced_meanwhile_wraps_nothing(settings: Settings, vault: Vault) -> None:
    (settings.data_dir / "root.key").unlink()
    Seals(settings).named("file").create()
    with pytest.raises(StartError, match="another root key"):
        begun(settings, vault)
    assert numbers(vault) == {1}


def test_what_is_put_back_from_before_is_refused(settings: Settings, vault: Vault) -> None:
    before = {table.name: raw(vault, table) for table in tables.authenticated_tables()}
    changed(settings, vault)
    with vault.engine.begin() as connection:
        connection.execute(delete(tables.key_versions))
        connection.execute(insert(tables.key_versions), before["key_versions"])
    with pytest.raises(IntegrityFailure), vault.read() as snapshot:
        snapshot.select(KeyVersion)
    assert wrong_tables(vault) == ["key_versions"]


def test_the_keyslots_from_before_open_nothing(settings: Settings, vault: Vault) -> None:
    before = raw(vault, tables.keyslots)
    changed(settings, vault)
    with vault.engine.begin() as connection:
        connection.execute(delete(tables.keyslots))
        connection.execute(insert(tables.keyslots), before)
    vault.engine.dispose()
    with pytest.raises(StartError, match="another root key"):
        open_vault(settings)


def test_rows_that_are_not_authentic_are_left_and_named(settings: Settings, vault: Vault) -> None:
    with vault.engine.begin() as connection:
        connection.execute(tables.clients.update().values(status="disabled"))
    begun(settings, vault)
    assert renewed(vault) == root_keys.Left(("clients user1",), 2)
    assert list(altered_rows(vault)) == ["clients user1"]  # and not made authentic


def test_what_is_remembered_is_forgotten_at_the_end(settings: Settings, vault: Vault) -> None:
    memory = Memory(vault)
    cache: Cache[str, int] = Cache(memory, 10)
    memory.start()
    try:
        assert cache.get("a", lambda: (1, ("key 00",))) == 1
        begun(settings, vault)
        assert renewed(vault) == root_keys.Left((), 2)
        assert cache.get("a", lambda: (2, ("key 00",))) == 1
        root_keys.end(vault, vault.derived_keys.current, "ended")
        assert cache.get("a", lambda: (2, ("key 00",))) == 2
    finally:
        memory.stop()


def test_a_value_that_was_read_just_before_still_opens(settings: Settings, vault: Vault) -> None:
    with vault.read() as snapshot:
        key = snapshot.key_by_id("k5")
        assert key is not None
        (version,) = snapshot.versions(key)
    changed(settings, vault)
    with vault.read() as snapshot:
        assert snapshot.material(key, version) == material(5)


def test_the_row_of_a_new_root_key_is_sealed_under_the_one_before(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    with vault.read() as snapshot:
        (row,) = snapshot.select(NewRootKey)
    assert number_of_sealed(row.wrapped) == 1
    root_keys.end(vault, vault.derived_keys.current, "ended")


def test_a_forged_row_that_says_it_is_under_the_new_root_key_is_named(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    forged = (2).to_bytes(4) + bytes(32)
    with vault.engine.begin() as connection:
        connection.execute(tables.clients.update().values(status="disabled", mac=forged))  # a table of one row
        connection.execute(tables.keys.update().where(tables.keys.c.key_id == "k5").values(mac=forged))
    left = renewed(vault)
    assert left is not None
    assert left.rows == tuple(altered_rows(vault))
    assert left.rows[0] == "clients user1"
    assert len(left.rows) == 2


def test_a_row_that_is_damaged_after_it_was_renewed_keeps_the_old_root_key(settings: Settings, vault: Vault) -> None:
    begun(settings, vault)
    assert renewed(vault) == root_keys.Left((), 2)
    with vault.engine.begin() as connection:
        connection.execute(tables.clients.update().values(status="disabled"))
    again = root_keys.renew_rows(vault, in_two_minutes, lambda: None)  # by who goes on where this one died now
    assert again == root_keys.Left(("clients user1",), 2)


def test_who_goes_on_names_what_the_one_before_has_left(
    settings: Settings, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_keys, "_KEEP_SECONDS", -1.0)
    with vault.engine.begin() as connection:
        connection.execute(tables.clients.update().values(status="disabled"))
    begun(settings, vault)
    seen: list[root_keys.Progress] = []
    assert renewed(vault, progress=seen.append, is_stopping=lambda: seen[-1].done > 200) is None  # in key_versions
    assert claims.look(vault, root_keys.TASK).position.startswith("2 clients ")
    assert root_keys.renew_rows(vault, in_two_minutes, lambda: None) == root_keys.Left(("clients user1",), 2)


def test_who_slept_through_a_whole_change_takes_nothing_for_altered(settings: Settings, vault: Vault) -> None:
    asleep = open_vault(settings, Unsealed(vault.derived_keys.keyset))
    begun(settings, vault)

    def others_change_it_twice() -> None:
        if vault.derived_keys.current == 2:
            assert root_keys.renew_rows(vault, in_two_minutes, lambda: None) == root_keys.Left((), 2)
            root_keys.end(vault, 2, "ended")
            changed(settings, vault)

    with pytest.raises(Unavailable, match="Restart"):
        root_keys.renew_rows(asleep, utc_now, others_change_it_twice)
    asleep.close()
