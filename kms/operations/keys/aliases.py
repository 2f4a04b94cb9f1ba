"""Aliases: other names of keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from kms.access import decision
from kms.access.policy import Permission
from kms.errors import AlreadyExists, NotFound, ValidationFailed
from kms.keys.ids import KeyId, is_alias, reserved_for
from kms.keys.model import Alias, Key
from kms.operations.core.declare import Answer, EmptyRequest, Request, operation
from kms.operations.core.key_access import authorized_key
from kms.operations.core.paging import sizes
from kms.operations.core.service import Call, Service
from kms.operations.core.types import Cursor, Limit
from kms.vault import tables
from kms.vault.change import Change


class SetAliasRequest(Request):
    """`key_id` is the key that the alias shall name.

    `exists` refuses the request unless there is such an alias already (true), or none yet (false).
    """

    key_id: KeyId
    exists: bool | None = None


class ListAliasesRequest(Request):
    """A page of aliases in alphabetical order; `cursor` is the `next_cursor` of the page before."""

    limit: Limit = 100
    cursor: Cursor | None = None


class AliasView(Answer):
    """Another name of a key, usable wherever a key id is. `updated_at` is when it was last pointed to a key."""

    alias: str
    key_id: str
    created_at: datetime
    updated_at: datetime


class AliasList(Answer):
    """A page of aliases."""

    items: list[AliasView]
    next_cursor: str | None


@operation(
    "PUT",
    "/api/v1/aliases/<alias>",
    permission=Permission.KEYS_UPDATE,
    request=SetAliasRequest,
    example={"key_id": "orders"},
)
def set_alias(service: Service, call: Call, request: SetAliasRequest, alias: str) -> AliasView:
    """Create an alias for a key, or point an existing alias to another key."""
    if not is_alias(alias) or reserved_for(alias) is not None:
        raise ValidationFailed("alias: must look like a key id, and not like the name of a flat key.")
    with service.change(call) as change:
        key = authorized_key(service, change, call, Permission.KEYS_UPDATE, request.key_id)
        before = _of_caller(service, change, call, alias)
        is_taken = change.key_by_id(alias) is not None or change.find(Alias, alias) is not None
        if before is None and request.exists:
            raise NotFound(f"There is no alias {alias}.")
        _require_no_other_meaning(service, change, call, alias)
        if is_taken and (before is None or request.exists is False):
            raise AlreadyExists(f"There is a key or an alias {alias} already.")
        if before is None:
            after = Alias(alias, key.uid, service.clock())
            change.insert(after)
        else:
            after = change.replace(before, replace(before, key_uid=key.uid, updated_at=service.clock()))
    return _view(after, key)


@operation(
    "GET", "/api/v1/aliases", permission=Permission.KEYS_READ, request=ListAliasesRequest, checked_upfront=True
)
def list_aliases(service: Service, call: Call, request: ListAliasesRequest) -> AliasList:
    """List the aliases of keys that the caller may see."""
    column = tables.aliases.c
    caller, at = call.known_caller, service.circumstances(call)
    found: list[AliasView] = []
    position = request.cursor
    with service.vault.read() as snapshot:
        for size in sizes(request.limit + 1):
            behind = [column.alias > position] if position is not None else []
            read = snapshot.select(Alias, *behind, order_by=column.alias, limit=size)
            keys = {key.uid: key for key in snapshot.select(Key, tables.keys.c.uid.in_([a.key_uid for a in read]))}
            for each in read:
                key = keys.get(each.key_uid)
                if key is not None and decision.may_see_key(caller, key, at):
                    found.append(_view(each, key))
            position = read[-1].alias if len(read) == size else None
            if position is None or len(found) > request.limit:
                break
    items = found[: request.limit]
    return AliasList(items=items, next_cursor=items[-1].alias if len(found) > len(items) else position)


@operation("DELETE", "/api/v1/aliases/<alias>", permission=Permission.KEYS_UPDATE)
def delete_alias(service: Service, call: Call, request: EmptyRequest, alias: str) -> AliasView:
    """Delete an alias; the key stays."""
    with service.change(call) as change:
        found = _of_caller(service, change, call, alias)
        if found is None:
            raise NotFound(f"There is no alias {alias}.")
        key = change.find(Key, found.key_uid)
        assert key is not None
        change.delete(found)
    return _view(found, key)


def _view(alias: Alias, key: Key) -> AliasView:
    updated_at = alias.updated_at or alias.created_at
    return AliasView(alias=alias.alias, key_id=key.key_id, created_at=alias.created_at, updated_at=updated_at)


def _require_no_other_meaning(service: Service, change: Change, call: Call, alias: str) -> None:
    """Raise AlreadyExists where the alias would take the place of another's in the AWS dialect.

    There `alias/X` of the default region is both the alias of that name and our alias X.
    """
    prefix = f"{service.settings.aws_region}:alias/"
    twin = alias.removeprefix(prefix) if alias.startswith(prefix) else prefix + alias
    found = change.find(Alias, twin) if is_alias(twin) else None
    key = change.find(Key, found.key_uid) if found else None
    if key is not None and not decision.allows(
        call.known_caller, Permission.KEYS_UPDATE, key, service.circumstances(call)
    ):
        raise AlreadyExists(f"There is a key or an alias {alias} already.")


def _of_caller(service: Service, change: Change, call: Call, alias: str) -> Alias | None:
    """The alias, if the caller may know of it. Raises PermissionDenied where that is all."""
    at = service.circumstances(call)
    found = change.find(Alias, alias) if is_alias(alias) else None
    key = change.find(Key, found.key_uid) if found else None
    if found is None or key is None or not decision.may_see_key(call.known_caller, key, at):
        return None
    decision.require_on_key(call.known_caller, Permission.KEYS_UPDATE, key, at)
    return found
