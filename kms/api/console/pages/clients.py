"""The list of clients, and making one."""

from __future__ import annotations

from flask import Response

from kms.access.model import Role
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal

_AT_ONCE = 100
ROLES = {
    Role.USER: "Makes and uses keys of its own.",
    Role.AUDITOR: "Looks at everything, and changes and uses nothing.",
    Role.ADMIN: "Looks after clients, and gives and takes away keys; uses only its own.",
}
"""Every role, with a sentence on it."""


@page("/clients")
def clients(visit: Visit) -> Response:
    """Clients, a page at a time."""
    found = visit.run("list_clients", {"limit": _AT_ONCE, "cursor": visit.query.get("cursor") or None})
    return visit.render("clients.html", found=found.items, next_cursor=found.next_cursor)


@page("/new-client")
def new_client(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new client."""
    return visit.render("client_new.html", refusal, fields=("client_id", "roles"), roles=ROLES)


@act("/new-client", again=new_client)
def make_client(visit: Visit) -> Response:
    """Make it, and show what proves it this once."""
    visit.confirm()
    made = visit.run("create_client", {"client_id": visit.field("client_id"), "roles": visit.form.get("roles", [])})
    return visit.render(
        "credentials.html",
        title=f"{made.client_id} is made",
        client_id=made.client_id,
        client_secret=made.client_secret,
        totp_secret=made.totp_secret,
        totp_uri=made.totp_uri,
        recovery_codes=made.recovery_codes,
        back=f"/console/clients/{made.client_id}",
        status=201,
    )
