"""Notices: who is told of what, and what is still to be sent."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the tables, and the index by which keys are found that expire soon."""
    op.create_index("ix_key_versions_expires_at", "key_versions", ["expires_at"])
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.String(32), primary_key=True),
        sa.Column("client_id", sa.String(64), nullable=False, index=True),
        sa.Column("every_owner", sa.Boolean, nullable=False, index=True),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("target", sa.LargeBinary, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("key_pattern", sa.String(129), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "notice_outbox",
        sa.Column("delivery_id", sa.String(64), primary_key=True),
        sa.Column("notice_id", sa.String(32), nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("key_uid", sa.LargeBinary(16)),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger),
        sa.Column("last_fault", sa.Text, nullable=False),
        sa.Column("settled_at", sa.BigInteger, index=True),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_notice_outbox_due", "notice_outbox", ["next_attempt_at", "notice_id"])
    op.create_index("ix_notice_outbox_notice", "notice_outbox", ["notice_id", "next_attempt_at"])
    op.create_table(
        "notice_marks",
        sa.Column("days", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("key_uid", sa.LargeBinary(16), nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
