"""What is done to something after a page has said what that means, and whether it can be undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kms.api.console.visit import Visit


def _nothing(visit: Visit) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Act:
    """One act. `effects` says what happens then, `undo` how to take it back, if that is possible.

    A `dangerous` one asks for a second factor unless one was given a moment ago. `fields` are what its form asks for,
    from which `values` makes the operation's request. One that `shows` something says it once, on a page of its own.
    """

    operation: str
    title: str
    button: str
    effects: Callable[[Any], list[str]]
    undo: str
    notice: str
    dangerous: bool = True
    template: str = "confirm.html"
    fields: tuple[str, ...] = ()
    values: Callable[[Visit], Mapping[str, Any]] = _nothing
    shows: bool = False
