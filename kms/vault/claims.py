"""Work that is done once for a database, by whichever worker claims it first.

A claim has an end, after which another may take it: a worker that dies holds nothing up for long. The clocks of hosts
may differ; then something may be done twice, which does no harm. The head does not cover the claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from kms.vault import tables
from kms.vault.records import microseconds
from kms.vault.store import Vault

_claims = tables.claims.c


@dataclass(frozen=True)
class Claim:
    """What is known of a task: until when it is taken, or not due, in microseconds; and how far it came."""

    until: int
    position: str


def look(vault: Vault, task: str) -> Claim:
    """What is known of `task`."""
    with vault.read() as snapshot:
        return _read(snapshot.connection, task)


def take(vault: Vault, task: str, now: datetime, period: timedelta, position: str = "") -> Claim | None:
    """Claim `task` for `period` if it is due, giving how far it is; None where another has it.

    `position` is where it begins if it is not under way already.
    """
    if look(vault, task).until > microseconds(now):
        return None
    with vault.change() as change:
        before = _read(change.connection, task)
        if before.until > microseconds(now):
            return None
        claim = Claim(microseconds(now + period), before.position or position)
        _write(change.connection, task, claim)
        return claim


def keep(vault: Vault, task: str, until: datetime, position: str = "") -> None:
    """Say how far a claimed task came, and until when it is taken from now on."""
    with vault.change() as change:
        _write(change.connection, task, Claim(microseconds(until), position))


def make_due(vault: Vault, task: str) -> None:
    """Have `task` done by who looks next, from its beginning."""
    with vault.change() as change:
        _write(change.connection, task, Claim(0, ""))


def _read(connection: Connection, task: str) -> Claim:
    query = select(_claims.claimed_until, _claims.position).where(_claims.task == task)
    found = connection.execute(query).first()
    return Claim(*found) if found is not None else Claim(0, "")


def _write(connection: Connection, task: str, claim: Claim) -> None:
    connection.execute(delete(tables.claims).where(_claims.task == task))
    row = {"task": task, "claimed_until": claim.until, "position": claim.position}
    connection.execute(insert(tables.claims).values(row))
