"""The circumstances of a request that access decisions look at, in addition to its caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The address that a request comes from, the time, what it is called, and AWS's account id.

    `action` is AWS's name of it where that dialect is spoken, and the name of the operation elsewhere. The rest is of
    requests for a grant: AWS's names of the operations, the ARNs of who gets it and who may retire it, and which
    constraint it has.
    """

    source: str
    now: datetime
    action: str = ""
    account: str = ""
    grant_operations: frozenset[str] | None = None
    grantee: str | None = None
    retiring: str | None = None
    grant_constraint: str | None = None
