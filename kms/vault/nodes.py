"""The nodes: hosts that serve from this database.

Each host has a row while it serves. A read of the head gives a lease only if it also finds this row. A change looks
for rows of other hosts in its transaction; if there are any, it waits until the leases that they may hold have
expired. Rows of nodes are written one after the other like all changes. So a host that joins is either seen by a
change, or sees the result of that change.

While there are several hosts, each writes a heartbeat. A host without heartbeat is marked as leaving, so that it gets
no new lease; its row is removed only after its last lease has certainly expired. The time without heartbeat is
measured by the clock of the host that observes it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, update

from kms.clock import steady_seconds
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.transaction import Snapshot

_BEAT_SECONDS = 5.0
_SILENT_SECONDS = 30.0
_LEASES_UNTIL_FORGOTTEN = 3

_columns = tables.nodes.c


@dataclass(frozen=True, slots=True)
class Node:
    """One host. `beats` counts its heartbeats; a host that is `leaving` gets no lease any more."""

    node_id: str
    host: str
    beats: int
    leaving: bool


@dataclass
class _Heard:
    beats: int
    leaving: bool
    since: float


@dataclass
class Nodes:
    """The table of nodes as this host sees it."""

    node_id: str
    lease_seconds: float
    others_alive: bool = False
    _heard: dict[str, _Heard] = field(default_factory=dict)
    _last_beat: float = 0.0

    def look(self, snapshot: Snapshot) -> bool:
        """Whether this host is among the nodes."""
        found = self.all(snapshot)
        self.others_alive = any(node.node_id != self.node_id for node in found)
        return any(node.node_id == self.node_id and not node.leaving for node in found)

    @staticmethod
    def all(snapshot: Snapshot) -> list[Node]:
        """Every node."""
        return [Node(row[0], row[1], row[2], bool(row[3])) for row in snapshot.rows(tables.nodes)]

    def join(self, change: Change) -> None:
        """Put this host among the nodes."""
        self._forget(change, self.node_id)
        row = {"node_id": self.node_id, "host": socket.gethostname()[:255], "beats": 0, "leaving": 0}
        change.connection.execute(insert(tables.nodes).values(row))

    def leave(self, change: Change) -> None:
        """Take this host away, once nothing of it answers any more."""
        self._forget(change, self.node_id)

    def is_beat_due(self) -> bool:
        """Whether others are there to hear it, and it is time to beat again."""
        return self.others_alive and steady_seconds() - self._last_beat >= _BEAT_SECONDS

    def beat(self, change: Change) -> None:
        """Beat, and see to it that silent nodes leave."""
        now = self._last_beat = steady_seconds()
        mine = _columns.node_id == self.node_id
        change.connection.execute(update(tables.nodes).where(mine).values(beats=_columns.beats + 1))
        others = [node for node in self.all(change) if node.node_id != self.node_id]
        self._heard = {node.node_id: self._listened(node, now) for node in others}
        for node in others:
            silent = now - self._heard[node.node_id].since
            if node.leaving and silent > _LEASES_UNTIL_FORGOTTEN * self.lease_seconds:
                self._forget(change, node.node_id)
            elif not node.leaving and silent > _SILENT_SECONDS:
                it = _columns.node_id == node.node_id
                change.connection.execute(update(tables.nodes).where(it).values(leaving=1))

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
