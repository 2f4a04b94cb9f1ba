"""What is done to a key: each act with a page before it that says what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response

from kms.api.console.acts import Act
from kms.api.console.routes import act, page
from kms.api.console.visit import Visit
from kms.errors import NotFound, Refusal, ValidationFailed
from kms.keys.model import RevocationReason

REASONS: dict[RevocationReason, tuple[str, str]] = {
    RevocationReason.KEY_COMPROMISE: (
        "Somebody else may have the key",
        "The key does nothing any more. What it protected can be opened only by who has the permission to recover.",
    ),
    RevocationReason.SUPERSEDED: (
        "Another key takes its place",
        "It protects nothing new. What it protected can still be opened and verified.",
    ),
    RevocationReason.CESSATION_OF_OPERATION: (
        "It is not needed any more",
        "It protects nothing new. What it protected can still be opened and verified.",
    ),
    RevocationReason.AFFILIATION_CHANGED: (
        "Its owner has other duties or another name now",
        "It protects nothing new. What it protected can still be opened and verified.",
    ),
    RevocationReason.PRIVILEGE_WITHDRAWN: (
        "Its owner may not have it any more",
        "It protects nothing new. What it protected can still be opened and verified.",
    ),
    RevocationReason.UNSPECIFIED: (
        "None of these",
        "It counts as compromised, because nobody says why: the key does nothing any more.",
    ),
}
"""The reasons that a person chooses from, each with a sentence on what it means and one on what follows."""


def versions_of(key: Any) -> str:
    """How many versions a key has, in words."""
    count = key.latest_version - key.oldest_version + 1
    return "its only version" if count == 1 else f"all of its {count} versions"


def _rotate(key: Any) -> list[str]:
    return [
        f"Version {key.latest_version + 1} of {key.key_id} is made, and protects from now on.",
        f"Version {key.latest_version} goes on decrypting and verifying what it protected.",
        "Programs need no change: they name the key and not its version.",
    ]


def _suspend(key: Any) -> list[str]:
    return [
        f"{key.key_id} is put on hold, with {versions_of(key)}.",
        "Every program that uses it is refused, from the moment that the next page shows.",
        "The hold is published in the revocation list.",
    ]


def _resume(key: Any) -> list[str]:
    return [f"{key.key_id} works again as before it was put on hold, with {versions_of(key)}."]


def _revoke(key: Any) -> list[str]:
    return [
        f"{key.key_id} is revoked, with {versions_of(key)}.",
        "No program protects anything with it from the moment that the next page shows.",
        "Whether it can still decrypt and verify depends on the reason.",
        "Key, reason and time are published in the revocation list, for ever.",
    ]


def _delete(key: Any) -> list[str]:
    return [
        f"{key.key_id} is refused every use at once, with {versions_of(key)}.",
        "After the waiting period its material is erased. What it encrypted can then never be decrypted again.",
        "Until then the deletion can be cancelled.",
    ]


def _cancel(key: Any) -> list[str]:
    return [f"{key.key_id} is kept, and works again as before."]


def _trim(key: Any) -> list[str]:
    return [
        f"Versions of {key.key_id} below the one that you give are erased: it has {key.oldest_version} to "
        f"{key.latest_version}.",
        "What was encrypted with an erased version can never be decrypted again.",
    ]


def _reason(visit: Visit) -> Mapping[str, Any]:
    given = visit.field("reason")
    if given is None:
        raise ValidationFailed("reason: choose one.")
    since = visit.field("compromised_at")
    return {"reason": given, "compromised_at": f"{since}T00:00:00Z" if since and len(since) == 10 else since}


_KEEPS = "This can be undone."
_FOR_EVER = "This cannot be undone."

ACTS: dict[str, Act] = {
    "rotate": Act(
        "rotate_key_version",
        "Rotate {name}",
        "Rotate",
        _rotate,
        "This cannot be undone, and does no harm: old versions stay.",
        "{name} is rotated.",
        dangerous=False,
    ),
    "suspend": Act(
        "suspend_key", "Suspend {name}", "Suspend", _suspend, f"{_KEEPS} Resume the key.", "{name} is on hold."
    ),
    "resume": Act(
        "resume_key",
        "Resume {name}",
        "Resume",
        _resume,
        f"{_KEEPS} Suspend the key again.",
        "{name} works again.",
    ),
    "revoke": Act(
        "revoke_key_versions",
        "Revoke {name}",
        "Revoke",
        _revoke,
        f"{_FOR_EVER} Suspend the key instead if you only need time.",
        "{name} is revoked.",
        template="revoke.html",
        fields=("reason", "compromised_at"),
        values=_reason,
    ),
    "delete": Act(
        "delete_key",
        "Delete {name}",
        "Delete",
        _delete,
        "This can be undone until the waiting period is over, and not after it.",
        "{name} will be deleted.",
        template="delete.html",
        fields=("waiting_period",),
        values=lambda visit: {"waiting_period": visit.days("waiting_period")},
    ),
    "cancel-deletion": Act(
        "cancel_deletion",
        "Cancel the deletion of {name}",
        "Keep the key",
        _cancel,
        f"{_KEEPS} Delete the key again.",
        "{name} is kept.",
    ),
    "trim": Act(
        "trim_key",
        "Remove old versions of {name}",
        "Remove old versions",
        _trim,
        _FOR_EVER,
        "Old versions of {name} are removed.",
        template="trim.html",
        fields=("oldest_version",),
        values=lambda visit: {"oldest_version": visit.field("oldest_version")},
    ),
}
"""Every act on a key, by its name in the path."""


@page("/keys/<key_id>/do/<act_name>")
def confirm_key_act(visit: Visit, key_id: str, act_name: str, refusal: Refusal | None = None) -> Response:
    """Say what an act does to a key, and ask if that is meant."""
    chosen = _act(act_name)
    key = visit.run("get_key", key_id=key_id)
    return visit.render(
        chosen.template,
        refusal,
        fields=chosen.fields,
        act=chosen,
        title=chosen.title.format(name=key.key_id),
        effects=chosen.effects(key),
        back=f"/console/keys/{key.key_id}",
        key=key,
        reasons=REASONS,
    )


@act("/keys/<key_id>/do/<act_name>", again=confirm_key_act)
def do_key_act(visit: Visit, key_id: str, act_name: str) -> Response:
    """Do it."""
    chosen = _act(act_name)
    values = chosen.values(visit)
    if chosen.dangerous:
        visit.confirm()
    answer = visit.run(chosen.operation, values, key_id=key_id)
    return visit.go(f"/keys/{answer.key_id}", chosen.notice.format(name=answer.key_id))


@page("/keys/<key_id>/versions/<int:version>/destroy")
def confirm_destruction(visit: Visit, key_id: str, version: int, refusal: Refusal | None = None) -> Response:
    """Say what it means to destroy a version, and ask if that is meant."""
    key = visit.run("get_key", key_id=key_id)
    return visit.render(
        "confirm.html",
        refusal,
        act=_DESTROY,
        title=f"Destroy version {version} of {key.key_id}",
        effects=[
            f"The material of version {version} is erased; the others stay as they are.",
            "What was encrypted with this version can never be decrypted again.",
            "That it was there, and when it was destroyed, stays on record.",
        ],
        back=f"/console/keys/{key.key_id}",
    )


@act("/keys/<key_id>/versions/<int:version>/destroy", again=confirm_destruction)
def destroy(visit: Visit, key_id: str, version: int) -> Response:
    """Destroy a version."""
    visit.confirm()
    answer = visit.run("destroy_version", key_id=key_id, version=version)
    return visit.go(f"/keys/{answer.key_id}", f"Version {version} of {answer.key_id} is destroyed.")


_DESTROY = Act("destroy_version", "", "Destroy", lambda key: [], _FOR_EVER, "")


def _act(name: str) -> Act:
    try:
        return ACTS[name]
    except KeyError:
        raise NotFound("There is no such page.") from None
