"""Searching the audit log."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.entry import AuditEntry, timestamp
from kms.audit.tree import leaf_hash
from kms.errors import AuthenticationFailed, Refusal, ValidationFailed
from kms.operations import OPERATIONS

_AT_ONCE = 100
_OFTEN = ("client_id", "key_id", "operation", "outcome", "target")
_SELDOM = ("version", "session", "credential", "source", "request_id")
_FIELDS = (*_OFTEN, *_SELDOM, "since", "until")


@page("/audit")
def audit(visit: Visit) -> Response:
    """Entries by all that they can be searched for, the newest first, a page at a time."""
    given = {name: visit.query.get(name) or "" for name in _FIELDS}
    entries, next_cursor, refusal = [], None, None
    try:
        found = visit.run("audit_entries", {**_wanted(given), "cursor": visit.query.get("cursor") or None})
        entries, next_cursor = found.items[::-1], found.next_cursor
    except AuthenticationFailed:
        raise
    except Refusal as error:
        refusal = error
    return visit.render(
        "audit.html",
        refusal,
        fields=_FIELDS,
        given=given,
        asks_more=any(given[name] for name in _SELDOM),
        entries=entries,
        leaf=_leaf,
        operations=sorted(OPERATIONS),
        next_cursor=next_cursor,
    )


def _wanted(given: Mapping[str, str]) -> dict[str, Any]:
    wanted: dict[str, Any] = {name: given[name] for name in (*_OFTEN, *_SELDOM) if given[name]}
    if given["since"]:
        wanted["after"] = timestamp(day_of(given["since"], "since"))
    if given["until"]:
        wanted["before"] = timestamp(day_of(given["until"], "until") + timedelta(days=1))
    return {**wanted, "limit": _AT_ONCE}


def _leaf(entry: AuditEntry) -> str:
    """By which the receipt of an entry is asked for: its leaf hash, unpadded base64url."""
    return urlsafe_b64encode(leaf_hash(entry.line())).rstrip(b"=").decode()


def day_of(text: str, name: str) -> datetime:
    """When the day in the field `name` begins, in UTC. Raises ValidationFailed."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValidationFailed(f"{name}: a day, such as 2026-01-31.") from None
