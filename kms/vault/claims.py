"""Work that is done once for a database, by whichever worker claims it first.

A claim has an end, after which another may take it: a worker that dies holds nothing up for long. The clocks of
hosts may differ; then something may be done twice, which does no harm. The head does not cover the claims. So nobody
may put anything off by them: a claim carries a code, lies no further ahead than its task ever puts it, and how far it
came counts for a few minutes only, so that an old one says nothing.
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
    """What is known of a task: until when it is taken, or not due, in microseconds; and how far it came."""

    until: int
    position: str


def look(vault: Vault, task: str) -> Claim:
    """What is known of `task`."""
    with vault.read() as snapshot:
        return _read(snapshot, task)


def take(
    vault: Vault, task: str, now: datetime, period: timedelta, position: str = "", longest: timedelta | None = None
) -> Claim | None:
    """Claim `task` for `period` if it is due, giving how far it is; None where another has it.

    `position` is where it begins if it is not under way already. No claim is believed that lies further ahead than
    `longest`, which is the period where it is not given.
    """
    ahead = microseconds(now + (longest or period) + _CLOCKS_DIFFER_BY)
    if microseconds(now) < look(vault, task).until <= ahead:
        return None
    with vault.change() as change:
        before = _read(change, task)
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
        _write(change, task, Claim(0, ""))


def _read(snapshot: Snapshot, task: str) -> Claim:
    query = select(_claims.claimed_until, _claims.position, _claims.code).where(_claims.task == task)
    found = snapshot.connection.execute(query).first()
    if found is None:
        return Claim(0, "")
    claim = Claim(found[0], found[1])
    return claim if bytes(found[2]) == _code(snapshot, task, claim) else Claim(0, "")


def _write(change: Change, task: str, claim: Claim) -> None:
    change.connection.execute(delete(tables.claims).where(_claims.task == task))
    row = {"task": task, "claimed_until": claim.until, "position": claim.position}
    change.connection.execute(insert(tables.claims).values({**row, "code": _code(change, task, claim)}))


def _code(snapshot: Snapshot, task: str, claim: Claim) -> bytes:
    return snapshot.derived_keys.row_mac(msgspec.msgpack.encode(("claims", task, claim.until, claim.position)))
