"""Who is hurt if a key becomes known: who used it, who has its material, who may use it."""

from __future__ import annotations

from typing import Any

from flask import Response

from kms.api.console.pages.audit import day_of
from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.errors import AuthenticationFailed, NotFound, Refusal

_FIELDS = ("version", "since")


@page("/keys/<key_id>/blast-radius")
def blast_radius(visit: Visit, key_id: str) -> Response:
    """Who used which version of a key since a day, was given its material, or may use it by a grant."""
    given = {name: (visit.query.get(name) or "").strip() for name in _FIELDS}
    found, refusal = None, None
    try:
        found = visit.run("get_blast_radius", _values(given), key_id=key_id)
    except (AuthenticationFailed, NotFound):
        raise
    except Refusal as error:
        refusal = error
    return visit.render("blast_radius.html", refusal, fields=_FIELDS, given=given, key_id=key_id, found=found)


def _values(given: dict[str, str]) -> dict[str, Any]:
    since = day_of(given["since"], "since").isoformat() if given["since"] else None
    return {"version": given["version"] or None, "since": since}
