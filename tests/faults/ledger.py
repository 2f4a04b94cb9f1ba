"""The clients' side of the truth: what was sent for each key, and what was acknowledged.

Each key belongs to one thread of the clients, so what must hold for it is plain: the state after the last change that
was acknowledged, or, where the last one got no answer, the state before or after that one, and nothing in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

UNKNOWN_OUTCOME = "Look whether it"
"""Part of the refusals that do not say that nothing was changed."""


@dataclass(frozen=True)
class Condition:
    """What a key is like: its `state` in the API's words, "" where there is none; and who was granted its use."""

    state: str = ""
    versions: int = 0
    destroyed: bool = False
    granted: bool = False

    @property
    def may_encrypt(self) -> bool:
        """Whether its owner may encrypt under it."""
        return self.state == "active"


@dataclass(frozen=True)
class Act:
    """One change of a key: how it is asked for, as method, path and body, and what it does."""

    name: str
    operation: str
    method: str
    path: str
    body: dict[str, Any] | None
    after: Condition


@dataclass
class KeyBook:
    """What is known of one key.

    `pending` is what a change that got no answer may have made of it; `refused` what one that was refused must not
    have made of it, and `refusal` what it was told. Once one of these is there, the key is left alone.
    """

    key_id: str
    client: int
    now: Condition = field(default_factory=Condition)
    pending: Condition | None = None
    refused: Condition | None = None
    refusal: str = ""
    grant_id: str = ""
    sealed: dict[int, tuple[str, str]] = field(default_factory=dict)
    acknowledged: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether something more may be done to it."""
        return (
            self.pending is None
            and self.refused is None
            and self.now.state not in {"compromised", "pending-deletion"}
        )

    @property
    def allowed(self) -> list[Condition]:
        """What it may be like now."""
        return [self.now] if self.pending is None else [self.now, self.pending]

    def acknowledge(self, act: Act, request_id: str) -> None:
        """It was done."""
        self.now = act.after
        self.acknowledged.append((act.operation, request_id, act.after.versions))


def acts_on(book: KeyBook) -> list[Act]:
    """What can be done to a key as it is, more than once what is to happen more often."""
    at, path = book.now, f"/api/v1/keys/{book.key_id}"
    if not at.state:
        created = replace(at, state="active", versions=1)
        return [Act("create", "create_key", "POST", "/api/v1/keys", {"key_id": book.key_id}, created)]
    revoked = replace(at, state="compromised")
    acts = [
        Act("revoke", "revoke_key_versions", "POST", f"{path}/revoke", {}, revoked),
        Act("delete", "delete_key", "DELETE", path, {}, replace(at, state="pending-deletion")),
    ]
    if at.state == "suspended":
        resumed = replace(at, state="active")
        return [*acts, Act("resume", "resume_key", "POST", f"{path}/resume", {}, resumed)]
    rotated = replace(at, versions=at.versions + 1)
    acts += 3 * [Act("rotate", "rotate_key_version", "POST", f"{path}/rotate", {}, rotated)]
    acts += 2 * [Act("suspend", "suspend_key", "POST", f"{path}/suspend", {}, replace(at, state="suspended"))]
    if at.versions > 1 and not at.destroyed:
        gone = replace(at, destroyed=True)
        acts.append(Act("destroy", "destroy_version", "POST", f"{path}/versions/1/destroy", {}, gone))
    if not at.granted:
        grant = {"subject": "client:reader", "permission": "keys:encrypt", "key_pattern": book.key_id}
        acts.append(Act("grant", "create_grant", "POST", "/api/v1/grants", grant, replace(at, granted=True)))
    elif book.grant_id:
        taken = replace(at, granted=False)
        acts += 2 * [Act("ungrant", "delete_grant", "DELETE", f"/api/v1/grants/{book.grant_id}", None, taken)]
    return acts
