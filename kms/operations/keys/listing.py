"""Keys over REST: listing them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from sqlalchemy import ColumnElement, and_, case, exists, literal, or_

from kms.access import decision, policy
from kms.access.model import Caller
from kms.access.policy import Permission
from kms.crypto.registry import key_type
from kms.keys.ids import ClientId, KeyId
from kms.keys.model import Key, KeyState, KeyVersion, ShownState
from kms.operations.core.declare import Answer, Request, operation
from kms.operations.core.paging import sizes
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, KeyTypeName, Limit, Moment, Region
from kms.operations.keys.views import KeySummary, summary_members
from kms.vault import tables
from kms.vault.records import microseconds


class ListKeysRequest(Request):
    """A page of keys in the order of their ids; `cursor` is the `next_cursor` of the page before.

    A key must match all filters that are given. `label` is the name of a label, or `name:value`. `unused_since` is
    met by keys that were made before, and of which no version was used from then on (as `last-use` knows it).
    """

    limit: Limit = 100
    cursor: Cursor | None = None
    owner: ClientId | None = None
    region: Region | None = None
    type: KeyTypeName | None = None
    state: ShownState | None = None
    prefix: KeyId | None = None
    label: Annotated[str, msgspec.Meta(max_length=385)] | None = None
    unused_since: Moment | None = None


class KeyList(Answer):
    """A page of keys. There are more until `next_cursor` is null, also where a page has few or none."""

    items: list[KeySummary]
    next_cursor: str | None


@operation(
    "GET", "/api/v1/keys", permission=Permission.KEYS_READ, request=ListKeysRequest, example={"label": "env:prod"}
)
def list_keys(service: Service, call: Call, request: ListKeysRequest) -> KeyList:
    """List the keys that the caller may see."""
    now, caller, at = call.began, call.known_caller, service.circumstances(call)
    criteria = [perhaps_visible_to(caller), *_filters(request, now, service.settings.aws_region)]
    column = tables.keys.c.key_id
    found: list[tuple[Key, KeyVersion]] = []
    position = request.cursor
    with service.vault.read() as snapshot:
        for size in sizes(request.limit + 1):
            behind = [] if position is None else [column > position]
            read = snapshot.keys_with_latest(*criteria, *behind, order_by=column, limit=size)
            found += (pair for pair in read if decision.allows(caller, Permission.KEYS_READ, pair[0], at))
            position = read[-1][0].key_id if len(read) == size else None
            if position is None or len(found) > request.limit:
                break
    page = found[: request.limit]
    if len(found) > len(page):
        position = page[-1][0].key_id
    return KeyList(
        items=[KeySummary(**summary_members(key, latest, now)) for key, latest in page], next_cursor=position
    )


def perhaps_visible_to(caller: Caller) -> ColumnElement[bool]:
    """What policy may let the caller see; it is asked about each of these keys."""
    keys = tables.keys.c
    if any(Permission.KEYS_READ in policy.ANY_OWNER[role] for role in caller.roles):
        return keys.uid.is_not(None)
    granted = (
        and_(
            keys.owner == grant.owner,
            keys.key_id.startswith(grant.key_pattern[:-1], autoescape=True)
            if grant.key_pattern.endswith("*")
            else keys.key_id == grant.key_pattern,
        )
        for grant in caller.grants
        if Permission.KEYS_READ in grant.permissions
    )
    return or_(keys.owner == caller.client_id, keys.policy != "", *granted)


def _filters(request: ListKeysRequest, now: datetime, default_region: str) -> list[ColumnElement[bool]]:
    keys = tables.keys.c
    criteria: list[ColumnElement[bool]] = []
    if request.owner is not None:
        criteria.append(keys.owner == request.owner)
    if request.region is not None:
        primary = keys.region.in_({request.region, "" if request.region == default_region else request.region})
        replica = literal(" ").concat(keys.replicas).concat(" ").contains(f" {request.region} ", autoescape=True)
        criteria.append(or_(primary, replica))
    if request.type is not None:
        criteria.append(keys.type == key_type(request.type).name)
    if request.prefix is not None:
        criteria.append(keys.key_id.startswith(request.prefix, autoescape=True))
    if request.label is not None:
        name, colon, value = request.label.partition(":")
        stored = f"{_json(name)}:{_json(value) if colon else ''}"  # as `records` writes it: quotes end each string
        criteria.append(keys.labels.contains(stored, autoescape=True))
    if request.unused_since is not None:
        since, used = microseconds(request.unused_since), tables.last_uses.c
        criteria += [keys.created_at < since, ~exists().where(used.key_uid == keys.uid, used.used_at >= since)]
    if request.state is not None:
        criteria.append(state_at(now) == literal(str(request.state)))
    return criteria


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def state_at(now: datetime) -> ColumnElement[str]:
    """The state in which a key is shown, as an expression."""
    version, moment = tables.key_versions.c, microseconds(now)
    active = case((version.expires_at <= moment, str(KeyState.DEACTIVATED)), else_=str(KeyState.ACTIVE))
    awaits_material = or_(
        version.material_until <= moment, and_(version.material.is_(None), version.public_key.is_(None))
    )
    return case(
        (tables.keys.c.deletion_at.is_not(None), str(ShownState.PENDING_DELETION)),
        (
            and_(version.state.in_((KeyState.PRE_ACTIVATION, KeyState.ACTIVE)), awaits_material),
            str(KeyState.PRE_ACTIVATION),
        ),
        (version.state == KeyState.ACTIVE, active),
        (and_(version.state == KeyState.PRE_ACTIVATION, version.activate_at <= moment), active),
        else_=version.state,
    )
