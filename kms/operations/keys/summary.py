"""Keys at a glance: how many there are in each state, and which expire or rotate next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import ColumnElement, and_, func, select

from kms.access import decision, policy
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.errors import PermissionDenied
from kms.keys.model import KeyState, ShownState
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.keys.listing import state_at
from kms.operations.keys.views import KeySummary, summary_members
from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.transaction import Snapshot

_MOST_COUNTED = 100_000


class SummarizeKeysRequest(Request):
    """How many keys to name of those that expire next, and of those that rotate next."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 8


class KeysAtAGlance(Answer):
    """`states`: how many keys are in each state, of the `counted` ones.

    They are all that a role shows to the caller, or else all that it owns; where there are more, which `complete`
    false says, 100,000 of them. `expiring` are those of them that expire next, `rotating` those that rotate by
    themselves next.
    """

    states: dict[str, int]
    counted: int
    complete: bool
    expiring: list[KeySummary]
    rotating: list[KeySummary]


@operation(
    "GET",
    "/api/v1/key-summary",
    permission=Permission.KEYS_READ,
    request=SummarizeKeysRequest,
    checked_upfront=True,
    example={"limit": 5},
)
def summarize_keys(service: Service, call: Call, request: SummarizeKeysRequest) -> KeysAtAGlance:
    """Count the caller's keys by state, and name those that expire or rotate next; for all keys where it may."""
    caller, now = call.known_caller, call.began
    if caller.scope is not None:
        raise PermissionDenied("A narrowed session lists the keys of its scope; it does not count all of them.")
    mine = _of(caller)
    keys, versions, moment = tables.keys.c, tables.key_versions.c, microseconds(now)
    most = request.limit
    with service.vault.read() as snapshot:
        counts = _states(snapshot, mine, now)
        if sum(counts.values()) > _MOST_COUNTED:
            mine = [keys.uid.in_(select(keys.uid).where(*mine).limit(_MOST_COUNTED))]
        # Nearly all keys have no `deletion_at`: its index must not be taken in place of a better one.
        stays = func.coalesce(keys.deletion_at, 0) == 0
        soon = [versions.state == KeyState.ACTIVE, versions.expires_at > moment, stays]
        expiring = snapshot.keys_with_latest(*mine, *soon, order_by=versions.expires_at, limit=most)
        due = [keys.next_rotation_at > moment, stays]
        rotating = snapshot.keys_with_latest(*mine, *due, order_by=keys.next_rotation_at, limit=most)
    at = service.circumstances(call)

    def shown(found: Sequence[Any]) -> list[KeySummary]:
        visible = (pair for pair in found if decision.allows(caller, Permission.KEYS_READ, pair[0], at))
        return [KeySummary(**summary_members(key, latest, now)) for key, latest in visible]

    counted = sum(counts.values())
    return KeysAtAGlance(
        states=counts,
        counted=min(counted, _MOST_COUNTED),
        complete=counted <= _MOST_COUNTED,
        expiring=shown(expiring),
        rotating=shown(rotating),
    )


def _of(caller: Caller) -> list[ColumnElement[bool]]:
    """Everybody's keys for whom a role shows them, one's own for all others."""
    is_for_all = any(Permission.KEYS_READ in policy.ANY_OWNER[role] for role in caller.roles)
    return [] if is_for_all else [tables.keys.c.owner == caller.client_id]


def _states(snapshot: Snapshot, mine: Sequence[ColumnElement[bool]], now: datetime) -> dict[str, int]:
    """How many keys are in each state, one more than the most in all; counted by the database, row codes unread."""
    keys, versions = tables.keys.c, tables.key_versions.c
    latest = and_(keys.uid == versions.key_uid, keys.latest_version == versions.version)
    bounded = (
        select(state_at(now).label("state"))
        .select_from(tables.keys.join(tables.key_versions, latest))
        .where(*mine)
        .limit(_MOST_COUNTED + 1)
        .subquery()
    )
    found = snapshot.connection.execute(select(bounded.c.state, func.count()).group_by(bounded.c.state))
    known = set(map(str, ShownState))
    counts: dict[str, int] = {}
    for state, count in found:  # whoever writes to the database must not write into the page
        name = state if state in known else "unknown"
        counts[name] = counts.get(name, 0) + count
    return counts
