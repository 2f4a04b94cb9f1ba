"""Searching the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.entry import timestamp
from kms.errors import AuthenticationFailed, Refusal, ValidationFailed
from kms.operations import OPERATIONS

_AT_ONCE = 100
_FIELDS = ("client_id", "key_id", "operation", "outcome", "since", "until", "before")


@page("/audit")
def audit(visit: Visit) -> Response:
    """Entries by client, key, operation, outcome and time, the newest first."""
    given = {name: visit.query.get(name) or "" for name in _FIELDS}
    entries, refusal = [], None
    try:
        wanted = {name: given[name] for name in ("client_id", "key_id", "operation", "outcome") if given[name]}
        if given["since"]:
            wanted["after"] = timestamp(_day(given["since"], "since"))
        if given["until"]:
            wanted["before"] = timestamp(_day(given["until"], "until") + timedelta(days=1))
        if given["before"]:
            wanted["before"] = given["before"]
        entries = visit.run("audit_entries", {**wanted, "limit": _AT_ONCE}).items[::-1]
    except AuthenticationFailed:
        raise
    except Refusal as error:
        refusal = error
    return visit.render(
        "audit.html",
        refusal,
        fields=_FIELDS,
        given=given,
        entries=entries,
        operations=sorted(OPERATIONS),
        older=entries[-1].time if len(entries) == _AT_ONCE else "",
    )


def _day(text: str, name: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValidationFailed(f"{name}: a day, such as 2026-01-31.") from None
