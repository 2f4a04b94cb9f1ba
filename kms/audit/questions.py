"""Questions that people ask the audit log: who used a version of a key, and what a client did for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from kms.audit.entry import SUCCESS, AuditEntry
from kms.audit.index import Index
from kms.audit.places import Places, looking
from kms.audit.search import FoundEntry, Query, Span, Walk

MOST_BUNDLES = 1 << 12
"""A million entries: some seconds."""


class TooMuch(Exception):
    """A question would have to read more of the log than it may."""


@dataclass(slots=True)
class Budget:
    """How many bundles a question may read yet."""

    left: int


@dataclass(frozen=True, slots=True)
class Log:
    """The log to ask: its index as it is now, and the size of its tree."""

    places: Places
    size: int

    def oldest_first(self, query: Query) -> Iterator[FoundEntry]:
        """All entries that meet `query`. Raises IndexUnusable, and Unverified where a bundle cannot be read."""
        return iter(Walk(self.places, query, self.size, Span(0, self.size, oldest_first=True)))

    def newest_first(self, query: Query) -> Iterator[FoundEntry]:
        """All entries that meet `query`, the newest first. Raises as `oldest_first`."""
        return iter(Walk(self.places, query, self.size, Span(0, self.size, oldest_first=False)))

    def within(self, budget: Budget, query: Query, *, oldest_first: bool) -> Iterator[FoundEntry]:
        """The same in either order, as long as the budget lasts. Raises TooMuch as well."""
        walk = Walk(self.places, query, self.size, Span(0, self.size, oldest_first=oldest_first), budget.left)
        try:
            yield from walk
        finally:
            budget.left = walk.left or 0
        if walk.stopped_at is not None:
            raise TooMuch


@contextmanager
def asking(index: Index, size: int) -> Iterator[Log]:
    """The log of `size` entries, to ask it. Raises IndexUnusable, also for what is wrong where it is asked."""
    with looking(index) as places:
        yield Log(places, size)


class UserOf(NamedTuple):
    """A client that used a key, how often, and its first and its last such entry."""

    client_id: str
    uses: int
    first: FoundEntry
    last: FoundEntry


def users_of(log: Log, key_id: str, version: int | None, after: str = "") -> list[UserOf]:
    """Who used this version of the key after that time (any version: None), by name. Only what succeeded counts.

    A batch counts as one use of each version that it used. Those of releases from before name none.
    """
    found: dict[str, UserOf] = {}
    for each in log.oldest_first(Query(key_id=key_id, version=version, outcome=SUCCESS, after=after)):
        client_id = each.entry.client_id
        if client_id is None:
            continue
        known = found.get(client_id)
        found[client_id] = UserOf(client_id, known.uses + 1 if known else 1, known.first if known else each, each)
    return [found[client_id] for client_id in sorted(found)]


class Novelty(NamedTuple):
    """An operation that a client had never carried out with a key (or without one) before, and the first time."""

    operation: str
    key_id: str | None
    first: FoundEntry


def novelties(log: Log, client_id: str, after: str, most_bundles: int) -> list[Novelty]:
    """What the client did after that time that it had never done before, as far back as the log goes, in order.

    What was refused counts only as having been tried: it is no deed, neither before nor after. Raises TooMuch where
    more than `most_bundles` would have to be read.
    """
    budget = Budget(most_bundles)
    first: dict[tuple[str, str | None], FoundEntry] = {}
    for each in log.within(budget, Query(client_id=client_id, outcome=SUCCESS, after=after), oldest_first=True):
        first.setdefault(_deed(each.entry), each)
    return [
        Novelty(*deed, found) for deed, found in first.items() if not _was_done(log, budget, client_id, deed, after)
    ]


def _deed(entry: AuditEntry) -> tuple[str, str | None]:
    return entry.operation, entry.key_id


def _was_done(log: Log, budget: Budget, client_id: str, deed: tuple[str, str | None], until: str) -> bool:
    operation, key_id = deed
    next_time = f"{until}\0"  # the first text after that time
    query = Query(client_id=client_id, key_id=key_id, operation=operation, outcome=SUCCESS, before=next_time)
    return any(_deed(each.entry) == deed for each in log.within(budget, query, oldest_first=False))
