"""What the key service needs: more about each key, aliases, message counts, wrapping keys.

Rows of before keep their authentication codes: see `integrity.canonical`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _mac() -> sa.Column[bytes]:
    return sa.Column("mac", sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Add columns and tables."""
    op.add_column("keys", sa.Column("description", sa.Text, nullable=False, server_default=""))
    op.add_column("keys", sa.Column("origin", sa.String(16), nullable=False, server_default="generated"))
    for name in ("oldest_version", "min_protect_version", "min_process_version"):
        op.add_column("keys", sa.Column(name, sa.Integer, nullable=False, server_default="1"))
    op.add_column("keys", sa.Column("deletion_at", sa.BigInteger))
    op.create_index("ix_keys_deletion_at", "keys", ["deletion_at"])
    op.create_table(
        "aliases",
        sa.Column("alias", sa.String(256), primary_key=True),
        sa.Column("key_uid", sa.LargeBinary(16), nullable=False, index=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "message_counts",
        sa.Column("key_uid", sa.LargeBinary(16), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("claimed", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "wrapping_keys",
        sa.Column("wrapping_key_id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("algorithm", sa.String(32), nullable=False),
        sa.Column("material", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        _mac(),
    )
