"""Ids of requests: random, and taken from many that are made at once, which costs less than asking for each.

They are part of audit entries, so that nobody can guess the leaf hash of an entry who knows others: they come from
the system's generator.
"""

from __future__ import annotations

import os

_ID_BYTES = 8
_MADE_AT_ONCE = 512
_made: list[str] = []  # each is taken once, also by threads that take at the same time
os.register_at_fork(after_in_child=_made.clear)  # or a child would give the same ids


def new_request_id() -> str:
    """A new id for one request, 16 hexadecimal digits; it appears in the answer, the log and the audit log."""
    try:
        return _made.pop()
    except IndexError:
        made = os.urandom(_ID_BYTES * _MADE_AT_ONCE).hex(" ", _ID_BYTES).split()
        one = made.pop()
        _made.extend(made)
        return one
