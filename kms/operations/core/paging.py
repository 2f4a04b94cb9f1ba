"""How much one request for a page of a list reads, where the caller may see only some of what is read."""

from __future__ import annotations

from collections.abc import Iterator

MOST_READ = 5000
"""How many rows one request looks at; a page can then have few items, or none, while there are more."""

_MOST_AT_ONCE = 1000


def sizes(first: int) -> Iterator[int]:
    """How many rows to read with each statement: `first` of them, then more and more, `MOST_READ` in all.

    A page that is full at once costs no more than its rows, and one among thousands of others' few statements.
    """
    size, left = first, max(first, MOST_READ)
    while left > 0:
        yield min(size, left)
        left -= size
        size = max(size, min(4 * size, _MOST_AT_ONCE))
