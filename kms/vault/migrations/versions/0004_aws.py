"""What AWS clients know: grants with several permissions, a context and a name; keys in several regions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns."""
    op.add_column("keys", sa.Column("replicas", sa.Text, nullable=False, server_default=""))
    for name, kind, default in (
        ("more_permissions", sa.Text, ""),
        ("context_rule", sa.String(16), "none"),
        ("context", sa.Text, "{}"),
        ("retired_by", sa.String(80), ""),
        ("name", sa.String(256), ""),
        ("words", sa.Text, ""),
    ):
        op.add_column("grants", sa.Column(name, kind, nullable=False, server_default=default))
