"""Which history of the database a change belongs to: what counters alone do not tell.

A failover of PostgreSQL may lose the last commits, and as many others may be made before a node that saw the lost
ones looks again. The counter of the head is then no lower than what that node knows. But each promotion of a replica
increases the server's timeline. So a change that finds the database on another timeline than the head says writes
down a `Switch`: what was committed up to its counter was kept, and what came after was lost. Whoever saw a later
change before the switch knows that it is gone. And whoever saw one after a switch that the database does not know is
on a former primary, which went on without it.

Two replicas that are promoted apart from each other may choose the same timeline. So a switch has a random name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from kms.errors import IntegrityFailure

NOT_KNOWN = 0
"""The timeline of a database that has none, or does not tell; and the branch of what was seen without one."""
FIRST_TIMELINE = 1
FIRST_BRANCH = 1
MOST_SWITCHES = 16
"""So many of the newest switches the head keeps."""
_BRANCHES = 1 << 16


class Switch(msgspec.Struct, array_like=True, frozen=True):
    """The database went on on `timeline` after the change `counter`. `branch` is its name, 16 random bits."""

    timeline: int
    counter: int
    branch: int

    @staticmethod
    def to(timeline: int, counter: int) -> Switch:
        """A new one."""
        return Switch(timeline, counter, secrets.randbelow(_BRANCHES - FIRST_BRANCH - 1) + FIRST_BRANCH + 1)


@dataclass(frozen=True)
class Seen:
    """What somebody has seen: a head with that counter, whose newest switch is named `branch`."""

    counter: int
    branch: int

    @property
    def word(self) -> int:
        """As 64 bits, which grow with the counter: 48 bits of it and 16 of the branch; 0 if it does not fit."""
        return self.counter * _BRANCHES + self.branch if self.counter >> 48 == 0 else 0

    @staticmethod
    def in_word(word: int) -> Seen:
        """What `word` says."""
        return Seen(*divmod(word, _BRANCHES))

    def require_kept(self, switches: tuple[Switch, ...], history_from: int | None) -> None:
        """Raise IntegrityFailure if a head with these switches goes on from before what was seen.

        They are all that there were since the change `history_from`; None where the head does not tell.
        """
        if self.branch == NOT_KNOWN:
            return
        for switch in reversed(switches):
            if switch.branch == self.branch:
                return
            if switch.counter < self.counter:
                lost = f"changes {switch.counter + 1} to {self.counter} that this node saw"
                raise IntegrityFailure(
                    f"The database lost {lost}: it was failed over to a copy that did not have them."
                )
        if self.branch != FIRST_BRANCH and history_from is not None and self.counter > history_from:
            raise IntegrityFailure(
                f"The database does not know the failover after which this node saw change {self.counter}: it is a "
                "former primary, or a copy of one, that went on by itself."
            )


def timeline_column() -> ColumnElement[str]:
    """The timeline on which a primary of PostgreSQL writes, as eight hexadecimal digits.

    The name of the file that it writes to begins with it. `pg_control_checkpoint()` would lag behind a promotion.
    """
    return func.substr(func.pg_walfile_name(func.pg_current_wal_insert_lsn()), 1, 8)


def timeline_of(connection: Connection) -> int:
    """The timeline of the database; `NOT_KNOWN` where it has none or does not tell, and the transaction can go on."""
    if connection.dialect.name != "postgresql":
        return NOT_KNOWN
    try:
        with connection.begin_nested():
            return int(connection.execute(select(timeline_column())).scalar_one(), 16)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return NOT_KNOWN
