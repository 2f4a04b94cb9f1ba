"""One's own account."""

from __future__ import annotations

from flask import Response

from kms.api.console.pages.client import about
from kms.api.console.routes import page
from kms.api.console.visit import Visit


@page("/account")
def account(visit: Visit) -> Response:
    """One's own credentials and sessions, and for how long this session lasts."""
    return visit.render("account.html", **about(visit, visit.caller.client_id))
