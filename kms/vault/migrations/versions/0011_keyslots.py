"""Root keys that can be changed, wrapped by seals that can be changed."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "keyslots",
        sa.Column("slot", sa.String(16), primary_key=True),
        sa.Column("seal", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "root_keys",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
