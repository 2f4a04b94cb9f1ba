"""The list of keys."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.entry import timestamp
from kms.crypto.registry import KEY_TYPES
from kms.errors import AuthenticationFailed, Refusal, ValidationFailed
from kms.keys.model import ShownState

_FILTERS = ("prefix", "label", "type", "state", "owner", "unused_days")
_AT_ONCE = 50


@page("/keys")
def keys(visit: Visit) -> Response:
    """Keys by prefix, label, type, state, owner and how long they were not used, a page at a time."""
    given = {name: visit.query.get(name) or None for name in _FILTERS}
    found, refusal = None, None
    try:
        wanted = {name: each for name, each in given.items() if name != "unused_days"}
        if given["unused_days"]:
            wanted["unused_since"] = _days_ago(visit.now, given["unused_days"])
        found = visit.run("list_keys", {**wanted, "limit": _AT_ONCE, "cursor": visit.query.get("cursor") or None})
    except AuthenticationFailed:
        raise
    except Refusal as error:
        refusal = error
    return visit.render(
        "keys.html",
        refusal,
        fields=_FILTERS,
        found=found.items if found else [],
        next_cursor=found.next_cursor if found else None,
        given=given,
        states=list(ShownState),
        types=list(KEY_TYPES),
    )


def _days_ago(now: datetime, days: str) -> str:
    """The time so many days before `now`. Raises ValidationFailed."""
    if not (days.isascii() and days.isdigit() and len(days) <= 4 and int(days)):
        raise ValidationFailed("unused_days: a number of days, such as 90.")
    return timestamp(now - timedelta(days=int(days)))
