"""What is done to a client: each act with a page before it that says what it means."""

from __future__ import annotations

from typing import Any

from flask import Response
from msgspec import UNSET

from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import NotFound, Refusal

_KEEPS = "This can be undone."
_FOR_EVER = "This cannot be undone."


def _disable(name: str) -> list[str]:
    return [
        f"{name} is refused everything from now on, and its sessions end.",
        "Its keys stay, and others to whom they are granted go on using them.",
    ]


def _delete(name: str) -> list[str]:
    return [
        f"{name} is removed with its credentials, sessions and grants.",
        "Its keys stay, and nobody is their owner any more; an administrator can revoke and delete them.",
        "Nobody can be given its name again.",
    ]


def _reset(name: str) -> list[str]:
    return [
        f"{name} gets a new secret for its authenticator app and new recovery codes; the old ones stop working.",
        "Its sessions end. The next page shows the new ones, once.",
    ]


def _rotate(name: str) -> list[str]:
    return [
        f"{name} gets a new secret, and the old one stops working at once.",
        "Its sessions end. The next page shows the new secret, once.",
    ]


CLIENT_ACTS: dict[str, Act] = {
    "disable": Act(
        "disable_client", "Disable {name}", "Disable", _disable, f"{_KEEPS} Enable the client.", "{name} is disabled."
    ),
    "enable": Act(
        "enable_client",
        "Enable {name}",
        "Enable",
        lambda name: [f"{name} can log in again, with the credentials that it had."],
        f"{_KEEPS} Disable the client.",
        "{name} is enabled.",
    ),
    "delete": Act("delete_client", "Delete {name}", "Delete", _delete, _FOR_EVER, "{name} is deleted."),
    "reset-second-factor": Act(
        "reset_client_totp", "Reset the second factor of {name}", "Reset", _reset, _FOR_EVER, "", shows=True
    ),
    "rotate-secret": Act(
        "rotate_client_secret",
        "Make a new secret for {name}",
        "Make a new secret",
        _rotate,
        _FOR_EVER,
        "",
        template="new_secret.html",
        fields=("passphrase",),
        values=lambda visit: {"passphrase": visit.field("passphrase")},
        shows=True,
    ),
    "end-sessions": Act(
        "end_every_session",
        "End every session of {name}",
        "End the sessions",
        lambda name: [f"Every session and every access key of {name} ends at once.", "It can log in again."],
        _FOR_EVER,
        "The sessions of {name} are ended.",
        dangerous=False,
    ),
}
"""Every act on a client, by its name in the path."""


@page("/clients/<client_id>/do/<act_name>")
def confirm_client_act(visit: Visit, client_id: str, act_name: str, refusal: Refusal | None = None) -> Response:
    """Say what an act does to a client, and ask if that is meant."""
    chosen = _act(act_name)
    return visit.render(
        chosen.template,
        refusal,
        fields=chosen.fields,
        act=chosen,
        title=chosen.title.format(name=client_id),
        effects=chosen.effects(client_id),
        back=f"/console/clients/{client_id}",
    )


@act("/clients/<client_id>/do/<act_name>", again=confirm_client_act)
def do_client_act(visit: Visit, client_id: str, act_name: str) -> Response:
    """Do it."""
    chosen = _act(act_name)
    values = chosen.values(visit)
    if chosen.dangerous:
        visit.confirm()
    answer = visit.run(chosen.operation, values, client_id=client_id)
    if chosen.shows:
        return _shown(visit, client_id, answer)
    if act_name == "delete":
        return visit.go("/clients", chosen.notice.format(name=client_id))
    return visit.go(f"/clients/{client_id}", chosen.notice.format(name=client_id))


@page("/clients/<client_id>/sessions/<session_id>/end")
def confirm_end(visit: Visit, client_id: str, session_id: str, refusal: Refusal | None = None) -> Response:
    """Ask if a session shall end."""
    return visit.render(
        "confirm.html",
        refusal,
        act=_END,
        title=f"End a session of {client_id}",
        effects=[f"The session {session_id} ends at once, with those that it made.", "The client can log in again."],
        back=f"/console/clients/{client_id}",
    )


@act("/clients/<client_id>/sessions/<session_id>/end", again=confirm_end)
def end(visit: Visit, client_id: str, session_id: str) -> Response:
    """End a session."""
    visit.run("end_one_session", client_id=client_id, session_id=session_id)
    return visit.go(f"/clients/{client_id}", "The session is ended.")


@page("/clients/<client_id>/keys/<kid>/remove")
def confirm_removal(visit: Visit, client_id: str, kid: str, refusal: Refusal | None = None) -> Response:
    """Ask if a public key shall prove the client no more."""
    return visit.render(
        "confirm.html",
        refusal,
        act=_REMOVE,
        title=f"Remove a public key of {client_id}",
        effects=[f"The key {kid} proves {client_id} no more, and the sessions that it began end."],
        back=f"/console/clients/{client_id}",
    )


@act("/clients/<client_id>/keys/<kid>/remove", again=confirm_removal)
def remove(visit: Visit, client_id: str, kid: str) -> Response:
    """Remove a public key."""
    visit.confirm()
    visit.run("delete_public_key", client_id=client_id, kid=kid)
    return visit.go(f"/clients/{client_id}", "The public key is removed.")


_END = Act("end_one_session", "", "End the session", lambda name: [], _FOR_EVER, "", dangerous=False)
_REMOVE = Act("delete_public_key", "", "Remove", lambda name: [], f"{_KEEPS} Add the key again.", "")


def _shown(visit: Visit, client_id: str, answer: Any) -> Response:
    """The page that shows new credentials once."""
    return visit.render(
        "credentials.html",
        title=f"New credentials of {client_id}",
        client_id=client_id,
        client_secret=_given(answer, "client_secret"),
        totp_secret=_given(answer, "totp_secret"),
        totp_uri=_given(answer, "totp_uri"),
        recovery_codes=_given(answer, "recovery_codes") or [],
        back=f"/console/clients/{client_id}",
    )


def _given(answer: Any, member: str) -> Any:
    value = getattr(answer, member, UNSET)
    return "" if value is UNSET else value


def _act(name: str) -> Act:
    try:
        return CLIENT_ACTS[name]
    except KeyError:
        raise NotFound("There is no such page.") from None
