"""Writes the table of operations that travels with the client library: `python -m kms.api.client_table`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from kms import client
from kms.access.policy import USES, Permission
from kms.api import openapi
from kms.api.groups import groups
from kms.api.requests import alternatives
from kms.client.operations import ClientOperation, Member
from kms.operations import Operation

TABLE = Path(client.__file__).with_name("operations.json")
_REPEATABLE = USES | {Permission.PRIMITIVES_USE}
_SECRETS = {"code", "passphrase", "subject_token", "assertion", "client_assertion", "plaintext", "key"}


def table() -> bytes:
    """The table as JSON, an operation on each line."""
    lines = [msgspec.json.encode(_described(each, group.title)) for group in groups() for each in group.operations]
    return b"[\n" + b",\n".join(lines) + b"\n]\n"


def _described(operation: Operation, group: str) -> ClientOperation:
    return ClientOperation(
        name=operation.name,
        group=group,
        method=operation.method,
        path=re.sub(r"<(?:int:|path:)?(\w+)>", r"{\1}", operation.path),
        about=openapi.summary(operation),
        variables=re.findall(r"<(?:int:|path:)?(\w+)>", operation.path),
        members=_members(operation),
        example=openapi.example_of(operation),
        repeatable=operation.method == "GET" or operation.permission in _REPEATABLE,
        takes_items=operation.batch is not None,
    )


def _members(operation: Operation) -> list[Member]:
    fields = msgspec.inspect.type_info(operation.request)
    assert isinstance(fields, msgspec.inspect.StructType)
    found = []
    for field in fields.fields:
        kind, choices = _kind(field.type)
        name = field.encode_name
        found.append(
            Member(name=name, kind=kind, required=field.required, choices=choices, is_secret=name in _SECRETS)
        )
    return found


def _kind(kind: msgspec.inspect.Type) -> tuple[str, list[str]]:
    """How a member is given, and the closed set that it is from, if it is."""
    found = [each for each in alternatives(kind) if not isinstance(each, msgspec.inspect.NoneType)]
    if len(found) != 1:
        return "json", []
    only = found[0]
    inspect = msgspec.inspect
    if isinstance(only, inspect.EnumType):
        return "text", [str(each.value) for each in only.cls]
    if isinstance(only, inspect.LiteralType):
        return "text", [str(each) for each in only.values]
    if isinstance(only, inspect.ListType | inspect.SetType | inspect.FrozenSetType):
        inner, choices = _kind(only.item_type)
        return ("list", choices) if inner == "text" else ("json", [])
    kinds: list[tuple[Any, str]] = [
        (inspect.BoolType, "boolean"),
        (inspect.IntType, "integer"),
        (inspect.BytesType, "bytes"),
        (inspect.StrType | inspect.DateTimeType | inspect.TimeDeltaType, "text"),
    ]
    return next((name for each, name in kinds if isinstance(only, each)), "json"), []


if __name__ == "__main__":
    TABLE.write_bytes(table())
