"""The operation table: each operation declared once, with everything that its routes and records need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass

F = TypeVar("F", bound=Callable[..., Any])


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request, or the query of a GET. Unknown members are refused."""


class Nothing(Request):
    """A request without members."""


class Answer(msgspec.Struct, kw_only=True):
    """The body of an answer; members that are UNSET are left out."""


@dataclass(frozen=True)
class Text:
    """An answer that is not JSON."""

    body: bytes
    content_type: str


@dataclass(frozen=True)
class Operation:
    """One operation.

    `path` is a Flask rule; `permission` is what the caller must hold with respect to what the operation
    acts on, and is checked in `function`, or before it where `on_nothing` says that it acts on nothing that
    somebody owns. `hot` marks operations that touch no database; `slow` those that compute for long.
    """

    name: str
    method: str
    path: str
    permission: Permission | None
    rate_class: RateClass
    request: type[Request]
    function: Callable[..., Any]
    status: int = 200
    on_nothing: bool = False
    hot: bool = False
    slow: bool = False
    needs_fresh_factor: bool = False


OPERATIONS: dict[str, Operation] = {}
"""Every operation by name."""


def operation(
    method: str,
    path: str,
    *,
    permission: Permission | None,
    rate_class: RateClass = RateClass.MANAGE,
    request: type[Request] = Nothing,
    **options: Any,
) -> Callable[[F], F]:
    """Declare the decorated function as an operation under its own name.

    It is called with the service, the call, the request and the variables of its path.
    """

    def declare(function: F) -> F:
        name = function.__name__
        if name in OPERATIONS:
            raise ValueError(f"the operation {name} is declared twice")
        OPERATIONS[name] = Operation(name, method, path, permission, rate_class, request, function, **options)
        return function

    return declare
