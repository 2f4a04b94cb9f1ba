"""The operation table: each operation declared once, with everything that its routes and records need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

import msgspec

from kms.access.policy import Permission
from kms.access.ratelimit import RateClass
from kms.errors import Refusal

F = TypeVar("F", bound=Callable[..., Any])


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of a request, or the query of a GET. Unknown members are refused."""


class EmptyRequest(Request):
    """A request without members."""


class Answer(msgspec.Struct, kw_only=True):
    """The body of an answer; members that are UNSET are left out."""


@dataclass(frozen=True)
class TextAnswer:
    """An answer that is not JSON, or that is JSON already encoded. `etag` lets a client ask only for a newer one."""

    body: bytes
    content_type: str
    etag: str | None = None


@dataclass(frozen=True)
class BytesAnswer:
    """An answer that is neither JSON nor text. One that `is_immutable` is the same for ever, and may be kept."""

    body: bytes
    is_immutable: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation.

    `path` is a Flask rule. `permission` is what the caller needs: `function` checks it against the key or client
    that it acts on; with `checked_upfront` nothing of the kind is involved, and it is checked before `function` is
    called. With None every client may call it. `hot` marks operations that do not use the database, `slow` those
    that compute for long.

    `batch` is the request class with `items`, None for operations without batches. `batch_function` does the same as
    `function` for many items at less cost; it gets at most `at_once` of them per call, and before each call the
    caller is authenticated again. `location` is the path of what was made, with members of the answer in braces.
    `example` is a request that works; values from earlier answers are written as `FromAnswerOf`. Operations that
    are `is_public` have no caller and need no permission.
    """

    name: str
    method: str
    path: str
    permission: Permission | None
    rate_class: RateClass
    request: type[Request]
    function: Callable[..., Any]
    status: int = 200
    checked_upfront: bool = False
    hot: bool = False
    slow: bool = False
    is_token_endpoint: bool = False
    is_public: bool = False
    batch: type[Request] | None = None
    batch_function: Callable[..., Any] | None = None
    at_once: int = 100
    location: str | None = None
    example: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class FromAnswerOf:
    """A value in an example that comes from elsewhere: `member` of the answer to the example of `operation`.

    `sample` stands for it in the documentation.
    """

    operation: str
    member: str
    sample: str


MOST_ITEMS = 1000
"""How many requests a batch can have."""


def batch_of(request: type[Request]) -> type[Request]:
    """The class of a batch request: a struct whose `items` are 1 to `MOST_ITEMS` of `request`."""
    items = Annotated[list[request], msgspec.Meta(min_length=1, max_length=MOST_ITEMS)]  # type: ignore[valid-type]
    name = request.__name__.removesuffix("Request") + "BatchRequest"
    doc = {"__doc__": f"Up to {MOST_ITEMS} requests at once; their answers or errors come in the same order."}
    made = msgspec.defstruct(name, [("items", items)], bases=(Request,), namespace=doc, forbid_unknown_fields=True)
    return cast(type[Request], made)


@dataclass(frozen=True)
class BatchItems:
    """A batch. In the place of an item that failed validation stands the Refusal that says why."""

    items: Sequence[Request | Refusal]


@dataclass(frozen=True)
class BatchResults:
    """The answer to `BatchItems`, in the same order."""

    items: Sequence[Answer | Refusal]


OPERATIONS: dict[str, Operation] = {}
"""Every operation by name."""


def operation(
    method: str,
    path: str,
    *,
    permission: Permission | None,
    rate_class: RateClass = RateClass.MANAGE,
    request: type[Request] = EmptyRequest,
    batched: bool = False,
    **options: Any,
) -> Callable[[F], F]:
    """Declare the decorated function as an operation under its own name.

    It is called with the service, the call, the request and the variables of its path. With `batched` it also takes
    requests with `items`, and is called once for each of them.
    """
    if batched:
        options["batch"] = batch_of(request)

    def declare(function: F) -> F:
        name = function.__name__
        if name in OPERATIONS:
            raise ValueError(f"the operation {name} is declared twice")
        OPERATIONS[name] = Operation(name, method, path, permission, rate_class, request, function, **options)
        return function

    return declare
