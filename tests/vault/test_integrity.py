"""Nobody who can only write to the database changes what a key may do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import LargeBinary, Table, delete, insert, select, text, update

from helpers.every_table import NOW, fill, flipped
from kms.access import clients
from kms.access.access_keys import AccessKey
from kms.access.groups import Group, GroupMember
from kms.access.issuers import Issuer, IssuerRole
from kms.access.lockout import LoginFailures
from kms.access.model import Client, Grant, RecoveryCode, Token, UsedAssertion
from kms.access.passkeys import Passkey
from kms.access.public_keys import EndedCertificate, PublicKey
from kms.approvals.model import Approval, ApprovalRule
from kms.config import Settings
from kms.errors import IntegrityFailure
from kms.keys.model import Alias, Key, KeyVersion, RevocationReason
from kms.notices.model import Delivery, ExpiryMark, Notice
from kms.revocation.leaves import RevocationLeaf
from kms.revocation.model import Revocation
from kms.revocation.revoke import revoke
from kms.vault import tables
from kms.vault.checking import altered_rows, wrong_tables
from kms.vault.opening import open_vault
from kms.vault.records import table_of
from kms.vault.rows import (
    AuditLog,
    FoldedSpool,
    Keyslot,
    LastUse,
    MessageCount,
    Mount,
    NewRootKey,
    OutboxEntry,
    WrappingKey,
)
from kms.vault.service_keys import ServiceKey
from kms.vault.store import Vault

PROTECTED = [Key, KeyVersion, Client, Grant, Revocation, RecoveryCode, Token, ServiceKey]
PROTECTED += [LoginFailures, OutboxEntry, Alias, MessageCount, WrappingKey, AccessKey, LastUse, Mount]
PROTECTED += [Notice, Delivery, ExpiryMark, Keyslot, NewRootKey, AuditLog, FoldedSpool, ApprovalRule, Approval]
PROTECTED += [
    RevocationLeaf,
    Passkey,
    PublicKey,
    EndedCertificate,
    Issuer,
    IssuerRole,
    UsedAssertion,
    Group,
    GroupMember,
]


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """A vault with at least one row in every protected table."""
    opened = open_vault(Settings(data_dir=tmp_path_factory.mktemp("vault")))
    fill(opened)
    yield opened
    opened.engine.dispose()


def raw_rows(vault: Vault, table: Table) -> list[dict[str, Any]]:
    with vault.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def overwrite(vault: Vault, table: Table, rows: list[dict[str, Any]]) -> None:
    """What an attacker with the database's password does."""
    with vault.engine.begin() as connection:
        connection.execute(delete(table))
        if rows:
            connection.execute(insert(table), rows)


def test_every_table_with_a_code_is_tried() -> None:
    assert {table_of(cls) for cls in PROTECTED} == set(tables.authenticated_tables())


@pytest.mark.parametrize("cls", PROTECTED)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bit_flipped_in_a_row_is_detected(vault: Vault, cls: type, data: st.DataObject) -> None:
    table = table_of(cls)
    original = raw_rows(vault, table)
    row = data.draw(st.integers(0, len(original) - 1))
    column = data.draw(st.sampled_from([column.name for column in table.columns]))
    value = flipped(original[row][column], data.draw(st.integers(0, 4096)))
    if (
        value is not None
        and isinstance(original[row][column], type(None))
        and isinstance(table.c[column].type, LargeBinary)
    ):
        value = b"x"
    changed = [dict(each) for each in original]
    changed[row][column] = value
    try:
        overwrite(vault, table, changed)
        with vault.read() as snapshot, pytest.raises(IntegrityFailure):
            snapshot.select(cls)
        assert wrong_tables(vault) in ([table.name], [])  # a flipped code alone leaves the digest right
        assert any(line.startswith(f"{table.name} ") for line in altered_rows(vault))
    finally:
        overwrite(vault, table, original)
    assert wrong_tables(vault) == []
    assert not list(altered_rows(vault))


def test_an_altered_row_leaves_the_others_working(vault: Vault) -> None:
    original = raw_rows(vault, tables.keys)
    try:
        with vault.engine.begin() as connection:
            connection.execute(
                update(tables.keys).where(tables.keys.c.key_id == "user1_symmetric").values(exportable=True)
            )
        with vault.read() as snapshot:
            with pytest.raises(IntegrityFailure):
                snapshot.key_by_id("user1_symmetric")
            other = snapshot.key_by_id("other")
            assert other is not None
            assert len(snapshot.material(other, snapshot.versions(other)[0])) == 32
    finally:
        overwrite(vault, tables.keys, original)


