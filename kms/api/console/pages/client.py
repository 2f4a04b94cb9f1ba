"""One client: what proves it, its sessions, and adding a public key."""

from __future__ import annotations

from typing import Any

from flask import Response

from kms.access.policy import Permission
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal
from kms.operations.accounts.clients import ClientView


@page("/clients/<client_id>")
def client(visit: Visit, client_id: str) -> Response:
    """A client with its credentials and sessions."""
    return visit.render("client.html", **about(visit, client_id))


def about(visit: Visit, client_id: str) -> dict[str, Any]:
    """What is shown of a client; one's own is shown to everybody."""
    is_self = client_id == visit.caller.client_id
    found: ClientView | None = None
    if not is_self or visit.may(Permission.CLIENTS_READ):
        found = visit.run("get_client", client_id=client_id)
    return {
        "client": found,
        "client_id": client_id,
        "is_self": is_self,
        "credentials": visit.run("list_credentials", client_id=client_id).items,
        "sessions": visit.run("list_sessions", client_id=client_id).items,
        "may_manage": visit.may(Permission.CLIENTS_MANAGE),
        "own_session": _session_id(visit),
    }


def _session_id(visit: Visit) -> str:
    token = visit.caller.token
    return token.session_id if token is not None else ""


@page("/clients/<client_id>/add-key")
def add_key_form(visit: Visit, client_id: str, refusal: Refusal | None = None) -> Response:
    """The form for a public key that shall prove the client."""
    return visit.render("add_key.html", refusal, fields=("public_key", "expires_at"), client_id=client_id)


@act("/clients/<client_id>/add-key", again=add_key_form)
def add_key(visit: Visit, client_id: str) -> Response:
    """Add it."""
    visit.confirm()
    day = visit.field("expires_at")
    values = {"public_key": visit.field("public_key"), "expires_at": f"{day}T00:00:00Z" if day else None}
    made = visit.run("add_public_key", values, client_id=client_id)
    return visit.go(f"/clients/{client_id}", f"The key {made.kid} proves {client_id} now.")
