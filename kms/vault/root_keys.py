"""Changing the root key while the service runs.

1. `begin` makes the next root key and, in one commit, seals the head under it. From then on whatever is written is
   under the new key. Processes that do not have it yet find it in `root_keys`, sealed under the one before. The
   keyslots hold both from now on; for the end they also hold, aside, the keyset without the old one, because the
   process that ends the change may not be able to wrap.
2. `renew_rows` brings every row under the new key, some at a time. A row that is not authentic, under whichever key,
   is named and left, and then the change does not end. Nothing that callers see changes, so no worker forgets
   anything. One process does it at a time; if it dies, another one goes on.
3. `end` removes the old root key from the keyslots and `root_keys`. The head says from then on which is the oldest
   root key in use, and whatever is under an older one is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Table, func, select, tuple_

from kms.errors import Conflict, IntegrityFailure
from kms.vault import claims, keyslots, names, recovery, sealed_columns, tables
from kms.vault.change import Change
from kms.vault.checking import shown
from kms.vault.integrity import check_row
from kms.vault.keyset import Keyset, new_secret
from kms.vault.opening import sealed_again
from kms.vault.rows import Keyslot, NewRootKey
from kms.vault.sealing import DerivedKeys, SealBroken, number_of_code, number_of_sealed
from kms.vault.seals import Seals
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

TASK = "root key"
"""The task of that name (see `kms.vault.claims`)."""

_ROWS_AT_ONCE = 100
_CLAIM = timedelta(seconds=20)
_AGAIN_AFTER = timedelta(minutes=10)
_PUT_OFF = "put off"
_KEEP_SECONDS = 5.0
_ASIDE = ":after"


@dataclass(frozen=True)
class Progress:
    """How many rows of the vault are under the new root key, and how many there are."""

    done: int
    total: int


@dataclass(frozen=True)
class Left:
    """Rows that could not be brought under the root key `number`, because they are not authentic."""

    rows: tuple[str, ...]
    number: int


class Rewrap:
    """Wraps another keyset of a vault for its keyslots, by these seals and for its recovery key."""

    def __init__(self, seals: Seals, vault_id: bytes) -> None:
        self._seals = seals
        self._vault_id = vault_id

    def __call__(self, slot: Keyslot, keyset: Keyset) -> Keyslot:
        """The keyslot with `keyset`. Raises StartError, also where the seal does not open what is there now."""
        if slot.slot == keyslots.RECOVERY:
            return recovery.rewrapped(slot, keyset, DerivedKeys(keyset, self._vault_id))
        keyslots.keyset_of(slot, self._seals, self._vault_id)  # its key may be another since the vault was opened
        seal = self._seals.named(keyslots.SealRecord.decoded(slot.seal).name)
        return keyslots.wrapped(slot.slot, seal, slot.seal, keyset, self._vault_id)


def is_under_way(snapshot: Snapshot) -> bool:
    """Whether the root key is being changed."""
    return bool(snapshot.connection.execute(select(func.count()).select_from(tables.root_keys)).scalar_one())


def begin(vault: Vault, rewrap: Rewrap, now: datetime, entry: str, *, offline: bool = False) -> int:
    """Make the next root key and use it from now on; returns its number. `entry` is the audit entry.

    If it is `offline`, the new root key is not put into `root_keys`, where whoever knows the old one could read it.
    Then no other process may serve until the end.

    Raises Conflict if a change is under way or the seal is being changed, and what `rewrap` and `Vault.change` raise.
    """
    keys = vault.derived_keys
    before, number = keys.keyset, keys.keyset.newest + 1
    root_key = new_secret()
    after = before.plus(number, root_key)
    with vault.read() as snapshot:
        seen = snapshot.select(Keyslot)
        _require_quiet(snapshot, seen)
    # Outside of the change: another KMS may take its time, and a person too.
    slots = [(during, rewrap(during, after.since(number))) for during in (rewrap(each, after) for each in seen)]
    sealed = b"" if offline else keys.seal_root_key(number, root_key)
    try:
        with vault.change() as change:
            _require_quiet(change, seen)
            keys.adopt(after)
            for during, aside in slots:
                keyslots.put(change, during)
                keyslots.put(change, replace(aside, slot=during.slot + _ASIDE))
            change.insert(NewRootKey(number, sealed, now))
            claims.make_due_in(change, TASK)
            sealed_again(change.connection, keys)
            change.record(entry)
    except BaseException:
        keys.adopt(before)  # nothing may be written under a root key that nobody else can find
        raise
    return number


def _require_quiet(snapshot: Snapshot, seen: list[Keyslot]) -> None:
    if is_under_way(snapshot):
        raise Conflict("The root key is being changed already.")
    if snapshot.select(Keyslot) != seen:
        raise Conflict("The seals were changed at the same moment. Try again.")
    if snapshot.find(Keyslot, keyslots.NEXT) is not None:
        raise Conflict("The seal is being changed: restart the service with the new one, or abandon it, first.")


def renew_rows(
    vault: Vault,
    clock: Callable[[], datetime],
    pause: Callable[[], None],
    is_stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Left | None:
    """Bring every row under the newest root key, if no other process does; None if one does, or it was stopped.

    None also if others have ended this change meanwhile and begun the next one. `pause` is called between two
    commits. Raises Unavailable.
    """
    claim = claims.take(vault, TASK, clock(), _CLAIM, longest=_AGAIN_AFTER)
    if claim is None:
        return None
    number = vault.derived_keys.current
    begins_at, done, total = _position(claim.position, number)
    total = total or rows_in_all(vault)
    kept = time.monotonic()
    left: list[str] = []
    resume_at = begins_at
    for table in _renewed_tables():
        name = str(table.name)
        if name < begins_at:
            continue
        if not left:
            resume_at = name  # who goes on begins where the first row was left, and names it too
        for count, altered in _renewed(vault, table):
            done += count
            left += altered
            progress(Progress(done, total))
            if time.monotonic() - kept > _KEEP_SECONDS:
                claims.keep(vault, TASK, clock() + _CLAIM, f"{number} {resume_at} {done} {total}")
                kept = time.monotonic()
            if is_stopping() or vault.derived_keys.current != number:
                return None
            pause()
    return Left(tuple(left), number)


def _renewed_tables() -> list[Table]:
    # The new root key itself stays under the one before: that is what the row is for.
    every = (table for table in tables.authenticated_tables() if table is not tables.root_keys)
    return sorted(every, key=lambda table: str(table.name))


def put_off(vault: Vault, now: datetime) -> None:
    """Have nobody go on for ten minutes, because rows were left: looking at them again would find the same."""
    claims.keep(vault, TASK, now + _AGAIN_AFTER, _PUT_OFF)


def go_on(vault: Vault) -> None:
    """Have it done by who looks next, if it was put off."""
    if claims.look(vault, TASK).position == _PUT_OFF:
        claims.make_due(vault, TASK)


def progress_of(vault: Vault) -> Progress | None:
    """How far a process of the service has come; None if none has begun."""
    _, done, total = _position(claims.look(vault, TASK).position, vault.derived_keys.current)
    return Progress(done, total) if total else None


def _position(text: str, number: int) -> tuple[str, int, int]:
    """The table that is next, the rows done and all rows; from the beginning if `text` is not about this root key."""
    match text.split(" "):
        case [found, name, done, total] if found == str(number):
            return name, int(done), int(total)
    return "", 0, 0


def rows_in_all(vault: Vault) -> int:
    """How many rows are to be brought under a new root key."""
    with vault.read() as snapshot:
        head = snapshot.head()
    return sum(digest.count for digest in head.digests.values()) + head.last_entry - head.lost_entries


def _renewed(vault: Vault, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Bring the rows of a table under the newest root key; yields how many were looked at, and which are altered."""
    place = tuple(table.primary_key.columns)
    query = select(table).order_by(*place).limit(_ROWS_AT_ONCE)
    after: tuple[Any, ...] | None = None

    def values_of(row: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(table.columns.keys(), row, strict=True))

    while True:
        this = query if after is None else query.where(tuple_(*place) > tuple_(*after))
        with vault.read() as snapshot:  # there is nothing to do where another process was
            snapshot.head()  # whoever slept through this change must not take the rows of the next for altered ones
            rows = [tuple(row) for row in snapshot.connection.execute(this)]
        if any(_is_old(table, row, vault.derived_keys.current) for row in rows):
            with vault.change() as change:
                rows = [tuple(row) for row in change.connection.execute(this)]  # they may be others by now
                altered = _renew(change, table, rows)
        else:
            altered = [row for row in rows if not _is_authentic(vault.derived_keys, table, row)]
        if not rows:
            return
        yield len(rows), [f"{table.name} {shown(table, values_of(row))}" for row in altered]
        last = values_of(rows[-1])
        after = tuple(last[column.name] for column in place)


