"""Rows in every table of a vault, and values with a bit flipped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from helpers.support import make_key, make_version
from kms.access import clients
from kms.access.access_keys import AccessKey
from kms.access.groups import Group, GroupMember
from kms.access.issuers import Issuer, IssuerRole
from kms.access.lockout import count_failure
from kms.access.model import Grant, Role, Token, UsedAssertion
from kms.access.passkeys import Passkey
from kms.access.public_keys import EndedCertificate, PublicKey
from kms.approvals.model import Approval, ApprovalRule, ApprovalState
from kms.crypto.registry import key_type
from kms.keys.model import Alias, RevocationReason
from kms.notices.model import Channel, Delivery, DeliveryState, Event, ExpiryMark, Notice, NoticeStatus
from kms.revocation.leaves import RevocationLeaf
from kms.revocation.published import ensure_signing_key
from kms.revocation.revoke import revoke
from kms.vault.rows import AuditLog, FoldedSpool, LastUse, MessageCount, Mount, NewRootKey, WrappingKey
from kms.vault.store import Vault

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fill(opened: Vault) -> None:
    """Put at least one row into every table whose rows carry a code."""
    kind = key_type("xaes-256-gcm")
    with opened.change() as change:
        ensure_signing_key(change, NOW)
        clients.create(change, "user1", frozenset({Role.USER}), NOW)
        for key_id in ("user1_symmetric", "other"):
            make_key(change, key_id, "user1", kind, kind.generate(), NOW)
        key = change.key_by_id("user1_symmetric")
        assert key is not None
        make_version(change, key, kind, NOW)
        change.insert(Grant("0" * 32, "user1", "client:user2", "keys:encrypt", "user1_*", NOW))
        change.insert(Token(b"t" * 32, "user1", NOW, NOW))
        count_failure(change, "user1", "10.0.0.1", NOW)
        change.insert(
            Alias("another_name", key.uid, NOW),
            MessageCount(key.uid, 1, 65536),
            LastUse(key.uid, "encrypt", NOW, "0" * 16),
            Mount("team1", "of team 1", NOW),
            WrappingKey("0" * 32, "user1", "HPKE", b"sealed", NOW),
            AccessKey("A" * 20, "user1", b"sealed", None, NOW, NOW),
            PublicKey("user1", "kid1", {"kty": "OKP"}, NOW, None),
            Passkey("p" * 32, "user1", b"c" * 32, b"cose", 1, False, frozenset({"usb"}), "laptop", NOW, None),
            Issuer("1" * 24, "https://issuer.example", "kms", "{}", "", None, NOW),
            IssuerRole("pay", "1" * 24, {"sub": "a*"}, "user1", frozenset(), None, NOW),
            EndedCertificate("user1", "c" * 64, NOW),
            UsedAssertion(b"a" * 32, NOW),
            Group("team", "of people", NOW),
            GroupMember("team", "user1"),
            Notice(
                "2" * 24,
                "user1",
                False,
                Channel.WEBHOOK,
                b"sealed",
                b"sealed",
                frozenset({Event.KEY_REVOKED}),
                "*",
                NoticeStatus.ENABLED,
                "",
                NOW,
            ),
            Delivery(
                "3" * 32,
                "2" * 24,
                Event.KEY_REVOKED,
                key.uid,
                "user1",
                {"key_id": "other"},
                NOW,
                DeliveryState.WAITING,
                0,
                NOW,
                "",
                None,
            ),
            ExpiryMark(30, NOW, b"u" * 16),
            NewRootKey(2, b"sealed", NOW),
            FoldedSpool("4" * 32, "spool-1", 4096),
            RevocationLeaf(1, b"l" * 32),
            AuditLog(1, "kms.example.com/audit", 7, b"r" * 32, "", 0, 0, NOW),
            ApprovalRule(
                "two",
                "4" * 32,
                frozenset({"keys:delete"}),
                frozenset(),
                "*",
                2,
                frozenset({"role:admin"}),
                timedelta(days=1),
                "admin",
                NOW,
            ),
            Approval(
                "5" * 32,
                "user1",
                "delete_key",
                "other",
                ApprovalState.PENDING,
                b"sealed",
                b"h" * 32,
                b"s" * 32,
                {"operation": "delete_key"},
                {"two": "4" * 32},
                {"admin": "2026-01-01T00:00:00Z"},
                {"source": "10.0.0.1"},
                NOW,
                NOW,
            ),
        )
        change.record("an entry")
        found = change.key_by_id("user1_symmetric")
        assert found is not None
        revoke(change, found, RevocationReason.SUPERSEDED, NOW)


def flipped(value: Any, bit: int) -> Any:
    """The value with one bit the other way round, chosen by `bit`; a value where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ (1 << bit % 31)
    if isinstance(value, bytes):
        position = bit % (len(value) * 8)
        return (
            value[: position // 8] + bytes([value[position // 8] ^ (1 << position % 8)]) + value[position // 8 + 1 :]
        )
    if isinstance(value, str) and value:
        position = bit % len(value)
        return value[:position] + chr(ord(value[position]) ^ (1 << bit % 6)) + value[position + 1 :]
    return 1 if value is None else "x"
