"""The nodes: hosts that serve from this database.

Each host has a row while it serves. A read of the head gives a lease only if it also finds this row. A change looks
for rows of other hosts in its transaction; if there are any, it waits until the leases that they may hold have
expired. Rows of nodes are written one after the other like all changes. So a host that joins is either seen by a
change, or sees the result of that change.

Each writes a heartbeat where there may be several hosts. A host without heartbeat is marked as leaving, so that it
gets no new lease; its row is removed only after its last lease has certainly expired. The time without heartbeat is
measured by the clock of the host that observes it.

With its heartbeat a host writes which release it runs and how far its clock is from the database's.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import delete, insert, update

from kms import __version__
from kms.clock import steady_seconds
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

_BEAT_SECONDS = 5.0
_SILENT_SECONDS = 30.0
_LEASES_UNTIL_FORGOTTEN = 3
_CLOCK_MAY_DIFFER_SECONDS = 5.0

_columns = tables.nodes.c


@dataclass(frozen=True, slots=True)
class Node:
    """One host. `beats` counts its heartbeats; a host that is `leaving` gets no lease any more.

    It runs `release`, whose newest schema is `revision`; its clock is `clock_offset` milliseconds ahead of the
    database's, or behind it where that is negative. These are what it says of itself; no code authenticates them.
    """

    node_id: str
    host: str
    beats: int
    leaving: bool
    release: str = ""
    revision: str = ""
    clock_offset: int = 0


@dataclass
class _Heard:
    beats: int
    leaving: bool
    since: float


@dataclass
class Nodes:
    """The table of nodes as this host sees it. `revision` is the newest schema of this release.

    `always_beats` where a node of another release, which is about to start, must be able to see that this one lives.
    """

    node_id: str
    lease_seconds: float
    revision: str = ""
    always_beats: bool = False
    others_alive: bool = False
    clock_offset: float = 0.0
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _last_beat: float = 0.0
    _beats_seen: int = -1
    _clock_differs: bool = False

    def look(self, snapshot: Snapshot) -> bool:
        """Take note of the nodes, and return whether this host is among them."""
        return self.note(self.all(snapshot))

    def note(self, found: list[Node]) -> bool:
        """As `look`, where the nodes were `found` already, read at one moment."""
        self.others_alive = bool(self.others(found))
        mine = next((node for node in found if node.node_id == self.node_id), None)
        if mine is not None and mine.beats != self._beats_seen:  # another worker of this host may have beaten
            self._beats_seen, self._last_beat = mine.beats, steady_seconds()
        self._listen(found, steady_seconds())
        return mine is not None and not mine.leaving

    @staticmethod
    def all(snapshot: Snapshot) -> list[Node]:
        """Every node."""
        return Nodes.of(snapshot.rows(tables.nodes))

    @staticmethod
    def of(rows: Iterable[tuple[Any, ...]]) -> list[Node]:
        """The nodes in `rows` of their table."""
        return [Node(row[0], row[1], row[2], bool(row[3]), row[4], row[5], row[6]) for row in rows]

    def others(self, nodes: list[Node]) -> list[Node]:
        """Those of `nodes` that are not this host. Its own row also stays where its service was killed."""
        return [node for node in nodes if node.node_id != self.node_id]

    def join(self, change: Change) -> None:
        """Put this host among the nodes."""
        self._forget(change, self.node_id)
        row = {"node_id": self.node_id, "host": socket.gethostname()[:255], "beats": 0, "leaving": 0}
        change.connection.execute(insert(tables.nodes).values(row | self._said()))

    def leave(self, change: Change) -> None:
        """Take this host away, once nothing of it answers any more."""
        self._forget(change, self.node_id)

    def is_beat_due(self) -> bool:
        """Whether others may be there to hear it, and it is time to beat again."""
        return (self.others_alive or self.always_beats) and steady_seconds() - self._last_beat >= _BEAT_SECONDS

    def beat(self, change: Change) -> None:
        """Beat, and see to it that silent nodes leave."""
        now = self._last_beat = steady_seconds()
        mine = _columns.node_id == self.node_id
        change.connection.execute(update(tables.nodes).where(mine).values(beats=_columns.beats + 1, **self._said()))
        others = self._listen(self.all(change), now)
        for node in others:
            silent = now - self._heard[node.node_id].since
            if node.leaving and silent > _LEASES_UNTIL_FORGOTTEN * self.lease_seconds:
                self._forget(change, node.node_id)
            elif not node.leaving and silent > _SILENT_SECONDS:
                it = _columns.node_id == node.node_id
                change.connection.execute(update(tables.nodes).where(it).values(leaving=1))

    def note_clock(self, offset: float) -> None:
        """Take note that this host's clock is `offset` seconds ahead of the database's; says so if that is much."""
        self.clock_offset = offset
        differs = abs(offset) > _CLOCK_MAY_DIFFER_SECONDS
        if differs != self._clock_differs:
            self._clock_differs = differs
            log = structlog.get_logger()
            if differs:
                log.warning("THE CLOCK OF THIS NODE DIFFERS from the database's", seconds_ahead=round(offset, 1))
            else:
                log.warning("the clock of this node agrees with the database's again")

    def _said(self) -> dict[str, str | int]:
        """What this host says of itself."""
        return {
            "release": __version__[:32],
            "revision": self.revision,
            "clock_offset": round(self.clock_offset * 1000),
        }

    def _listen(self, nodes: list[Node], now: float) -> list[Node]:
        """Take note of who has beaten since the last time; returns the others."""
        others = self.others(nodes)
        self._heard = {node.node_id: self._listened(node, now) for node in others}
        return others

    def silent_seconds(self, node_id: str) -> float | None:
        """How long ago this process found a new heartbeat of another node; None before it has looked for any."""
        heard = self._heard.get(node_id)
        return steady_seconds() - heard.since if heard is not None else None

    def _listened(self, node: Node, now: float) -> _Heard:
        before = self._heard.get(node.node_id)
        if before is not None and (before.beats, before.leaving) == (node.beats, node.leaving):
            return before
        return _Heard(node.beats, node.leaving, now)

    @staticmethod
    def _forget(change: Change, node_id: str) -> None:
        change.connection.execute(delete(tables.nodes).where(_columns.node_id == node_id))
