"""The pages of the console: what looks, and what acts when a form is sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flask import Response

F = TypeVar("F", bound=Callable[..., Response])


@dataclass(frozen=True)
class Route:
    """A page under a path of Flask's kind, below /console. `again` shows the form once more, with the refusal."""

    method: str
    path: str
    function: Callable[..., Response]
    again: Callable[..., Response] | None = None

    @property
    def endpoint(self) -> str:
        """Its name in logs and metrics."""
        return f"console:{self.function.__name__}"


ROUTES: list[Route] = []
"""Every page for who is logged in."""


def page(path: str) -> Callable[[F], F]:
    """Declare a page that shows something and changes nothing."""

    def declare(function: F) -> F:
        ROUTES.append(Route("GET", path, function))
        return function

    return declare


def act(path: str, again: Callable[..., Response]) -> Callable[[F], F]:
    """Declare what is done when the form is sent that the page `again` shows."""

    def declare(function: F) -> F:
        ROUTES.append(Route("POST", path, function, again))
        return function

    return declare
