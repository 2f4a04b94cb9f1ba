"""Searches the log: the index says where to look, and each entry is read from its bundle and compared there.

So what is found is right whatever the index says. What is not indexed yet is searched as well, entry by entry.
Entries come in the order of the log, which is nearly that of their times: each host's are folded for themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kms.audit import postings
from kms.audit.entry import SUCCESS, AuditEntry, entry_of
from kms.audit.index import PART_BUNDLES, Index
from kms.audit.index_file import IndexUnusable, damaged
from kms.audit.places import Places, looking
from kms.audit.postings import EVERY_PLACE, Kind, places_of_request, term
from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileMalformed, entries_of

REFUSED = "refused"
MOST_UNINDEXED = 1 << 18
MOST_BUNDLES = 1 << 13
MOST_BUNDLES_UNINDEXED = 1 << 9
"""Of a query of which the index knows nothing but the times: each bundle is read, and most are read for nothing."""


@dataclass(frozen=True, slots=True)
class Query:
    """What an entry must be to be found: everything that is given here; an empty query is met by all.

    `after` and `before` are times as entries have them, both exclusive. The outcome `refused` stands for every one
    except `success`. `session` is met by what was done in that session, and by what made or ended it.
    """

    client_id: str | None = None
    key_id: str | None = None
    version: int | None = None
    operation: str | None = None
    outcome: str | None = None
    target: str | None = None
    session: str | None = None
    credential: str | None = None
    request_id: str | None = None
    sources: frozenset[str] | None = None
    after: str = ""
    before: str = ""

    def is_met(self, entry: AuditEntry) -> bool:
        """Whether that is so for an entry."""
        return (
            self.after < entry.time
            and (not self.before or entry.time < self.before)
            and (self.client_id is None or entry.client_id == self.client_id)
            and (self.key_id is None or entry.key_id == self.key_id)
            and (self.version is None or self.version in entry.used_versions)
            and (self.operation is None or entry.operation == self.operation)
            and self._has_outcome(entry)
            and (self.target is None or entry.target == self.target)
            and (self.session is None or self.session in (entry.session, entry.target))
            and (self.credential is None or entry.credential == self.credential)
            and (self.request_id is None or entry.request_id == self.request_id)
            and (self.sources is None or entry.source in self.sources)
        )

    def _has_outcome(self, entry: AuditEntry) -> bool:
        if self.outcome == REFUSED:
            return entry.outcome != SUCCESS
        return self.outcome is None or entry.outcome == self.outcome

    @property
    def terms(self) -> list[tuple[int, ...]]:
        """Of each of these an entry that meets the query has one term at least; the rarest first, as a rule."""
        one_of: list[tuple[tuple[Kind, object], ...]] = [
            ((Kind.SESSION, self.session), (Kind.TARGET, self.session)),
            ((Kind.KEY, self.key_id),),
            ((Kind.TARGET, self.target),),
            ((Kind.CREDENTIAL, self.credential),),
            ((Kind.CLIENT, self.client_id),),
            ((Kind.VERSION, self.version),),
            ((Kind.OPERATION, self.operation),),
        ]
        found = [
            tuple(term(kind, str(value)) for kind, value in kinds) for kinds in one_of if kinds[0][1] is not None
        ]
        if self.outcome == REFUSED:
            found.insert(0, (postings.REFUSED,))
        elif self.outcome not in (None, SUCCESS):
            found.insert(0, (term(Kind.OUTCOME, str(self.outcome)),))
        return found


class FoundEntry(NamedTuple):
    """An entry of the log: its number, the line as it was written, and what that says."""

    number: int
    line: bytes
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found, and from where it can go on, if it does not know that this is all.

    It may have found fewer than were asked for, or none, and still go on, where that would have taken too long.
    """

    entries: list[FoundEntry]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """The entries from `begin` up to `end`, in the order of the log, or the other way."""

    begin: int
    end: int
    oldest_first: bool

    def in_order(self, numbers: range) -> Iterable[int]:
        """`numbers`, which ascend, in the order of the search."""
        return numbers if self.oldest_first else reversed(numbers)


class TooFarBehind(IndexUnusable):
    """So much is not indexed yet that searching it entry by entry would take too long."""


def search(
    index: Index,
    query: Query,
    size: int,
    limit: int = 100,
    *,
    oldest_first: bool = False,
    cursor: int | None = None,
    most_bundles: int | None = None,
) -> Found:
    """Find the newest `limit` entries that meet `query` in the tree of `size` entries, or the oldest.

    `cursor` is the `next_cursor` of an earlier answer: it goes on there. At most `most_bundles` bundles are read,
    by default fewer where the index does not help. Raises IndexUnusable, and Unverified where a bundle cannot be
    read.
    """
    entries: list[FoundEntry] = []
    if most_bundles is None:
        most_bundles = MOST_BUNDLES if query.terms or query.request_id else MOST_BUNDLES_UNINDEXED
    span = Span(cursor or 0, size, True) if oldest_first else Span(0, size if cursor is None else cursor, False)
    with looking(index) as places:
        walk = Walk(places, query, size, span, most_bundles)
        for found in walk:
            entries.append(found)
            if len(entries) >= limit:
                return Found(entries, found.number + 1 if oldest_first else found.number)
    return Found(entries, walk.stopped_at)


