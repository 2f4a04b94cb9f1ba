"""The list of keys."""

from __future__ import annotations

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.crypto.registry import KEY_TYPES
from kms.errors import AuthenticationFailed, Refusal
from kms.keys.model import ShownState

_FILTERS = ("prefix", "label", "type", "state", "owner")
_AT_ONCE = 50


@page("/keys")
def keys(visit: Visit) -> Response:
    """Keys by prefix, label, type, state and owner, a page at a time."""
    given = {name: visit.query.get(name) or None for name in _FILTERS}
    found, refusal = None, None
    try:
        found = visit.run("list_keys", {**given, "limit": _AT_ONCE, "cursor": visit.query.get("cursor") or None})
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
