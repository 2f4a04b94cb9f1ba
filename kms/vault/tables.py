"""The schema, as the migrations leave it. Times are microseconds since 1970, periods seconds, sets sorted words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, MetaData, String, Table, Text, and_, select

metadata = MetaData()


def _mac() -> Column[bytes]:
    """The row's authentication code (see `integrity`)."""
    return Column("mac", LargeBinary, nullable=False)


def _added(name: str, kind: Any, default: str | int | None, **options: Any) -> Column[Any]:
    """A column that came later: a row that holds `default` there has the code that it had before."""
    return Column(name, kind, nullable=default is None, info={"default": default}, **options)


vault = Table(
    "vault",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("vault_id", LargeBinary, nullable=False),
    Column("seal", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("check_value", LargeBinary, nullable=False),
)

head = Table(
    "head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("names", LargeBinary, nullable=False),
    Column("code", LargeBinary(32), nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", String(32), primary_key=True),
    Column("host", String(255), nullable=False),
    Column("beats", BigInteger, nullable=False),
    Column("leaving", Integer, nullable=False),
)

claims = Table(
    "claims",
    metadata,
    Column("task", String(32), primary_key=True),
    Column("claimed_until", BigInteger, nullable=False),
    Column("position", String(255), nullable=False),
    Column("code", LargeBinary(32), nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("uid", LargeBinary(16), primary_key=True),
    Column("key_id", String(128), nullable=False, unique=True),
    Column("type", String(32), nullable=False),
    Column("owner", String(64), nullable=False, index=True),
    Column("usages", Text, nullable=False),
    Column("exportable", Boolean, nullable=False),
    Column("cryptoperiod", BigInteger, nullable=False),
    Column("rotation_period", BigInteger),
    Column("next_rotation_at", BigInteger, index=True),
    Column("latest_version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("labels", Text, nullable=False),
    _added("description", Text, ""),
    _added("origin", String(16), "generated"),
    _added("oldest_version", Integer, 1),
    _added("min_protect_version", Integer, 1),
    _added("min_process_version", Integer, 1),
    _added("deletion_at", BigInteger, None, index=True),
    _added("region", String(32), ""),
    _added("replicas", Text, ""),
    _added("replica_descriptions", Text, "{}"),
    _added("replica_labels", Text, "{}"),
    _added("policy", Text, ""),
    _added("former_id", String(128), ""),
    _added("exportable_later", Boolean, 0),
    _mac(),
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias", String(256), primary_key=True),
    Column("key_uid", LargeBinary(16), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    _added("updated_at", BigInteger, None),
    _mac(),
)

message_counts = Table(
    "message_counts",
    metadata,
    Column("key_uid", LargeBinary(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("claimed", BigInteger, nullable=False),
    _mac(),
)

last_uses = Table(
    "last_uses",
    metadata,
    Column("key_uid", LargeBinary(16), primary_key=True),
    Column("operation", String(64), nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("request_id", String(64), nullable=False),
    _mac(),
)

mounts = Table(
    "mounts",
    metadata,
    Column("mount", String(32), primary_key=True),
    Column("description", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    _mac(),
)

wrapping_keys = Table(
    "wrapping_keys",
    metadata,
    Column("wrapping_key_id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("algorithm", String(32), nullable=False),
    Column("material", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    _mac(),
)

key_versions = Table(
    "key_versions",
    metadata,
    Column("key_uid", LargeBinary(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("type", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("activate_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("process_until", BigInteger, nullable=False),
    Column("material", LargeBinary),
    Column("public_key", LargeBinary),
    Column("revocation_reason", String(32)),
    Column("changed_at", BigInteger),
    _added("fingerprint", LargeBinary, None),
    _added("material_until", BigInteger, None, index=True),
    _mac(),
)

clients = Table(
    "clients",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("roles", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("totp_secret", LargeBinary, nullable=False),
    Column("last_totp_step", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    _mac(),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("code_hash", LargeBinary(32), primary_key=True),
    _mac(),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    _mac(),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("access_key_id", String(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("secret", LargeBinary, nullable=False),
    Column("session_token_hash", LargeBinary(32)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    _mac(),
)

grants = Table(
    "grants",
    metadata,
    Column("grant_id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("subject", String(80), nullable=False, index=True),
    Column("permission", String(32), nullable=False),
    Column("key_pattern", String(129), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    _added("more_permissions", Text, ""),
    _added("context_rule", String(16), "none"),
    _added("context", Text, "{}"),
    _added("retired_by", String(80), ""),
    _added("name", String(256), ""),
    _added("words", Text, ""),
    _mac(),
)

revocations = Table(
    "revocations",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("key_uid", LargeBinary(16), nullable=False, index=True),
    Column("key_id", String(128), nullable=False),
    Column("up_to_version", Integer, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("revoked_at", BigInteger, nullable=False),
    Column("compromised_at", BigInteger),
    _mac(),
)

service_keys = Table(
    "service_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("material", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    _mac(),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", LargeBinary(32), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("locked_until", BigInteger, nullable=False),
    _mac(),
)

audit_outbox = Table(
    "audit_outbox",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    _mac(),
)

_is_latest = and_(key_versions.c.key_uid == keys.c.uid, key_versions.c.version == keys.c.latest_version)
keys_with_latest = select(keys, key_versions).select_from(keys.outerjoin(key_versions, _is_latest))
"""Keys, each with its latest version."""


def authenticated_tables() -> list[Table]:
    """The tables whose rows carry a code, by name."""
    return [table for table in metadata.sorted_tables if "mac" in table.columns]


def digested_tables() -> list[Table]:
    """Those of them whose digest is in the head. The outbox only grows, and its numbers have no gaps."""
    return [table for table in authenticated_tables() if table is not audit_outbox]
