"""What each node runs, and how far its clock is from the database's."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
compatible_from = "0011"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("nodes", sa.Column("release", sa.String(32), nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("revision", sa.String(16), nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("clock_offset", sa.BigInteger, nullable=False, server_default="0"))
