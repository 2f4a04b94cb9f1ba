"""The tables of approvals: which calls need other people, and the calls that wait for them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from kms.vault.columns import mac, metadata

approval_rules = Table(
    "approval_rules",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("revision", String(32), nullable=False),
    Column("permissions", Text, nullable=False),
    Column("operations", Text, nullable=False),
    Column("key_pattern", String(129), nullable=False),
    Column("approvals", Integer, nullable=False),
    Column("approvers", Text, nullable=False),
    Column("expires_in", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("lifted_until", BigInteger),
    mac(),
)

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", String(32), primary_key=True),
    Column("requester", String(64), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("request_hash", LargeBinary(32), nullable=False),
    Column("same_as", LargeBinary(32), nullable=False),
    Column("shown", Text, nullable=False),
    Column("rules", Text, nullable=False),
    Column("given", Text, nullable=False),
    Column("asked", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("began_at", BigInteger),
    Column("decided_at", BigInteger),
    Column("decided_by", String(64), nullable=False),
    Column("failure", Text, nullable=False),
    Column("result", LargeBinary),
    mac(),
    Index("ix_approvals_state", "state", "expires_at"),
    Index("ix_approvals_requester", "requester", "state"),
    Index("ix_approvals_decided", "decided_at"),
)
