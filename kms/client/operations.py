"""Every operation of the service, as the service's own table declares it.

The table is made with `python -m kms.api.client_table` and travels with the library, which does without the service.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member; `kind` is `text`, `integer`, `boolean`, `bytes` (base64), `list` (of texts) or `json`."""

    name: str
    kind: str
    required: bool = False
    choices: list[str] = []
    is_secret: bool = False


class ClientOperation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation. `path` has its variables in braces; a `repeatable` one can be asked for twice without harm."""

    name: str
    group: str
    method: str
    path: str
    about: str
    variables: list[str] = []
    members: list[Member] = []
    example: dict[str, Any] | None = None
    repeatable: bool = False
    takes_items: bool = False


@cache
def operations() -> dict[str, ClientOperation]:
    """Them all, by name."""
    table = (files("kms.client") / "operations.json").read_bytes()
    return {each.name: each for each in msgspec.json.decode(table, type=list[ClientOperation])}
