"""Who is hurt if a key becomes known: who used which version since when, who has its material, who may use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import msgspec

from kms.access import policy
from kms.access.policy import Permission
from kms.audit.entry import SUCCESS, AuditEntry
from kms.operations.core.declare import OPERATIONS, Answer, Request, operation
from kms.operations.core.key_access import VersionNumber, authorized_key
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.operations.system.auditing import entries_of
from kms.operations.system.key_users import KeyUser, users_of

_GIVEN_OUT = frozenset({"export_key", "backup_key", "generate_symmetric_key"})
_BROUGHT = frozenset({"import_key", "import_version", "import_material", "restore_key"})
_OUTSIDE = _GIVEN_OUT | _BROUGHT
"""Operations whose request or answer has the material of the key in it, wrapped or not."""

_NOBODY = ""


class BlastRadiusRequest(Request):
    """`version`: only that version, and uses whose version is not recorded. `since`: only what was done from then."""

    version: VersionNumber | None = None
    since: Moment | None = None


class VersionUse(Answer):
    """What a client did with a version: when first and last, how many messages in all, and how often each operation.

    `version` is null for batches that used several, and for those of which the audit log does not say it: of releases
    from before, and where no item was carried out.
    """

    client_id: str
    version: int | None
    first_at: datetime
    last_at: datetime
    messages: int
    operations: dict[str, int]


class BlastRadius(Answer):
    """`used_by`: who used the key; `material_held_by`: who was given or brought its material, wrapped or in a backup.

    `users` are those whom grants let use the key now, beside its `owner`. `aliases` are not followed: the audit log
    names the key itself. `entries` says how many audit entries there are about the key that could be read, and
    `read_since` from when the oldest of them is: all changes, and the uses that the node which answers carried out.
    """

    key_id: str
    owner: str
    latest_version: int
    created_at: datetime
    used_by: list[VersionUse]
    material_held_by: list[VersionUse]
    users: list[KeyUser]
    has_key_policy: Annotated[bool, msgspec.Meta(description="Whether an AWS key policy lets others use it too.")]
    entries: int
    read_since: datetime | None


@dataclass
class _Tally:
    """What is added up of the entries about one client and version."""

    first: str
    last: str
    messages: int = 0
    operations: Counter[str] = field(default_factory=Counter)

    def add(self, entry: AuditEntry) -> None:
        """Count an entry."""
        self.first, self.last = min(self.first, entry.time), max(self.last, entry.time)
        self.messages += 1 if entry.items is None else entry.items - (entry.refused or 0)
        self.operations[entry.operation] += 1


_Tallies = dict[tuple[str, int | None], _Tally]


@operation(
    "GET",
    "/api/v1/keys/<key_id>/blast-radius",
    permission=Permission.AUDIT_READ,
    request=BlastRadiusRequest,
    slow=True,
)
def get_blast_radius(service: Service, call: Call, request: BlastRadiusRequest, key_id: str) -> BlastRadius:
    """Show who used which version of a key since when, and who has its material, as the audit log tells."""
    with service.vault.read() as snapshot:
        key = authorized_key(service, snapshot, call, Permission.KEYS_READ, key_id)
        policy.require(call.known_caller, Permission.AUDIT_READ)  # afterwards: strangers are told of no key
        users = users_of(snapshot, call.known_caller, [key], call.began)[key.key_id]
    used, outside = _Tallies(), _Tallies()
    count, oldest = 0, None
    for entry in entries_of(service, key):
        count, oldest = count + 1, entry.time if oldest is None else min(oldest, entry.time)
        if entry.outcome == SUCCESS and _is_asked_for(request, entry):
            _sort(entry, used, outside)
    return BlastRadius(
        key_id=key.key_id,
        owner=key.owner,
        latest_version=key.latest_version,
        created_at=key.created_at,
        used_by=_shown(used.items()),
        material_held_by=_shown(outside.items()),
        users=users,
        has_key_policy=bool(key.policy),
        entries=count,
        read_since=datetime.fromisoformat(oldest) if oldest else None,
    )


def _is_asked_for(request: BlastRadiusRequest, entry: AuditEntry) -> bool:
    if request.since is not None and datetime.fromisoformat(entry.time) < request.since:
        return False
    return request.version is None or not entry.used_versions or request.version in entry.used_versions


def _sort(entry: AuditEntry, used: _Tallies, outside: _Tallies) -> None:
    if entry.items is not None and entry.refused == entry.items:
        return  # a batch of which nothing was carried out
    declared = OPERATIONS.get(entry.operation)
    tallies = [outside] if entry.operation in _OUTSIDE else []
    if declared is not None and declared.permission in policy.USES:
        tallies.append(used)
    for each in tallies:
        who = (entry.client_id or _NOBODY, entry.version)
        each.setdefault(who, _Tally(entry.time, entry.time)).add(entry)


def _shown(tallies: Iterable[tuple[tuple[str, int | None], _Tally]]) -> list[VersionUse]:
    found = [
        VersionUse(
            client_id=client_id,
            version=version,
            first_at=datetime.fromisoformat(tally.first),
            last_at=datetime.fromisoformat(tally.last),
            messages=tally.messages,
            operations=dict(sorted(tally.operations.items())),
        )
        for (client_id, version), tally in tallies
    ]
    return sorted(found, key=lambda each: (each.version or 0, each.client_id))
