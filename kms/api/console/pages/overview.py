"""The first page: what to act on, keys by state, what expires or rotates next, and what happened in the last hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import Response

from kms.access.policy import Permission
from kms.api.console.drawings import Bars, bars_of
from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.entry import SUCCESS, timestamp

_MOST_ENTRIES = 10_000


@page("")
def overview(visit: Visit) -> Response:
    """What a person wants to know first."""
    glance = visit.run("summarize_keys") if visit.may(Permission.KEYS_READ) and visit.caller.scope is None else None
    return visit.render(
        "overview.html",
        glance=glance,
        attention=visit.run("get_status").attention if visit.may(Permission.METRICS_READ) else [],
        hour=_last_hour(visit) if visit.may(Permission.AUDIT_READ) else None,
    )


def _last_hour(visit: Visit) -> dict[str, Any]:
    """What was asked for and what was refused, from the newest entries of the audit log."""
    after = timestamp(visit.now - timedelta(hours=1))
    entries = visit.run("audit_entries", {"after": after, "limit": _MOST_ENTRIES}).items
    requests: Bars = bars_of((_time(each) for each in entries), visit.now, "requests")
    refused = [each for each in entries if each.outcome != SUCCESS]
    refusals = bars_of((_time(each) for each in refused), visit.now, "refusals")
    reasons: dict[str, int] = {}
    for each in refused:
        reasons[each.outcome] = reasons.get(each.outcome, 0) + 1
    often = sorted(reasons.items(), key=lambda pair: -pair[1])[:5]
    return {
        "requests": requests,
        "refusals": refusals,
        "reasons": often,
        "is_cut": len(entries) == _MOST_ENTRIES,
    }


def _time(entry: Any) -> datetime:
    return datetime.fromisoformat(entry.time)