class Walk:
    """Goes through the entries that meet a query, and says afterwards where it stopped, if that was not at the end.

    `size` is that of a tree whose tiles are there. `left` is how many more bundles it may read, None if any number.
    Raises as `search`.
    """

    def __init__(
        self, places: Places, query: Query, size: int, span: Span | None = None, most_bundles: int | None = None
    ) -> None:
        self.stopped_at: int | None = None
        self._places, self._query, self._size = places, query, size
        self._span = span or Span(0, size, False)
        self.left = most_bundles

    def __iter__(self) -> Iterator[FoundEntry]:
        for bundle, bits in self._bundles():
            if self.left is not None:
                if not self.left:
                    self.stopped_at = bundle * TILE_WIDTH + (0 if self._span.oldest_first else TILE_WIDTH)
                    return
                self.left -= 1
            yield from self._read(bundle, bits)

    def _read(self, bundle: int, bits: int) -> Iterator[FoundEntry]:
        content, path = self._places.tiles.content(ENTRIES, bundle, self._size)
        lines, is_whole = entries_of(content)
        if not is_whole:
            raise TileMalformed(path, "it does not end with an entry")
        first, span = bundle * TILE_WIDTH, self._span
        for number in span.in_order(range(max(first, span.begin), min(first + len(lines), span.end, self._size))):
            if bits >> (number - first) & 1:
                line = lines[number - first]
                entry = entry_of(line)
                if entry is not None and self._query.is_met(entry):
                    yield FoundEntry(number, line, entry)

    def _bundles(self) -> Iterator[tuple[int, int]]:
        """The bundles to look into, in order, each with the bits of the places to look at."""
        span, state = self._span, self._places.state
        begin, end = max(span.begin, state.begin), min(span.end, self._size)
        unindexed = max(end - max(begin, state.size), 0)
        if unindexed > MOST_UNINDEXED:
            raise TooFarBehind(f"The index of the audit log is being made; {unindexed} entries are missing yet.")
        first, beyond = begin // TILE_WIDTH, -(-end // TILE_WIDTH)
        for part in span.in_order(range(first // PART_BUNDLES, -(-beyond // PART_BUNDLES))):
            of_part = range(max(part * PART_BUNDLES, first), min((part + 1) * PART_BUNDLES, beyond))
            look = _Part(self._places, self._query, part)
            is_indexed = state.size >= of_part.stop * TILE_WIDTH
            for bundle in look.among(of_part, span) if is_indexed else span.in_order(of_part):
                known = max(state.size - bundle * TILE_WIDTH, 0)
                unknown = EVERY_PLACE >> known << known if state.size < self._size else 0
                bits = unknown | (look.bits(bundle) if known else 0)
                if bits:
                    yield bundle, bits


class _Part:
    """What the index says of a part of the log to a query. Raises sqlite3.DatabaseError."""

    def __init__(self, places: Places, query: Query, part: int) -> None:
        self._query = query
        self._wanted: list[dict[int, int]] = []
        for terms in query.terms:
            self._wanted.append(places.of(part, terms))
            if not self._wanted[-1]:
                return
        self._unwanted = places.of(part, (postings.REFUSED,)) if query.outcome == SUCCESS else {}
        self._times = places.times(part) if query.after or query.before else None
        self._requests = places.requests(part) if query.request_id is not None else None

    def among(self, bundles: range, span: Span) -> Iterable[int]:
        """Those of the bundles, all of which are indexed, of which `bits` may be any, in the order of the search."""
        if not self._wanted:
            return span.in_order(bundles)
        rarest = min(self._wanted, key=len)
        first = bundles.start - bundles.start % PART_BUNDLES
        found = (first + place for place in rarest if isinstance(place, int))
        return sorted((bundle for bundle in found if bundle in bundles), reverse=not span.oldest_first)

    def bits(self, bundle: int) -> int:
        """The places of a bundle at which there may be entries that meet the query."""
        place = bundle % PART_BUNDLES
        bits = EVERY_PLACE
        for each in self._wanted:
            bits &= each.get(place, 0)
            if not bits:
                return 0
        bits &= ~self._unwanted.get(place, 0)
        if bits and self._times is not None and not self._is_in_time(self._times.get(bundle)):
            return 0
        if bits and self._requests is not None:
            bits &= places_of_request(self._requests.get(bundle), self._query.request_id or "")
        return bits

    def _is_in_time(self, times: object) -> bool:
        match times:
            case (str(earliest), str(latest)):
                query = self._query
                return query.after < latest and (not query.before or earliest < query.before)
        raise damaged("a bundle has no time")
