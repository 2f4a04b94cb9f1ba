"""Approvals: rules that make calls wait for other people, and the calls that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
compatible_from = "0012"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "approval_rules",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("revision", sa.String(32), nullable=False),
        sa.Column("permissions", sa.Text, nullable=False),
        sa.Column("operations", sa.Text, nullable=False),
        sa.Column("key_pattern", sa.String(129), nullable=False),
        sa.Column("approvals", sa.Integer, nullable=False),
        sa.Column("approvers", sa.Text, nullable=False),
        sa.Column("expires_in", sa.BigInteger, nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("lifted_until", sa.BigInteger),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "approvals",
        sa.Column("approval_id", sa.String(32), primary_key=True),
        sa.Column("requester", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("request_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("same_as", sa.LargeBinary(32), nullable=False),
        sa.Column("shown", sa.Text, nullable=False),
        sa.Column("rules", sa.Text, nullable=False),
        sa.Column("given", sa.Text, nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.BigInteger),
        sa.Column("decided_at", sa.BigInteger),
        sa.Column("decided_by", sa.String(64), nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("result", sa.LargeBinary),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_approvals_state", "approvals", ["state", "expires_at"])
    op.create_index("ix_approvals_requester", "approvals", ["requester", "state"])
    op.create_index("ix_approvals_decided", "approvals", ["decided_at"])
