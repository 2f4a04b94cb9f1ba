"""The first schema: vault, keys, clients, grants, revocations, audit outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _mac() -> sa.Column[bytes]:
    return sa.Column("mac", sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Make every table of the first release."""
    op.create_table(
        "vault",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("vault_id", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("check_value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "epoch",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "tallies",
        sa.Column("table_name", sa.String(64), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("uid", sa.LargeBinary(16), primary_key=True),
        sa.Column("key_id", sa.String(128), nullable=False, unique=True),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False, index=True),
        sa.Column("usages", sa.Text, nullable=False),
        sa.Column("exportable", sa.Boolean, nullable=False),
        sa.Column("cryptoperiod", sa.BigInteger, nullable=False),
        sa.Column("rotation_period", sa.BigInteger),
        sa.Column("next_rotation_at", sa.BigInteger, index=True),
        sa.Column("latest_version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        _mac(),
    )
    op.create_table(
        "key_versions",
        sa.Column("key_uid", sa.LargeBinary(16), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("activate_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("process_until", sa.BigInteger, nullable=False),
        sa.Column("material", sa.LargeBinary),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("revocation_reason", sa.String(32)),
        sa.Column("changed_at", sa.BigInteger),
        _mac(),
    )
    op.create_table(
        "clients",
        sa.Column("client_id", sa.String(64), primary_key=True),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("totp_secret", sa.LargeBinary, nullable=False),
        sa.Column("last_totp_step", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("client_id", sa.String(64), primary_key=True),
        sa.Column("code_hash", sa.LargeBinary(32), primary_key=True),
        _mac(),
    )
    op.create_table(
        "tokens",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("client_id", sa.String(64), nullable=False, index=True),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False, index=True),
        _mac(),
    )
    op.create_table(
        "grants",
        sa.Column("grant_id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False, index=True),
        sa.Column("subject", sa.String(80), nullable=False, index=True),
        sa.Column("permission", sa.String(32), nullable=False),
        sa.Column("key_pattern", sa.String(129), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "revocations",
        sa.Column("serial", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_uid", sa.LargeBinary(16), nullable=False, index=True),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("up_to_version", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.BigInteger, nullable=False),
        sa.Column("compromised_at", sa.BigInteger),
        _mac(),
    )
    op.create_table(
        "service_keys",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("material", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "login_failures",
        sa.Column("subject", sa.LargeBinary(32), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("locked_until", sa.BigInteger, nullable=False),
        _mac(),
    )
    op.create_table(
        "audit_outbox",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text, nullable=False),
        _mac(),
    )
