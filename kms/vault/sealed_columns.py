"""The columns whose values are sealed, and what each value is bound to: its place and its meaning.

Whoever seals or opens one of them takes the binding from here, and so does the change of the root key, which seals
all of them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Table, select

from kms.vault import tables
from kms.vault.sealing import SealContext

Row = Mapping[str, Any]
Binding = Callable[[Row], SealContext]


def totp_secret(client_id: str) -> SealContext:
    """The TOTP secret of a client."""
    return ("totp", client_id)


def access_key_secret(access_key_id: str, client_id: str) -> SealContext:
    """The secret of an access key."""
    return ("access key", access_key_id, client_id)


def wrapping_key(wrapping_key_id: str, owner: str) -> SealContext:
    """The private half of a key for imports."""
    return ("wrapping key", wrapping_key_id, owner)


def service_key(name: str) -> SealContext:
    """A key of the service itself."""
    return ("service key", name)


def notice(notice_id: str, what: str) -> SealContext:
    """The `target` or the `secret` of a notice."""
    return ("notice", what, notice_id)


def approval(approval_id: str, requester: str, what: str) -> SealContext:
    """The `request` or the `result` of a call that waits, or waited, for approval."""
    return ("approval", what, approval_id, requester)


def material(key_uid: bytes, sealed_as: str, version: int, key_type: str) -> SealContext:
    """The material of a version of the key that has, or first had, the id `sealed_as`."""
    return ("key version", key_uid, sealed_as, version, key_type)


def bindings(connection: Connection, table: Table, rows: Iterable[Row]) -> Mapping[str, Binding]:
    """For each sealed column of `table` what its value in one of `rows` is bound to."""
    if table is tables.key_versions:
        return {"material": _of_material(connection, rows)}
    return _SEALED.get(str(table.name), {})


_SEALED: Mapping[str, Mapping[str, Binding]] = {
    "clients": {"totp_secret": lambda row: totp_secret(row["client_id"])},
    "access_keys": {"secret": lambda row: access_key_secret(row["access_key_id"], row["client_id"])},
    "wrapping_keys": {"material": lambda row: wrapping_key(row["wrapping_key_id"], row["owner"])},
    "service_keys": {"material": lambda row: service_key(row["name"])},
    "notices": {
        "target": lambda row: notice(row["notice_id"], "target"),
        "secret": lambda row: notice(row["notice_id"], "secret"),
    },
    "approvals": {
        "request": lambda row: approval(row["approval_id"], row["requester"], "request"),
        "result": lambda row: approval(row["approval_id"], row["requester"], "result"),
    },
}
SEALED_COLUMNS = {(table, column) for table, columns in _SEALED.items() for column in columns}
SEALED_COLUMNS |= {("key_versions", "material")}
"""All of them, by table and column."""


def _of_material(connection: Connection, rows: Iterable[Row]) -> Binding:
    column = tables.keys.c
    uids = {bytes(row["key_uid"]) for row in rows}
    query = select(column.uid, column.key_id, column.former_id).where(column.uid.in_(uids))
    ids = {bytes(uid): former_id or key_id for uid, key_id, former_id in connection.execute(query)}

    def binding(row: Row) -> SealContext:
        uid = bytes(row["key_uid"])
        return material(uid, ids.get(uid, ""), row["version"], row["type"])

    return binding
