"""Explains access decisions, and simulates how a change of grants would decide the requests of the last days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from kms.access import callers, clients, decision, policy
from kms.access import explain as explaining
from kms.access.circumstances import Circumstances
from kms.access.key_policy import ACTIONS
from kms.access.model import Caller, Effect, Grant
from kms.access.policy import Permission
from kms.audit.entry import SUCCESS, timestamp
from kms.errors import NotFound, ValidationFailed
from kms.keys.ids import ClientId
from kms.keys.model import Key
from kms.operations.accounts.grants import CreateGrantRequest, grant_of, owner_of
from kms.operations.core.declare import OPERATIONS, Answer, Request, operation
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Moment
from kms.operations.system.auditing import newest_entries
from kms.vault import names, tables
from kms.vault.records import microseconds
from kms.vault.rows import LastUse
from kms.vault.transaction import Snapshot

_MOST_ENTRIES = 1_000_000
_LONGEST = timedelta(days=400)
_A_CENTURY = 100 * 365 * 86_400
_YEARS = range(1900, 9900)  # so that what is counted from a moment is one, too
_WHAT_POLICY_REFUSED = frozenset({"permission-denied", "not-found", "insufficient-user-authentication"})
GrantId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class ExplainRequest(Request):
    """The request whose decision is to be explained: who asks, for which permission, on which key, and how.

    By default `client_id` is the caller, `source` its address, `second_factor_age` that of its own second factor (in
    seconds), and `at` now. `action` is the name of an AWS action, for keys with an AWS key policy.
    `associated_data` is that of the message.
    """

    permission: Permission
    key_id: Annotated[str, msgspec.Meta(max_length=256)]
    client_id: ClientId | None = None
    associated_data: bytes | None = None
    source: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    second_factor_age: Annotated[int, msgspec.Meta(ge=0, le=_A_CENTURY)] | None = None
    at: Moment | None = None
    action: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z]*\Z")] = ""


class ReasonView(Answer):
    """One rule: its name, its effect, whether it applies to this request, and why it does or does not."""

    rule: str
    effect: Effect
    matches: bool
    why: str


class ExplainAnswer(Answer):
    """Whether the request is allowed, and every rule that was evaluated."""

    allowed: bool
    because: list[ReasonView]


class SimulateRequest(Request):
    """Grants to `add` and ids of grants to `remove` in the simulation. `since` is how far to look back (ISO 8601)."""

    add: Annotated[list[CreateGrantRequest], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)
    remove: Annotated[list[GrantId], msgspec.Meta(max_length=100)] = msgspec.field(default_factory=list)
    since: timedelta = timedelta(days=30)


class ChangedUse(Answer):
    """A use of a key that occurred `uses` times, allowed or refused, and whose decision the change would turn around.

    `before` and `after` say whether it is allowed without and with the change.
    """

    client_id: str
    permission: Permission
    key_id: str
    before: bool
    after: bool
    uses: int


class SimulateAnswer(Answer):
    """The uses whose decision would change, of `entries` audit entries of this node, the oldest from `seen_since`.

    `unseen` are keys that were used in that time, but whose last use is not in this audit log: it happened on another
    node, or the part of the log with it was moved away.
    """

    changed: list[ChangedUse]
    entries: int
    seen_since: datetime | None
    unseen: list[str]


@operation(
    "POST",
    "/api/v1/policy/explain",
    permission=Permission.KEYS_READ,
    request=ExplainRequest,
    example={"permission": "keys:encrypt", "key_id": "orders"},
)
def explain_policy(service: Service, call: Call, request: ExplainRequest) -> ExplainAnswer:
    """Show whether a client may do something with a key, and every rule that was evaluated.

    Clients ask about themselves, owners about their keys, administrators and auditors about everything.
    """
    if request.permission not in ACTIONS:
        raise ValidationFailed(f"permission: {request.permission} is about no key.")
    if request.at is not None and request.at.year not in _YEARS:
        raise ValidationFailed(f"at: from the year {_YEARS[0]} to {_YEARS[-1]}.")
    asking, at = call.known_caller, service.circumstances(call)
    with service.vault.read() as snapshot:
        key = snapshot.key_named(request.key_id)
        if key is None or not decision.may_see_key(asking, key, at):
            raise decision.no_such_key(request.key_id)
        call.key_id = key.key_id
        asked_about = request.client_id or asking.client_id
        if asked_about != asking.client_id and key.owner != asking.client_id:
            policy.require(asking, Permission.CLIENTS_READ)
        client = clients.get(snapshot, asked_about)
        found = asking if asked_about == asking.client_id else callers.of(snapshot, client)
    now = request.at or at.now
    if request.second_factor_age is not None:
        found = replace(found, second_factor_at=now - timedelta(seconds=request.second_factor_age))
    at = Circumstances(request.source or at.source, now, request.action, at.account)
    told = explaining.explain(found, request.permission, key, at, request.associated_data)
    return ExplainAnswer(allowed=told.allowed, because=[ReasonView(**asdict(each)) for each in told.because])


@operation(
    "POST",
    "/api/v1/policy/simulate",
    permission=Permission.AUDIT_READ,
    request=SimulateRequest,
    checked_upfront=True,
    slow=True,
)
def simulate_policy(service: Service, call: Call, request: SimulateRequest) -> SimulateAnswer:
    """Show which past requests would be decided otherwise if grants were added and removed. Changes nothing.

    It looks at uses of keys that this node carried out or refused, and at all changes. It assumes that a second
    factor had just been given, and that the encryption context was one that the grants require.
    """
    if request.since < timedelta(0):
        raise ValidationFailed("since: is not negative.")
    now = service.clock()
    since = now - min(request.since, _LONGEST)
    with service.vault.read() as snapshot:
        last = snapshot.select(LastUse, tables.last_uses.c.used_at >= microseconds(since))
    elsewhere = {each.request_id: each.key_uid for each in last}
    uses, seen_since, entries = _uses(service, since, elsewhere)
    with service.vault.read() as snapshot:
        keys = [snapshot.find(Key, uid) for uid in set(elsewhere.values())]
        added = [grant_of(each, owner_of(each, call.known_caller), now) for each in request.add]
        missing = [each for each in request.remove if snapshot.find(Grant, each) is None]
        if missing:
            raise NotFound(f"remove: there is no grant {missing[0]}.")
        changed = _changed(_World(service, snapshot, added, frozenset(request.remove), now), uses)
    unseen = sorted(key.key_id for key in keys if key is not None)
    return SimulateAnswer(changed=changed, entries=entries, seen_since=seen_since, unseen=unseen)


@dataclass(frozen=True)
class _Use:
    """Something that was done or refused."""

    client_id: str
    permission: Permission
    key_id: str
    source: str
    operation: str


def _uses(
    service: Service, since: datetime, elsewhere: dict[str, bytes]
) -> tuple[Counter[_Use], datetime | None, int]:
    """What was done with keys since then, how often; when the first of it was; and how many entries were read.

    Requests that are found are taken out of `elsewhere`.
    """
    begins, counted, first, entries = timestamp(since), Counter[_Use](), None, 0
    for entry in newest_entries(service, _MOST_ENTRIES):
        if entry.time < begins:
            continue
        entries += 1
        elsewhere.pop(entry.request_id, None)
        first = min(first or entry.time, entry.time)
        declared = OPERATIONS.get(entry.operation)
        if declared is None or declared.permission is None or entry.key_id is None or entry.client_id is None:
            continue
        if entry.outcome == SUCCESS or entry.outcome in _WHAT_POLICY_REFUSED:
            times = max(1, entry.items or 1)
            use = _Use(entry.client_id, declared.permission, entry.key_id, entry.source, entry.operation)
            counted[use] += times
    return counted, datetime.fromisoformat(first) if first else None, entries


class _World:
    """Callers and keys as they are, and callers as they would be."""

    def __init__(
        self, service: Service, snapshot: Snapshot, added: Sequence[Grant], removed: frozenset[str], now: datetime
    ) -> None:
        self._snapshot, self._added, self._removed, self._now = snapshot, added, removed, now
        self._account = service.settings.aws_account_id
        self._callers: dict[str, tuple[Caller, Caller] | None] = {}
        self._keys: dict[str, Key | None] = {}

    def decided(self, use: _Use) -> tuple[bool, bool] | None:
        """What policy says of a use before and after; None where the client or the key is not there any more."""
        if use.client_id not in self._callers:
            self._callers[use.client_id] = self._pair(use.client_id)
        if use.key_id not in self._keys:
            self._keys[use.key_id] = self._snapshot.key_by_id(use.key_id)
        pair, key = self._callers[use.client_id], self._keys[use.key_id]
        if pair is None or key is None:
            return None
        at = Circumstances(use.source, self._now, use.operation, self._account)
        before, after = (decision.decide(caller, use.permission, key, at) for caller in pair)
        return before.allowed or bool(before.allowing), after.allowed or bool(after.allowing)

    def _pair(self, client_id: str) -> tuple[Caller, Caller] | None:
        client = clients.find(self._snapshot, client_id)
        if client is None:
            return None
        before = replace(callers.of(self._snapshot, client), second_factor_at=self._now)
        subjects = {
            names.of_client(client_id),
            *map(names.of_role, before.roles),
            *map(names.of_group, before.groups),
        }
        kept = tuple(grant for grant in before.grants if grant.grant_id not in self._removed)
        more = tuple(grant for grant in self._added if grant.subject in subjects)
        return before, replace(before, grants=kept + more)


def _changed(world: _World, uses: Counter[_Use]) -> list[ChangedUse]:
    found: Counter[tuple[str, Permission, str, bool, bool]] = Counter()
    for use, times in uses.items():
        decided = world.decided(use)
        if decided is not None and decided[0] != decided[1]:
            found[use.client_id, use.permission, use.key_id, *decided] += times
    return [
        ChangedUse(client_id=who, permission=what, key_id=key_id, before=before, after=after, uses=times)
        for (who, what, key_id, before, after), times in sorted(found.items())
    ]
