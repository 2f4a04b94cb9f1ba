"""How far the entries of the audit log were folded into its tree, and which of them made each revocation."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
compatible_from = "0012"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("staged", sa.String(160), nullable=False),
        sa.Column("last_folded", sa.BigInteger, nullable=False),
        sa.Column("entries_folded", sa.BigInteger, nullable=False),
        sa.Column("folded_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "audit_spools",
        sa.Column("node_id", sa.String(32), primary_key=True),
        sa.Column("spool", sa.String(64), primary_key=True),
        sa.Column("folded", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "revocation_leaves",
        sa.Column("serial", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("leaf", sa.LargeBinary(32), nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
