"""When an alias was given to a key last, and what replicas of multi-region keys have for themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add columns."""
    op.add_column("aliases", sa.Column("updated_at", sa.BigInteger))
    for name in ("replica_descriptions", "replica_labels"):
        op.add_column("keys", sa.Column(name, sa.Text, nullable=False, server_default="{}"))
