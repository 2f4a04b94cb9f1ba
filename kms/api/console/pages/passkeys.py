"""A person's passkeys: added by the browser, in two steps, and removed."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Response

from kms.access.webauthn import RegistrationResponse
from kms.api.console.acts import Act
from kms.api.console.requested import text
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal, ValidationFailed

_ACCOUNT = "/account"
_REMOVE = Act("delete_passkey", "", "Remove", lambda name: [], "This can be undone. Add it again.", "")


@page("/account/passkeys/new")
def new_passkey(visit: Visit, refusal: Refusal | None = None) -> Response:
    """Ask for a name, and for a code where that is due."""
    return visit.render("new_passkey.html", refusal, fields=("name",), options="")


@act("/account/passkeys/new", again=new_passkey)
def begin_passkey(visit: Visit) -> Response:
    """Give the browser what it makes a passkey with."""
    visit.confirm()
    if visit.field("name") is None:
        raise ValidationFailed("name: say what you will know it by, such as the name of your telephone.")
    options = visit.run("passkey_creation_options", client_id=visit.caller.client_id)
    return visit.render("new_passkey.html", fields=(), options=msgspec.json.encode(options).decode())


@act("/account/passkeys/add", again=new_passkey)
def add_passkey(visit: Visit) -> Response:
    """Keep the passkey that the browser made."""
    try:
        response = msgspec.json.decode(text(visit.form, "passkey"), type=RegistrationResponse)
    except msgspec.DecodeError:
        raise ValidationFailed("The browser made no passkey. Try again.") from None
    given: dict[str, Any] = {"name": visit.field("name"), "response": msgspec.to_builtins(response)}
    visit.run("add_passkey", given, client_id=visit.caller.client_id)
    return visit.go(_ACCOUNT, "The passkey is added. You can log in with it.")


@page("/clients/<client_id>/passkeys/<passkey_id>/remove")
def confirm_passkey_removal(
    visit: Visit, client_id: str, passkey_id: str, refusal: Refusal | None = None
) -> Response:
    """Ask if a passkey shall log its person in no more."""
    return visit.render(
        "confirm.html",
        refusal,
        act=_REMOVE,
        title=f"Remove a passkey of {client_id}",
        effects=["It logs nobody in any more, and the sessions that it began end at once."],
        back=f"/console/clients/{client_id}",
    )


@act("/clients/<client_id>/passkeys/<passkey_id>/remove", again=confirm_passkey_removal)
def remove_passkey(visit: Visit, client_id: str, passkey_id: str) -> Response:
    """Remove it."""
    visit.confirm()
    visit.run("delete_passkey", client_id=client_id, passkey_id=passkey_id)
    back = _ACCOUNT if client_id == visit.caller.client_id else f"/clients/{client_id}"
    return visit.go(back, "The passkey is removed.")
