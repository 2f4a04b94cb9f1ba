"""The tables of who may call: clients, what proves them, their sessions, groups and grants."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, String, Table, Text

from kms.vault.columns import added, mac, metadata

clients = Table(
    "clients",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("roles", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("totp_secret", LargeBinary, nullable=False),
    Column("last_totp_step", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("code_hash", LargeBinary(32), primary_key=True),
    mac(),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token_hash", LargeBinary(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    added("session_id", String(24), "", index=True),
    added("scope", Text, ""),
    added("credential", String(160), "secret"),
    added("subject", Text, ""),
    added("parent", LargeBinary(32), None, index=True),
    added("second_factor_at", BigInteger, None),
    mac(),
)

public_keys = Table(
    "public_keys",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("kid", String(64), primary_key=True),
    Column("jwk", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    mac(),
)

passkeys = Table(
    "passkeys",
    metadata,
    Column("passkey_id", String(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("credential_id", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("backup_eligible", Boolean, nullable=False),
    Column("transports", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    mac(),
)

ended_certificates = Table(
    "ended_certificates",
    metadata,
    Column("client_id", String(64), primary_key=True),
    Column("thumbprint", String(64), primary_key=True),
    Column("ended_at", BigInteger, nullable=False),
    mac(),
)

issuers = Table(
    "issuers",
    metadata,
    Column("issuer_id", String(32), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("audience", Text, nullable=False),
    Column("jwks", Text, nullable=False),
    Column("jwks_uri", Text, nullable=False),
    Column("fetched_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

issuer_roles = Table(
    "issuer_roles",
    metadata,
    Column("role", String(64), primary_key=True),
    Column("issuer_id", String(32), nullable=False, index=True),
    Column("claims", Text, nullable=False),
    Column("client_id", String(64), nullable=False, index=True),
    Column("scope", Text, nullable=False),
    Column("token_lifetime", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

used_assertions = Table(
    "used_assertions",
    metadata,
    Column("assertion_hash", LargeBinary(32), primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
    mac(),
)

groups = Table(
    "groups",
    metadata,
    Column("group_name", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    mac(),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_name", String(64), primary_key=True),
    Column("client_id", String(64), primary_key=True, index=True),
    mac(),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("access_key_id", String(32), primary_key=True),
    Column("client_id", String(64), nullable=False, index=True),
    Column("secret", LargeBinary, nullable=False),
    Column("session_token_hash", LargeBinary(32)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    added("scope", Text, ""),
    added("credential", String(160), "secret"),
    added("subject", Text, ""),
    added("second_factor_at", BigInteger, None),
    added("needs_second_factor", Boolean, 0),
    mac(),
)

grants = Table(
    "grants",
    metadata,
    Column("grant_id", String(32), primary_key=True),
    Column("owner", String(64), nullable=False, index=True),
    Column("subject", String(80), nullable=False, index=True),
    Column("permission", String(32), nullable=False),
    Column("key_pattern", String(129), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    added("more_permissions", Text, ""),
    added("context_rule", String(16), "none"),
    added("context", Text, "{}"),
    added("retired_by", String(80), ""),
    added("name", String(256), ""),
    added("words", Text, ""),
    added("effect", String(8), "allow"),
    added("source", Text, ""),
    added("not_before", BigInteger, None),
    added("not_after", BigInteger, None),
    added("second_factor_within", BigInteger, None),
    mac(),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("subject", LargeBinary(32), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("locked_until", BigInteger, nullable=False),
    mac(),
)
