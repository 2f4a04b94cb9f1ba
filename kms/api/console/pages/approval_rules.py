"""The rules that make calls wait for the approval of others."""

from __future__ import annotations

from flask import Response

from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal

_FIELDS = ("name", "operations", "permissions", "key_pattern", "approvers", "approvals", "expires_in")
_LISTS = ("operations", "permissions", "approvers")


@page("/approval-rules")
def approval_rules(visit: Visit) -> Response:
    """Every rule."""
    return visit.render("approval_rules.html", found=visit.run("list_approval_rules").items)


@page("/new-approval-rule")
def new_approval_rule(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new rule."""
    return visit.render("approval_rule_new.html", refusal, fields=_FIELDS)


@act("/new-approval-rule", again=new_approval_rule)
def make_approval_rule(visit: Visit) -> Response:
    """Make it."""
    values = {name: (visit.field(name) or "").split() for name in _LISTS}
    days = visit.days("expires_in")
    visit.confirm()
    made = visit.run(
        "create_approval_rule",
        {
            **values,
            "name": visit.field("name"),
            "key_pattern": visit.field("key_pattern"),
            "approvals": visit.field("approvals"),
            "expires_in": days,
        },
    )
    return visit.go("/approval-rules", f"The rule {made.name} is made.")


@page("/approval-rules/<rule>/remove")
def confirm_rule_removal(visit: Visit, rule: str, refusal: Refusal | None = None) -> Response:
    """Say what the end of a rule means, and ask if that is meant."""
    return visit.render(
        "confirm.html",
        refusal,
        act=_REMOVE,
        title=f"Remove the rule {rule}",
        effects=[
            "Its removal needs the approvals that it asks for. With the last of them, nothing waits for it any more.",
            "Calls that wait for it then must be made again.",
        ],
        back="/console/approval-rules",
    )


@act("/approval-rules/<rule>/remove", again=confirm_rule_removal)
def remove_approval_rule(visit: Visit, rule: str) -> Response:
    """Remove it."""
    visit.confirm()
    visit.run("delete_approval_rule", rule=rule)
    return visit.go("/approval-rules", f"The rule {rule} is removed.")


_REMOVE = Act("delete_approval_rule", "", "Remove", lambda name: [], "This can be undone. Make the rule again.", "")
