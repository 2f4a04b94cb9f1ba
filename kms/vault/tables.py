"""The schema, as the migrations leave it. Times are microseconds since 1970, periods seconds, sets sorted words."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table, Text, and_, select

from kms.vault.access_tables import access_keys as access_keys
from kms.vault.access_tables import clients as clients
from kms.vault.access_tables import ended_certificates as ended_certificates
from kms.vault.access_tables import grants as grants
from kms.vault.access_tables import group_members as group_members
from kms.vault.access_tables import groups as groups
from kms.vault.access_tables import issuer_roles as issuer_roles
from kms.vault.access_tables import issuers as issuers
from kms.vault.access_tables import login_failures as login_failures
from kms.vault.access_tables import passkeys as passkeys
from kms.vault.access_tables import public_keys as public_keys
from kms.vault.access_tables import recovery_codes as recovery_codes
from kms.vault.access_tables import tokens as tokens
from kms.vault.access_tables import used_assertions as used_assertions
from kms.vault.approval_tables import approval_rules as approval_rules
from kms.vault.approval_tables import approvals as approvals
from kms.vault.audit_tables import audit_log as audit_log
from kms.vault.audit_tables import audit_outbox as audit_outbox
from kms.vault.audit_tables import audit_spools as audit_spools
from kms.vault.columns import added, mac
from kms.vault.columns import metadata as metadata
from kms.vault.notice_tables import notice_marks as notice_marks
from kms.vault.notice_tables import notice_outbox as notice_outbox
from kms.vault.notice_tables import notices as notices

vault = Table(
    "vault",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("vault_id", LargeBinary, nullable=False),
    Column("seal", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("check_value", LargeBinary, nullable=False),
)

keyslots = Table(
    "keyslots",
    metadata,
    Column("slot", String(16), primary_key=True),
    Column("seal", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    mac(),
)

root_keys = Table(
    "root_keys",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
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
    Column("release", String(32), nullable=False),
    Column("revision", String(16), nullable=False),
    Column("clock_offset", BigInteger, nullable=False),
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
    added("description", Text, ""),
    added("origin", String(16), "generated"),
    added("oldest_version", Integer, 1),
    added("min_protect_version", Integer, 1),
    added("min_process_version", Integer, 1),
    added("deletion_at", BigInteger, None, index=True),
    added("region", String(32), ""),
    added("replicas", Text, ""),
    added("replica_descriptions", Text, "{}"),
    added("replica_labels", Text, "{}"),
    added("policy", Text, ""),
    added("former_id", String(128), ""),
    added("exportable_later", Boolean, 0),
    mac(),
)

aliases = Table(
    "aliases",
    metadata,
    Column("alias", String(256), primary_key=True),
    Column("key_uid", LargeBinary(16), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    added("updated_at", BigInteger, None),
    mac(),
)

message_counts = Table(
    "message_counts",
    metadata,
    Column("key_uid", LargeBinary(16), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("claimed", BigInteger, nullable=False),
    mac(),
)

last_uses = Table(
    "last_uses",
    metadata,
    Column("key_uid", LargeBinary(16), primary_key=True),
    Column("operation", String(64), nullable=False),
    Column("used_at", BigInteger, nullable=False),
    Column("request_id", String(64), nullable=False),
    mac(),
)

mounts = Table(
    "mounts",
    metadata,
    Column("mount", String(32), primary_key=True),
    Column("description", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

wrapping_keys = Table(
    "wrapping_keys",
    metadata,
    Column("wrapping_key_id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("algorithm", String(32), nullable=False),
    Column("material", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    mac(),
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
    Column("expires_at", BigInteger, nullable=False, index=True),
    Column("process_until", BigInteger, nullable=False),
    Column("material", LargeBinary),
    Column("public_key", LargeBinary),
    Column("revocation_reason", String(32)),
    Column("changed_at", BigInteger),
    added("fingerprint", LargeBinary, None),
    added("material_until", BigInteger, None, index=True),
    mac(),
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
    mac(),
)

revocation_leaves = Table(
    "revocation_leaves",
    metadata,
    Column("serial", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary(32), nullable=False),
    mac(),
)

service_keys = Table(
    "service_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("material", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

_is_latest = and_(key_versions.c.key_uid == keys.c.uid, key_versions.c.version == keys.c.latest_version)
keys_with_latest = select(keys, key_versions).select_from(keys.outerjoin(key_versions, _is_latest))
"""Keys, each with its latest version."""
keys_with_versions = select(keys, key_versions).join_from(keys, key_versions, key_versions.c.key_uid == keys.c.uid)
"""Keys with each of their versions."""


def authenticated_tables() -> list[Table]:
    """The tables whose rows carry a code, by name."""
    return [table for table in metadata.sorted_tables if "mac" in table.columns]


def digested_tables() -> list[Table]:
    """Those of them whose digest is in the head. The outbox's numbers have no gaps; `audit_log` has how many went."""
    return [table for table in authenticated_tables() if table is not audit_outbox]
