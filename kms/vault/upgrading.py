"""Before a migration: no node may serve that could not work with what it makes.

A node says in its row what it runs, and beats every few seconds. One that is silent is taken for dead. Its row is
removed in the transaction of the migration, so that it gets no lease should it wake up, and it cannot join again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, delete, inspect, select

from kms.clock import steady_seconds
from kms.errors import StartError
from kms.vault import tables
from kms.vault.sealed_schema import Schema

_SILENT_SECONDS = 30.0  # as `nodes` has it
_LOOKED_EVERY_SECONDS = 1.0
_columns = tables.nodes.c


@dataclass(frozen=True, slots=True)
class _Older:
    host: str
    revision: str
    beats: int


def silent_older_nodes(engine: Engine, sealed: Schema, new: Schema, node_id: str) -> dict[str, int]:
    """The nodes that the schema `new` would leave behind, and how often each has beaten, once all are silent.

    `sealed` is the schema now, `node_id` this host. Waits for half a minute where there are any. Raises StartError
    if one is alive.
    """
    if engine.dialect.name != "postgresql":
        return {}
    began = steady_seconds()
    with engine.connect() as connection:
        first = _older(connection, sealed, new, node_id)
    while first and steady_seconds() - began < _SILENT_SECONDS:
        time.sleep(_LOOKED_EVERY_SECONDS)
        with engine.connect() as connection:
            now = _older(connection, sealed, new, node_id)
        _require_silent(now, {each: node.beats for each, node in first.items()}, new)
    return {each: node.beats for each, node in first.items()}


def forget(connection: Connection, sealed: Schema, new: Schema, node_id: str, silent: Mapping[str, int]) -> None:
    """Remove the `silent` nodes, under the lock on the head. Raises StartError if one is not silent any more."""
    if connection.dialect.name == "postgresql" and sealed.revision < new.revision:
        _require_silent(_older(connection, sealed, new, node_id), silent, new)
    if silent:
        connection.execute(delete(tables.nodes).where(_columns.node_id.in_(list(silent))))


def _older(connection: Connection, sealed: Schema, new: Schema, node_id: str) -> dict[str, _Older]:
    if not inspect(connection).has_table("nodes"):
        return {}
    says_what_it_runs = any(each["name"] == "revision" for each in inspect(connection).get_columns("nodes"))
    wanted = [_columns.node_id, _columns.host, _columns.beats]
    query = select(*wanted, *([_columns.revision] if says_what_it_runs else []))
    found = {}
    for row in connection.execute(query.where(_columns.node_id != node_id)):
        revision = (row[3] if says_what_it_runs else "") or sealed.revision
        if revision < new.compatible_from:
            found[row[0]] = _Older(row[1], revision, row[2])
    return found


def _require_silent(nodes: Mapping[str, _Older], beats: Mapping[str, int], new: Schema) -> None:
    for node_id, node in nodes.items():
        if beats.get(node_id) != node.beats:
            raise StartError(
                f"The node {node.host!a} runs a release of schema {node.revision!a}, which cannot work with schema "
                f"{new.revision}: it must be {new.compatible_from} at least. Nothing was changed. Stop that node, or "
                "upgrade it by a release in between."
            )
