"""Questions to the audit log: who used a key since when, and what a client did that it had never done before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from flask import Response

from kms.api.console.pages.audit import day_of
from kms.api.console.routes import page
from kms.api.console.visit import Visit
from kms.audit.entry import timestamp
from kms.errors import AuthenticationFailed, Refusal

_NEW_WITHIN = timedelta(days=30)


@page("/audit/users")
def users_of_key(visit: Visit) -> Response:
    """Who used a key, or one version of it, since a day: how often, and when first and last."""
    return _asked(visit, "get_users_of_key", "audit_users.html", ("key_id", "version", "since"))


@page("/audit/novelties")
def novelties(visit: Visit) -> Response:
    """What a client did since a day that it had never done before; of the last 30 days unless another is given."""
    since = (visit.now - _NEW_WITHIN).date().isoformat()
    return _asked(visit, "get_novelties", "audit_novelties.html", ("client_id", "since"), since)


def _asked(visit: Visit, operation: str, template: str, fields: Sequence[str], since: str = "") -> Response:
    """The page of a question, with its answer once the first of its `fields` is given."""
    given: dict[str, str] = {"since": since} | {name: visit.query[name] for name in fields if name in visit.query}
    given = {name: given.get(name, "").strip() for name in fields}
    found, refusal = None, None
    if given[fields[0]]:
        try:
            found = visit.run(operation, _values(given)).items
        except AuthenticationFailed:
            raise
        except Refusal as error:
            refusal = error
    return visit.render(template, refusal, fields=tuple(fields), given=given, found=found)


def _values(given: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {name: each for name, each in given.items() if each and name != "since"}
    if given["since"]:
        values["after"] = timestamp(day_of(given["since"], "since"))
    return values
