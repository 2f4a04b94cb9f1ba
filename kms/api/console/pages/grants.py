"""Grants: who may use whose keys, and why a request would be allowed or refused."""

from __future__ import annotations

from flask import Response

from kms.access.model import Effect, Role
from kms.access.policy import DENIABLE, GRANTABLE, GRANTED_BY_ADMINISTRATORS
from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import AuthenticationFailed, Refusal

_FIELDS = ("subject", "key_pattern", "permissions", "owner", "effect", "source", "not_after")


@page("/grants")
def grants(visit: Visit) -> Response:
    """The grants that the caller has given or holds, and the form that explains a decision."""
    return visit.render("grants.html", found=visit.run("list_grants").items)


@page("/new-grant")
def new_grant(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new grant."""
    is_admin = Role.ADMIN in visit.caller.roles
    offered = DENIABLE | GRANTED_BY_ADMINISTRATORS if is_admin else GRANTABLE
    return visit.render(
        "grant_new.html",
        refusal,
        fields=_FIELDS,
        permissions=sorted(offered),
        grantable=GRANTABLE,
        effects=list(Effect) if is_admin else [Effect.ALLOW],
        key_pattern=visit.query.get("key", ""),
    )


@act("/new-grant", again=new_grant)
def give(visit: Visit) -> Response:
    """Give it."""
    visit.confirm()
    conditions: dict[str, object] = {}
    if networks := (visit.field("source") or "").replace(",", " ").split():
        conditions["source"] = networks
    if day := visit.field("not_after"):
        conditions["not_after"] = f"{day}T00:00:00Z"
    made = visit.run(
        "create_grant",
        {
            "subject": visit.field("subject"),
            "key_pattern": visit.field("key_pattern"),
            "permissions": visit.form.get("permissions", []),
            "owner": visit.field("owner"),
            "effect": visit.field("effect"),
            "conditions": conditions or None,
        },
    )
    return visit.go("/grants", f"The grant to {made.subject} is given.")


@page("/grants/<grant_id>/remove")
def confirm_withdrawal(visit: Visit, grant_id: str, refusal: Refusal | None = None) -> Response:
    """Say what the end of a grant means, and ask if that is meant."""
    found = [each for each in visit.run("list_grants").items if each.grant_id == grant_id]
    effects = [
        f"{each.subject} {'may again' if each.effect is Effect.DENY else 'may no longer'} "
        f"{', '.join(each.permissions)} with {each.key_pattern} of {each.owner}."
        for each in found
    ]
    return visit.render(
        "confirm.html",
        refusal,
        act=_REMOVE,
        title="Remove a grant",
        effects=effects or [f"The grant {grant_id} ends."],
        back="/console/grants",
    )


@act("/grants/<grant_id>/remove", again=confirm_withdrawal)
def withdraw(visit: Visit, grant_id: str) -> Response:
    """Remove it."""
    visit.confirm()
    ended = visit.run("delete_grant", grant_id=grant_id)
    return visit.go("/grants", f"The grant to {ended.subject} is removed.")


_REMOVE = Act("delete_grant", "", "Remove", lambda name: [], "This can be undone. Give the grant again.", "")
_EXPLAINED = ("permission", "key_id", "client_id", "source")


@page("/explain")
def explain(visit: Visit) -> Response:
    """Why a request would be allowed or refused: a form, and the rules that were looked at."""
    given = {name: visit.query.get(name) or None for name in _EXPLAINED}
    answer, refusal = None, None
    if given["permission"] and given["key_id"]:
        try:
            answer = visit.run("explain_policy", given)
        except AuthenticationFailed:
            raise
        except Refusal as error:
            refusal = error
    return visit.render(
        "explain.html", refusal, fields=_EXPLAINED, given=given, answer=answer, permissions=sorted(DENIABLE)
    )
