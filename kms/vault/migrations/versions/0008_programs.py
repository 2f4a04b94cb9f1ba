"""How programs log in: public keys, issuers, narrower sessions; groups, and grants with conditions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns and the tables."""
    for table in ("tokens", "access_keys"):
        op.add_column(table, sa.Column("scope", sa.Text, nullable=False, server_default=""))
        op.add_column(table, sa.Column("credential", sa.String(160), nullable=False, server_default="secret"))
        op.add_column(table, sa.Column("subject", sa.Text, nullable=False, server_default=""))
        op.add_column(table, sa.Column("second_factor_at", sa.BigInteger))
    op.add_column("tokens", sa.Column("session_id", sa.String(24), nullable=False, server_default=""))
    op.add_column("tokens", sa.Column("parent", sa.LargeBinary(32)))
    op.create_index("ix_tokens_session_id", "tokens", ["session_id"])
    op.create_index("ix_tokens_parent", "tokens", ["parent"])
    op.add_column(
        "access_keys", sa.Column("needs_second_factor", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("grants", sa.Column("effect", sa.String(8), nullable=False, server_default="allow"))
    op.add_column("grants", sa.Column("source", sa.Text, nullable=False, server_default=""))
    for name in ("not_before", "not_after", "second_factor_within"):
        op.add_column("grants", sa.Column(name, sa.BigInteger))
    op.create_table(
        "public_keys",
        sa.Column("client_id", sa.String(64), primary_key=True),
        sa.Column("kid", sa.String(64), primary_key=True),
        sa.Column("jwk", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "ended_certificates",
        sa.Column("client_id", sa.String(64), primary_key=True),
        sa.Column("thumbprint", sa.String(64), primary_key=True),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "issuers",
        sa.Column("issuer_id", sa.String(32), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("audience", sa.Text, nullable=False),
        sa.Column("jwks", sa.Text, nullable=False),
        sa.Column("jwks_uri", sa.Text, nullable=False),
        sa.Column("fetched_at", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "issuer_roles",
        sa.Column("role", sa.String(64), primary_key=True),
        sa.Column("issuer_id", sa.String(32), nullable=False, index=True),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False, index=True),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("token_lifetime", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "used_assertions",
        sa.Column("assertion_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "groups",
        sa.Column("group_name", sa.String(64), primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "group_members",
        sa.Column("group_name", sa.String(64), primary_key=True),
        sa.Column("client_id", sa.String(64), primary_key=True, index=True),
        sa.Column("mac", sa.LargeBinary, nullable=False),
    )
