"""What AWS and Vault clients know.

Grants of several permissions and with a context, keys in several regions, lent material, when a key was used last;
further mounts.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns."""
    op.add_column("key_versions", sa.Column("fingerprint", sa.LargeBinary))
    op.add_column("key_versions", sa.Column("material_until", sa.BigInteger))
    op.create_index("ix_key_versions_material_until", "key_versions", ["material_until"])
    for name in ("replicas", "policy"):
        op.add_column("keys", sa.Column(name, sa.Text, nullable=False, server_default=""))
    for name, kind, default in (
        ("more_permissions", sa.Text, ""),
        ("context_rule", sa.String(16), "none"),
        ("context", sa.Text, "{}"),
        ("retired_by", sa.String(80), ""),
        ("name", sa.String(256), ""),
        ("words", sa.Text, ""),
    ):
        op.add_column("grants", sa.Column(name, kind, nullable=False, server_default=default))
    op.create_table(
        "last_uses",
        sa.Column("key_uid", sa.LargeBinary(16), primary_key=True),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "mounts",
        sa.Column("mount", sa.String(32), primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
