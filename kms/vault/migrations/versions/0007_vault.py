"""The id that a deleted key has given up, and whether a key may still become exportable."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("keys", sa.Column("former_id", sa.String(128), nullable=False, server_default=""))
    op.add_column("keys", sa.Column("exportable_later", sa.Boolean, nullable=False, server_default=sa.false()))
