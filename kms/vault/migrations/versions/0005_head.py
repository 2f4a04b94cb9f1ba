"""One head over everything, changes by name, the nodes that are alive, and claims on what is done once.

The old tallies and the epoch stay until the vault is opened: the head that takes their place is made with a key.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "changes",
        sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("names", sa.LargeBinary, nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(32), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("beats", sa.BigInteger, nullable=False),
        sa.Column("leaving", sa.Integer, nullable=False),
    )
    op.create_table(
        "claims",
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("claimed_until", sa.BigInteger, nullable=False),
        sa.Column("position", sa.String(255), nullable=False),
        sa.Column("code", sa.LargeBinary(32), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":  # SQLite's integers have 64 bits
        op.alter_column("audit_outbox", "sequence", type_=sa.BigInteger)
