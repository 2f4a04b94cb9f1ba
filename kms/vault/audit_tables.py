"""The tables of the audit log: entries on their way to its tree, and how far that has come."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, Text

from kms.vault.columns import mac, metadata

audit_outbox = Table(
    "audit_outbox",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("entry", Text, nullable=False),
    mac(),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("origin", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("staged", String(160), nullable=False),
    Column("last_folded", BigInteger, nullable=False),
    Column("entries_folded", BigInteger, nullable=False),
    Column("folded_at", BigInteger, nullable=False),
    mac(),
)

audit_spools = Table(
    "audit_spools",
    metadata,
    Column("node_id", String(32), primary_key=True),
    Column("spool", String(64), primary_key=True),
    Column("folded", BigInteger, nullable=False),
    mac(),
)
