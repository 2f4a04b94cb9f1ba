"""A vault of the first schema is brought up to date, and its rows keep their codes."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, text, update

from helpers.support import make_key
from kms.access.model import Grant
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.errors import StartError
from kms.keys.model import Origin
from kms.vault import opening, tables
from kms.vault.checking import wrong_tables
from kms.vault.head import Head, TableDigest
from kms.vault.keyset import Keyset
from kms.vault.opening import open_vault
from kms.vault.rows import Keyslot
from kms.vault.seals.file import FileSeal
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["description", "origin", "oldest_version", "min_protect_version", "min_process_version"]
COLUMNS += ["deletion_at", "region", "replicas", "replica_descriptions", "replica_labels", "policy"]
COLUMNS += ["former_id", "exportable_later"]
OF_GRANTS = ["more_permissions", "context_rule", "context", "retired_by", "name", "words"]
OF_GRANTS += ["effect", "source", "not_before", "not_after", "second_factor_within"]
OF_TOKENS = ["session_id", "scope", "credential", "subject", "parent", "second_factor_at"]
GRANT = Grant("0" * 32, "user1", "client:user1", "keys:encrypt", "*", NOW)
TABLES = ["aliases", "message_counts", "wrapping_keys", "access_keys", "last_uses", "mounts"]
TABLES += [
    "keyslots",
    "root_keys",
    "passkeys",
    "approval_rules",
    "approvals",
    "public_keys",
    "issuers",
    "issuer_roles",
    "used_assertions",
    "ended_certificates",
    "groups",
    "group_members",
    "notices",
    "notice_outbox",
    "notice_marks",
    "audit_log",
    "audit_spools",
    "revocation_leaves",
]


@pytest.fixture(autouse=True)
def one_root_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As before there were keyslots: the key that the seal has is the root key, and all is derived from it."""
    vault_id = secrets.token_bytes(16)
    monkeypatch.setattr(opening, "new_vault_id", lambda: vault_id)
    seal = FileSeal(Settings(data_dir=tmp_path / "data"))
    monkeypatch.setattr(Keyset, "new", lambda: Keyset.of_one_root_key(seal.seal_key({}), vault_id))


def as_it_was(vault: Vault, tmp_path: Path, missing: str = "") -> None:
    """What the first schema did not have, taken away; the head as tallies, without that of the table `missing`."""
    with vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        connection.execute(text("DROP INDEX ix_keys_deletion_at"))
        for column in COLUMNS:
            connection.execute(text(f"ALTER TABLE keys DROP COLUMN {column}"))
        connection.execute(text("DROP INDEX ix_key_versions_material_until"))
        connection.execute(text("DROP INDEX ix_key_versions_expires_at"))
        for index in ("session_id", "parent"):
            connection.execute(text(f"DROP INDEX ix_tokens_{index}"))
        of_versions = ["fingerprint", "material_until"]
        for table, columns in {"grants": OF_GRANTS, "tokens": OF_TOKENS, "key_versions": of_versions}.items():
            for column in columns:
                connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        vault.host.close()
        for shared in tmp_path.glob("data/newest-*"):
            shared.unlink()
        head = Head.unsealed(vault.derived_keys, connection.execute(select(tables.head.c.sealed)).scalar_one())
        for table in [*TABLES, "head", "changes", "nodes", "claims"]:
            connection.execute(text(f"DROP TABLE {table}"))
        is_postgresql = connection.dialect.name == "postgresql"
        binary = "BYTEA" if is_postgresql else "BLOB"
        connection.execute(text(f"CREATE TABLE epoch (id INTEGER PRIMARY KEY, epoch BIGINT, mac {binary})"))
        connection.execute(text(f"CREATE TABLE tallies (table_name VARCHAR(64) PRIMARY KEY, sealed {binary})"))
        code = vault.derived_keys.row_mac(msgspec.msgpack.encode(["epoch", 1, head.epoch]))
        connection.execute(text("INSERT INTO epoch VALUES (1, :epoch, :mac)"), {"epoch": head.epoch, "mac": code})
        outbox = {"audit_outbox": TableDigest(head.last_entry, 0)}
        for name, digest in {**head.digests, **outbox}.items():
            if name not in {*TABLES, missing}:
                plain = digest.count.to_bytes(8) + digest.total.to_bytes(32)
                sealed = vault.derived_keys.seal(plain, ("tally", name))
                connection.execute(
                    text("INSERT INTO tallies VALUES (:name, :sealed)"), {"name": name, "sealed": sealed}
                )
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))


def forgotten(vault: Vault) -> None:
    """The vault's own row as the first release wrote it, which did not say of which revision it is."""
    with vault.engine.connect().execution_options(kms_writes=True) as connection, connection.begin():
        row = connection.execute(select(tables.vault)).mappings().one()
        check = vault.derived_keys.seal(b"", ("vault check", row["seal"], row["created_at"]))
        connection.execute(update(tables.vault).values(check_value=check))


def test_old_rows_stay_good(tmp_path: Path, database_url: str) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url)
    vault = open_vault(settings)
    kind = key_type("xaes-256-gcm")
    material = kind.generate()
    with vault.change() as change:
        make_key(change, "k", "user1", kind, material, NOW)
        change.insert(GRANT)
    as_it_was(vault, tmp_path)
    forgotten(vault)
    vault.engine.dispose()
    for attempt in range(2):  # the second time there is nothing to do
        vault = open_vault(settings)
        assert wrong_tables(vault) == []
        with vault.change() as change:
            key = change.key_by_id("k")
            assert key is not None
            assert (key.origin, key.description, key.oldest_version, key.deletion_at) == (
                Origin.GENERATED,
                "",
                1,
                None,
            )
            assert change.select(Grant) == [GRANT]
            (version,) = change.versions(key)
            assert change.material(key, version) == material
            make_key(change, f"k{attempt}", "user1", kind, material, NOW)
            assert change.find(Keyslot, "seal") is not None
        vault.engine.dispose()


def test_a_tally_that_was_removed_is_still_missed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    vault = open_vault(settings)
    as_it_was(vault, tmp_path, missing="clients")
    forgotten(vault)
    vault.engine.dispose()
    assert wrong_tables(open_vault(settings)) == ["clients"]


def test_a_schema_that_is_set_back_is_refused(tmp_path: Path, database_url: str) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url)
    vault = open_vault(settings)
    as_it_was(vault, tmp_path)
    vault.engine.dispose()
    with pytest.raises(StartError, match="set back"):
        open_vault(settings)
