"""What keys and algorithms are held: as a bill of materials for other programs, and as a list with what is due.

Both come in pages of key versions, and one request looks at a bounded number of them, so that a hundred thousand keys
never keep a worker from others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType
from sqlalchemy import ColumnElement, and_, func, or_

from kms.access import decision, policy
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.errors import ValidationFailed
from kms.keys.due_periods import Period, due_periods
from kms.keys.lifecycle import effective_state
from kms.keys.model import Key, KeyState, KeyVersion, Origin
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.paging import sizes
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, Limit
from kms.operations.keys.listing import perhaps_visible_to
from kms.operations.system.key_users import KeyUser, users_of
from kms.operations.system.post_quantum import perhaps_not_safe, strength_of
from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.rows import LastUse
from kms.vault.transaction import Snapshot

_LONGEST = timedelta(days=3660)


class InventoryRequest(Request):
    """A page of key versions, in the order of key ids and versions; `cursor` is the `next_cursor` of the page before.

    `limit` counts versions. `due`: only those with a period that is over, or will be `within` that time (ISO 8601),
    and was not answered by a rotation or a destruction. `not_post_quantum_safe`: only those in none of NIST's
    categories; not destroyed ones. With both, what meets both.
    """

    limit: Limit = 100
    cursor: Cursor | None = None
    due: bool = False
    not_post_quantum_safe: bool = False
    within: timedelta = timedelta(days=30)


class Inventory(Answer):
    """`bom` is a whole CycloneDX document about one page: it has each algorithm that a version on the page uses.

    The next page may name the same algorithms again, with the same `bom-ref`. There are more pages until
    `next_cursor` is null, also where a page has few versions or none.
    """

    bom: dict[str, Any]
    next_cursor: str | None


class DuePeriodView(Answer):
    """A part of the cryptoperiod (SP 800-57 part 1, section 5.3), when it ends, and what should be done."""

    period: Period
    ends_at: datetime
    is_over: bool
    advice: str


class HeldVersion(Answer):
    """A version of a key that is held.

    `nist_category` is NIST's category of its strength against quantum computers, 0 for none; `strength_source` says
    why. `key_last_used_at` is when any version of the key was used last, as in `get_last_use`. `users` are those whom
    grants let use the key, beside its `owner`; shown to the owner, administrators and auditors. Where
    `has_key_policy` is true, an AWS key policy lets others use it too.
    """

    key_id: str
    version: int
    type: str
    owner: str
    origin: Origin
    state: KeyState
    is_latest: bool
    created_at: datetime
    expires_at: datetime
    process_until: datetime
    next_rotation_at: datetime | None
    classical_bits: int
    nist_category: int
    strength_source: str
    due: list[DuePeriodView]
    has_key_policy: bool
    key_last_used_at: datetime | UnsetType = UNSET
    users: list[KeyUser] | UnsetType = UNSET


class HeldVersions(Answer):
    """A page of them. There are more until `next_cursor` is null, also where a page has few versions or none."""

    items: list[HeldVersion]
    next_cursor: str | None


@dataclass(frozen=True)
class _Page:
    held: list[tuple[Key, KeyVersion]]
    next_position: str | None
    last_used: dict[bytes, datetime]
    users: dict[str, list[KeyUser]]


@operation(
    "GET", "/api/v1/inventory", permission=Permission.KEYS_READ, request=InventoryRequest, example={"limit": 10}
)
def get_inventory(service: Service, call: Call, request: InventoryRequest) -> Inventory:
    """Show the keys that the caller may see, and their algorithms, as a CycloneDX bill of materials (CBOM)."""
    from kms.operations.system import cbom  # here: the library takes 10 MiB, and most workers are never asked

    page = _page(service, call, request)
    return Inventory(
        bom=cbom.bill_of_materials(page.held, page.last_used, call.began), next_cursor=page.next_position
    )


@operation(
    "GET",
    "/api/v1/inventory/versions",
    permission=Permission.KEYS_READ,
    request=InventoryRequest,
    example={"due": "true"},
)
def list_inventory(service: Service, call: Call, request: InventoryRequest) -> HeldVersions:
    """List key versions with their strength, what is due of them (SP 800-57), and who may use them."""
    page, now, within = _page(service, call, request), call.began, _within(request)
    items = []
    for key, version in page.held:
        strength = strength_of(key, version)
        item = HeldVersion(
            key_id=key.key_id,
            version=version.version,
            type=version.type,
            owner=key.owner,
            origin=key.origin,
            state=effective_state(version, now),
            is_latest=version.version == key.latest_version,
            created_at=version.created_at,
            expires_at=version.expires_at,
            process_until=version.process_until,
            next_rotation_at=key.next_rotation_at,
            classical_bits=strength.classical_bits,
            nist_category=strength.category,
            strength_source=strength.source,
            due=[DuePeriodView(**asdict(each)) for each in due_periods(key, version, now, within)],
            has_key_policy=bool(key.policy),
            key_last_used_at=page.last_used.get(key.uid, UNSET),
            users=page.users.get(key.key_id, UNSET),
        )
        items.append(item)
    return HeldVersions(items=items, next_cursor=page.next_position)


def _within(request: InventoryRequest) -> timedelta:
    if not timedelta() <= request.within <= _LONGEST:
        raise ValidationFailed(f"within: from P0D to P{_LONGEST.days}D.")
    return request.within


def _page(service: Service, call: Call, request: InventoryRequest) -> _Page:
    caller = call.known_caller
    with service.vault.read() as snapshot:
        held, position = _held(service, snapshot, call, request)
        keys = list({key.uid: key for key, _ in held}.values())
        told = [key for key in keys if _may_see_users(caller, key)]
        users = dict(users_of(snapshot, caller, told, call.began))
        last_used = _last_used(service, snapshot, keys)
    return _Page(held, position, last_used, users)


def _held(
    service: Service, snapshot: Snapshot, call: Call, request: InventoryRequest
) -> tuple[list[tuple[Key, KeyVersion]], str | None]:
    """Versions that the caller may see and that are asked for; and the position to go on from, None at the end."""
    caller, at, now, within = call.known_caller, service.circumstances(call), call.began, _within(request)
    criteria = [perhaps_visible_to(caller), *_filters(request, now + within)]
    keys, versions = tables.keys.c, tables.key_versions.c
    held: list[tuple[Key, KeyVersion]] = []
    visible: dict[bytes, bool] = {}
    position = request.cursor
    for size in sizes(request.limit):
        behind = [] if position is None else [_behind(position)]
        pairs = snapshot.keys_with_versions(*criteria, *behind, order_by=(keys.key_id, versions.version), limit=size)
        for key, version in pairs:
            position = f"{key.key_id} {version.version}"
            if key.uid not in visible:
                visible[key.uid] = decision.allows(caller, Permission.KEYS_READ, key, at)
            if visible[key.uid] and _is_asked_for(request, key, version, now, within):
                held.append((key, version))
                if len(held) == request.limit:
                    return held, position
        if len(pairs) < size:
            return held, None
    return held, position


def _behind(position: str) -> ColumnElement[bool]:
    key_id, _, version = position.partition(" ")
    keys, versions = tables.keys.c, tables.key_versions.c
    return and_(keys.key_id >= key_id, or_(keys.key_id > key_id, versions.version > int(version)))


def _filters(request: InventoryRequest, end: datetime) -> Iterator[ColumnElement[bool]]:
    """What the database can leave out; `_is_asked_for` says for certain."""
    keys, versions = tables.keys.c, tables.key_versions.c
    if request.due:
        rotation_is_due = and_(versions.version == keys.latest_version, versions.expires_at <= microseconds(end))
        yield or_(rotation_is_due, versions.process_until <= microseconds(end))
        yield func.coalesce(keys.deletion_at, 0) == 0
    if request.not_post_quantum_safe:
        yield perhaps_not_safe()
    if request.due or request.not_post_quantum_safe:
        yield versions.state != KeyState.DESTROYED


def _is_asked_for(request: InventoryRequest, key: Key, version: KeyVersion, now: datetime, within: timedelta) -> bool:
    if request.due and not due_periods(key, version, now, within):
        return False
    return not (request.not_post_quantum_safe and strength_of(key, version).is_post_quantum_safe)


def _may_see_users(caller: Caller, key: Key) -> bool:
    is_own = key.owner == caller.client_id and policy.has_permission(caller, Permission.GRANTS_MANAGE)
    return is_own or policy.has_permission(caller, Permission.CLIENTS_READ)


def _last_used(service: Service, snapshot: Snapshot, keys: Sequence[Key]) -> dict[bytes, datetime]:
    """When each of the keys was used last, by what is written and what this worker has not written yet."""
    column = tables.last_uses.c.key_uid
    written = snapshot.select(LastUse, column.in_([key.uid for key in keys])) if keys else []
    found = {each.key_uid: each.used_at for each in written}
    for key in keys:
        seen = service.last_uses.seen(key.key_id)
        if seen is not None and seen[0] >= max(key.created_at, found.get(key.uid, key.created_at)):
            found[key.uid] = seen[0]
    return found
