"""The routes of the Vault dialect: a method and a path, what they take, and what carries them out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from kms.access.ratelimit import RateClass

F = TypeVar("F", bound=Callable[..., Any])


class Body(msgspec.Struct, kw_only=True):
    """The body of a request, or what reading and listing have in their query.

    As with Vault, unknown members are passed over, `"5"` is as good as 5, and null is as good as nothing.
    """


@dataclass(frozen=True)
class Done:
    """An answer that is not simply data with status 200."""

    data: Any = None
    status: int = 200
    auth: Any = None
    bare: Any = None
    location: str | None = None


@dataclass(frozen=True)
class Route:
    """One route. `is_public` ones are served without a token."""

    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    body: type[Body]
    function: Callable[..., Any]
    rate_class: RateClass
    is_public: bool

    @property
    def shown(self) -> str:
        """Its method and path, with `<name>` for what varies."""
        path = re.sub(r"\(\?P<(\w+)>\[\^/\]\+\)", r"<\1>", self.pattern.pattern)
        return f"{self.methods[0]} {path.replace('/?', '').replace('~', 'transit')}"

    @property
    def is_of_mount(self) -> bool:
        """Whether it is below a mount."""
        return self.pattern.pattern.startswith("~")


ROUTES: list[Route] = []
"""Every route, those of keys below a mount."""

READ, WRITE, LIST, DELETE = ("GET",), ("POST", "PUT"), ("LIST",), ("DELETE",)


def route(
    methods: tuple[str, ...],
    path: str,
    body: type[Body] = Body,
    rate_class: RateClass = RateClass.MANAGE,
    *,
    is_public: bool = False,
) -> Callable[[F], F]:
    """Declare the decorated function as what serves `path`, in which `<name>` stands for a part of it.

    It is called with the request, the body, and the parts. Paths that begin with `~` are below a mount; their `name`
    is the id of a key by then.
    """
    pattern = re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path)

    def declare(function: F) -> F:
        ROUTES.append(Route(methods, re.compile(pattern), body, function, rate_class, is_public))
        return function

    return declare


def help_of(path: str) -> str:
    """What there is at and below the first part of `path`: each route with what it does."""
    found = [each for each in ROUTES if each.is_of_mount or each.pattern.pattern.startswith(path.partition("/")[0])]
    lines = {f"{each.shown}\n    {inspect.cleandoc(each.function.__doc__ or '')}" for each in found}
    return "\n".join(sorted(lines))
