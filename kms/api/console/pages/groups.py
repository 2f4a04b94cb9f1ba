"""Groups of clients, to which grants can be given."""

from __future__ import annotations

from flask import Response

from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import Refusal, ValidationFailed

_FIELDS = ("group", "description", "members")


@page("/groups")
def groups(visit: Visit) -> Response:
    """Every group with its members."""
    return visit.render("groups.html", found=visit.run("list_groups").items)


@page("/new-group")
def new_group(visit: Visit, refusal: Refusal | None = None) -> Response:
    """The form for a new group."""
    return visit.render("group_edit.html", refusal, fields=_FIELDS, group=None)


@act("/new-group", again=new_group)
def make_group(visit: Visit) -> Response:
    """Make it."""
    return _put(visit, visit.field("group"))


@page("/groups/<group>")
def edit_group(visit: Visit, group: str, refusal: Refusal | None = None) -> Response:
    """The form for who is in a group."""
    return visit.render("group_edit.html", refusal, fields=_FIELDS, group=visit.run("get_group", group=group))


@act("/groups/<group>", again=edit_group)
def save_group(visit: Visit, group: str) -> Response:
    """Save it."""
    return _put(visit, group)


def _put(visit: Visit, group: str | None) -> Response:
    if group is None:
        raise ValidationFailed("group: this member is needed and is not there.")
    visit.confirm()
    members = (visit.field("members") or "").split()
    saved = visit.run("put_group", {"members": members, "description": visit.field("description") or ""}, group=group)
    return visit.go("/groups", f"The group {saved.group} is saved.")


@page("/groups/<group>/delete")
def confirm_group_deletion(visit: Visit, group: str, refusal: Refusal | None = None) -> Response:
    """Say what the end of a group means, and ask if that is meant."""
    found = visit.run("get_group", group=group)
    return visit.render(
        "confirm.html",
        refusal,
        act=_DELETE,
        title=f"Delete the group {found.group}",
        effects=[
            f"The {len(found.members)} members of {found.group} lose what is granted to the group.",
            "The grants to the group are removed with it.",
        ],
        back="/console/groups",
    )


@act("/groups/<group>/delete", again=confirm_group_deletion)
def drop_group(visit: Visit, group: str) -> Response:
    """Delete it."""
    visit.confirm()
    visit.run("delete_group", group=group)
    return visit.go("/groups", f"The group {group} is deleted.")


_DELETE = Act("delete_group", "", "Delete", lambda name: [], "This cannot be undone.", "")
