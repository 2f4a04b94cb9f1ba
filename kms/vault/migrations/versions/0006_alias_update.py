"""When an alias was given to a key last."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("aliases", sa.Column("updated_at", sa.BigInteger))
