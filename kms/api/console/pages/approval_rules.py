"""The rules that make calls wait for the approval of others."""

from __future__ import annotations

from flask import Response

from kms.api.console.routes import page
from kms.api.console.visit import Visit


@page("/approval-rules")
def approval_rules(visit: Visit) -> Response:
    """Every rule."""
    return visit.render("approval_rules.html", found=visit.run("list_approval_rules").items)
