"""One key: its versions and their life, what may be done with it, and what is known about it."""

from __future__ import annotations

from typing import Any

from flask import Response

from kms.access.policy import Permission
from kms.api.console.drawings import life_of
from kms.api.console.routes import act, page
from kms.api.console.visit import NULL, Visit
from kms.errors import Refusal, ValidationFailed
from kms.keys.model import ShownState

_EDITED = ("description", "rotation_days", "labels")


@page("/keys/<key_id>")
def key(visit: Visit, key_id: str) -> Response:
    """A key with its versions, grants, aliases and labels."""
    found = visit.run("get_key", key_id=key_id)
    return visit.render(
        "key.html",
        key=found,
        last=visit.run("get_last_use", key_id=key_id),
        grants=_grants_on(visit, found.key_id),
        life=life_of(found.versions, found.created_at, visit.now),
        acts=_offered(visit, found),
    )


def _grants_on(visit: Visit, key_id: str) -> list[Any]:
    """The grants on a key that its caller has given or holds, or may list."""
    if not visit.may(Permission.GRANTS_MANAGE):
        return []  # asking would leave a refusal in the audit log for who only looks
    return list(visit.run("list_grants", {"key_id": key_id}).items)


def _offered(visit: Visit, found: Any) -> list[tuple[str, str]]:
    """What the caller may do to the key as it is now, each with the word on its button."""
    offered: list[tuple[str, str]] = []
    state, owner = found.state, found.owner
    if visit.may_of(Permission.KEYS_ROTATE, owner) and state in {ShownState.ACTIVE, ShownState.DEACTIVATED}:
        offered.append(("rotate", "Rotate"))
    if visit.may_of(Permission.KEYS_REVOKE, owner):
        if state is ShownState.ACTIVE:
            offered.append(("suspend", "Suspend"))
        if state is ShownState.SUSPENDED:
            offered.append(("resume", "Resume"))
        if state not in {ShownState.COMPROMISED, ShownState.DESTROYED, ShownState.PENDING_DELETION}:
            offered.append(("revoke", "Revoke"))
    if visit.may_of(Permission.KEYS_DELETE, owner):
        if found.latest_version > found.oldest_version:
            offered.append(("trim", "Remove old versions"))
        is_going = found.deletion_at is not None
        offered.append(("cancel-deletion", "Cancel the deletion") if is_going else ("delete", "Delete"))
    return offered


@page("/keys/<key_id>/edit")
def edit_key(visit: Visit, key_id: str, refusal: Refusal | None = None) -> Response:
    """The form for what a key is called and when it rotates by itself."""
    return visit.render("key_edit.html", refusal, fields=_EDITED, key=visit.run("get_key", key_id=key_id))


@act("/keys/<key_id>/edit", again=edit_key)
def save_key(visit: Visit, key_id: str) -> Response:
    """Change description, labels and rotation."""
    values: dict[str, Any] = {
        "description": visit.field("description") or "",
        "labels": labels_of(visit.field("labels") or ""),
    }
    if (visit.field("rotation_days") or "") != (visit.field("rotation_before") or ""):
        values["rotation_period"] = visit.days("rotation_days") or NULL
    answer = visit.run("update_key", values, key_id=key_id)
    return visit.go(f"/keys/{answer.key_id}", f"{answer.key_id} is saved.")


def labels_of(text: str) -> dict[str, str]:
    """Labels as people write them, a `name: value` on each line. Raises ValidationFailed."""
    labels: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, _, value = line.partition(":")
        if name.strip() in labels:
            raise ValidationFailed(f"labels: {name.strip()} is there twice.")
        labels[name.strip()] = value.strip()
    return labels
