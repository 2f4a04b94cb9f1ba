"""The tables of notices: who wants to be told of what, and what is still to be sent."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, Text

from kms.vault.columns import mac, metadata

notices = Table(
    "notices",
    metadata,
    Column("notice_id", String(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("every_owner", Boolean, nullable=False, index=True),
    Column("channel", String(16), nullable=False),
    Column("target", LargeBinary, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("events", Text, nullable=False),
    Column("key_pattern", String(129), nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

notice_outbox = Table(
    "notice_outbox",
    metadata,
    Column("delivery_id", String(64), primary_key=True),
    Column("notice_id", String(32), nullable=False),
    Column("event", String(32), nullable=False),
    Column("key_uid", LargeBinary(16)),
    Column("owner", String(64), nullable=False),
    Column("data", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", BigInteger),
    Column("last_fault", Text, nullable=False),
    Column("settled_at", BigInteger, index=True),
    mac(),
    Index("ix_notice_outbox_due", "next_attempt_at", "notice_id"),
    Index("ix_notice_outbox_notice", "notice_id", "next_attempt_at"),
)

notice_marks = Table(
    "notice_marks",
    metadata,
    Column("days", Integer, primary_key=True, autoincrement=False),
    Column("until", BigInteger, nullable=False),
    Column("key_uid", LargeBinary(16), nullable=False),
    mac(),
)
