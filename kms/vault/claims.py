"""Claims: a task that is to be done once per database is done by the worker that claims it first.

A claim expires, so that a worker that dies does not block a task for long. If the clocks of hosts differ, a task may
be done twice, which does no harm. Claims are not covered by the head. An attacker who writes to the database must
still not be able to postpone a task, so a claim has an authentication code, is ignored if it lies further in the
future than its task allows, and its `position` counts for a few minutes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import delete, insert, select

from kms.vault import tables
from kms.vault.change import Change
from kms.vault.records import microseconds
from kms.vault.store import Vault
from kms.vault.transaction import Snapshot

_claims = tables.claims.c
_RECENT = timedelta(minutes=10)
_CLOCKS_DIFFER_BY = timedelta(minutes=2)


@dataclass(frozen=True)
class Claim:
    """The state of a task: claimed or not due before `until` (microseconds since 1970), and done up to `position`."""

    until: int
    position: str


def look(vault: Vault, task: str) -> Claim:
    """What is known of `task`."""
    with vault.read() as snapshot:
        return read(snapshot, task)


def take(
    vault: Vault, task: str, now: datetime, period: timedelta, position: str = "", longest: timedelta | None = None
) -> Claim | None:
    """Claim `task` for `period` if it is due, and return the claim; None if it is not due or another worker has it.

    `position` is where the task begins, unless it is under way already. An existing claim that lies further in the
    future than `longest` (by default `period`) is ignored.
    """
    ahead = microseconds(now + (longest or period) + _CLOCKS_DIFFER_BY)
    if microseconds(now) < look(vault, task).until <= ahead:
        return None
    with vault.change() as change:
        before = read(change, task)
        if microseconds(now) < before.until <= ahead:
            return None
        is_recent = abs(microseconds(now) - before.until) < _RECENT // timedelta(microseconds=1)
        claim = Claim(microseconds(now + period), before.position if before.position and is_recent else position)
        _write(change, task, claim)
        return claim


def keep(vault: Vault, task: str, until: datetime, position: str = "") -> None:
    """Say how far a claimed task came, and until when it is taken from now on."""
    with vault.change() as change:
        _write(change, task, Claim(microseconds(until), position))


def make_due(vault: Vault, task: str) -> None:
    """Have `task` done by who looks next, from its beginning."""
    with vault.change() as change:
        make_due_in(change, task)


def make_due_in(change: Change, task: str) -> None:
    """As `make_due`, in a change that does more."""
    _write(change, task, Claim(0, ""))


def note(vault: Vault, task: str, at: datetime, position: str = "") -> None:
    """Say when `task` was done last and up to what, without a commit that the head counts. Raises Unavailable."""
    with vault.write_beside_the_head() as connection:
        _write(Snapshot(connection, vault.derived_keys), task, Claim(microseconds(at), position))


def renew(change: Change) -> None:
    """Bring what is known of every task under the newest root key."""
    for (task,) in change.connection.execute(select(_claims.task)).all():
        claim = read(change, task)
        if claim != Claim(0, ""):
            _write(change, task, claim)


def read(snapshot: Snapshot, task: str) -> Claim:
    """What is known of `task` there."""
    query = select(_claims.claimed_until, _claims.position, _claims.code).where(_claims.task == task)
    found = snapshot.connection.execute(query).first()
    if found is None:
        return Claim(0, "")
    claim = Claim(found[0], found[1])
    return claim if snapshot.derived_keys.is_row_mac(bytes(found[2]), _content(task, claim)) else Claim(0, "")


def _write(writing: Snapshot, task: str, claim: Claim) -> None:
    writing.connection.execute(delete(tables.claims).where(_claims.task == task))
    code = writing.derived_keys.row_mac(_content(task, claim))
    row = {"task": task, "claimed_until": claim.until, "position": claim.position, "code": code}
    writing.connection.execute(insert(tables.claims).values(row))


def _content(task: str, claim: Claim) -> bytes:
    return msgspec.msgpack.encode(("claims", task, claim.until, claim.position))