def _is_old(table: Table, row: tuple[Any, ...], number: int) -> bool:
    """Whether anything in the row is under a root key before `number`.

    Whatever replaces a row gives it a new code, and leaves what is sealed in it as it was.
    """
    if number_of_code(bytes(row[-1])) < number:
        return True
    try:
        return any(number_of_sealed(bytes(row[at])) < number for at in _sealed_places(table) if row[at] is not None)
    except SealBroken:  # it was altered, and is named as such
        return True


@cache
def _sealed_places(table: Table) -> tuple[int, ...]:
    names = [column.name for column in table.columns]
    return tuple(names.index(column) for name, column in sealed_columns.SEALED_COLUMNS if name == str(table.name))


def _is_authentic(keys: DerivedKeys, table: Table, row: tuple[Any, ...]) -> bool:
    """Whether its code is right, under whatever root key it says that it is."""
    try:
        check_row(keys, table, row)
    except IntegrityFailure:
        return False
    return True


def _renew(change: Change, table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Bring those rows under the newest root key that are not; returns those that are not authentic."""
    keys, renewed = change.derived_keys, []
    columns = table.columns.keys()
    altered = [row for row in rows if not _is_authentic(keys, table, row)]
    old = [row for row in rows if row not in altered and _is_old(table, row, keys.current)]
    as_maps = [dict(zip(columns, row, strict=True)) for row in old]
    bindings = sealed_columns.bindings(change.connection, table, as_maps)
    for row, values in zip(old, as_maps, strict=True):
        try:
            renewed.append((values, _sealed_anew(change, values, bindings)))
        except SealBroken:
            altered.append(row)
    change.renew(table, renewed)
    return altered


def _sealed_anew(
    change: Change, values: Mapping[str, Any], bindings: Mapping[str, sealed_columns.Binding]
) -> dict[str, Any]:
    keys, anew = change.derived_keys, dict(values)
    for column, binding in bindings.items():
        if values[column] is not None:
            anew[column] = keys.seal(keys.open(bytes(values[column]), binding(values)), binding(values))
    return anew


def end(vault: Vault, number: int, entry: str) -> None:
    """Take the root keys before `number` out of use, once `renew_rows` has left nothing under them.

    `entry` is the audit entry. Does nothing if another process was first, also where the next change of the root key
    has begun since. Raises as `Vault.change`.
    """
    keys = vault.derived_keys
    with vault.change() as change:
        if change.find(NewRootKey, number) is None:
            return
        for aside in [each for each in change.select(Keyslot) if each.slot.endswith(_ASIDE)]:
            change.delete(aside)
            keyslots.put(change, replace(aside, slot=aside.slot.removesuffix(_ASIDE)))
        change.delete(*change.select(NewRootKey))
        claims.renew(change)
        claims.make_due_in(change, TASK)
        change.oldest_root_key = number
        # What is remembered may hold values sealed under the old one, or rest on rows forged with it meanwhile.
        change.outdated.add(names.EVERYTHING)
        change.record(entry)
    keys.retire_before(number)