def test_putting_an_old_row_back_is_noticed(vault: Vault) -> None:
    """The row's own code is right: only the head can tell that the revocation was undone."""
    for table in (tables.key_versions, tables.keys, tables.clients, tables.revocations):
        before = raw_rows(vault, table)
        with vault.change() as change:
            key = change.key_by_id("other")
            assert key is not None
            if table is tables.clients:
                client = clients.get(change, "user1")
                change.replace(client, replace(client, last_totp_step=client.last_totp_step + 1))
            elif table is tables.keys:
                change.replace(key, replace(key, labels={"changed": key.labels.get("changed", "") + "x"}))
            else:
                reason = (
                    RevocationReason.SUPERSEDED if table is tables.key_versions else RevocationReason.KEY_COMPROMISE
                )
                revoke(change, key, reason, NOW)
        after = raw_rows(vault, table)
        assert wrong_tables(vault) == []
        overwrite(vault, table, before)
        assert wrong_tables(vault) == [table.name]
        assert not list(altered_rows(vault))
        overwrite(vault, table, after)
        assert wrong_tables(vault) == []


@pytest.mark.parametrize("cls", PROTECTED)
def test_removing_or_doubling_a_row_is_noticed(vault: Vault, cls: type) -> None:
    table = table_of(cls)
    original = raw_rows(vault, table)
    overwrite(vault, table, original[1:])
    assert wrong_tables(vault) == [table.name]
    overwrite(vault, table, original)
    assert wrong_tables(vault) == []


def test_the_head_cannot_be_altered_or_removed(vault: Vault) -> None:
    original = raw_rows(vault, tables.head)
    names = {table.name for table in tables.authenticated_tables()}
    for forged in ([], [{**original[0], "sealed": original[0]["sealed"][:-1] + b"x"}], [{"id": 1, "sealed": b""}]):
        overwrite(vault, tables.head, forged)
        assert set(wrong_tables(vault)) == names
    overwrite(vault, tables.head, original)
    assert wrong_tables(vault) == []


def test_material_cannot_be_moved_to_another_version_or_key(vault: Vault) -> None:
    """Even someone who could make row codes could not move sealed material."""
    with vault.read() as snapshot:
        key, other = snapshot.key_by_id("user1_symmetric"), snapshot.key_by_id("other")
        assert key is not None
        assert other is not None
        first, second = snapshot.versions(key)
        for wrong_key, wrong_version in (
            (key, replace(first, material=second.material)),
            (other, replace(snapshot.versions(other)[0], material=first.material)),
            (key, replace(first, type="rsa-2048")),
            (replace(key, key_id="other"), first),
        ):
            with pytest.raises(IntegrityFailure):
                snapshot.material(wrong_key, wrong_version)


def test_a_row_of_another_vault_means_nothing(vault: Vault, tmp_path: Any) -> None:
    with open_other(tmp_path) as other:
        rows = raw_rows(other, tables.keys)
        with other.engine.begin() as connection:
            connection.execute(delete(tables.keys))
            connection.execute(insert(tables.keys), raw_rows(vault, tables.keys))
        assert rows
        with other.read() as snapshot, pytest.raises(IntegrityFailure):
            snapshot.key_by_id("other")


class open_other:  # noqa: N801  # used as a context manager
    def __init__(self, path: Any) -> None:
        self.vault = open_vault(Settings(data_dir=path / "other"))
        fill(self.vault)

    def __enter__(self) -> Vault:
        return self.vault

    def __exit__(self, *_: object) -> None:
        self.vault.engine.dispose()


def test_sqlite_is_as_durable_as_asked(vault: Vault) -> None:
    with vault.engine.connect() as connection:
        for pragma, expected in (("journal_mode", "wal"), ("synchronous", 2), ("secure_delete", 1)):
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == expected


def test_a_key_whose_latest_version_was_removed_is_not_listed_as_if_it_had_one(vault: Vault) -> None:
    rows = raw_rows(vault, tables.key_versions)
    with vault.read() as snapshot:
        key = snapshot.key_by_id("user1_symmetric")
        assert key is not None
        assert key.latest_version == 2
        listed = snapshot.keys_with_latest(order_by=tables.keys.c.key_id)
        assert [(each.key_id, latest.version) for each, latest in listed] == [("other", 1), ("user1_symmetric", 2)]
    left = [row for row in rows if (row["key_uid"], row["version"]) != (key.uid, 2)]
    try:
        overwrite(vault, tables.key_versions, left)
        with vault.read() as snapshot, pytest.raises(IntegrityFailure):
            snapshot.keys_with_latest()
    finally:
        overwrite(vault, tables.key_versions, rows)
