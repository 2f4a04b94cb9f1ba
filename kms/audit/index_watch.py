"""Looks after the index: compares it with the tiles again and again, part by part, and discards one that is wrong.

That rows were taken out of it cannot be seen by whoever searches, and would hide entries.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import structlog

from kms.audit.index import Index
from kms.audit.index_check import check_part
from kms.audit.index_file import IndexUnusable
from kms.audit.tree import Unverified
from kms.clock import steady_seconds

WRONG = "audit_index_wrong"
"""The operation of the entry that says that the index was wrong; its target says what was."""
_SHARE = 10  # it works a tenth of the time at most
_LOG = structlog.get_logger()


class IndexWatch:
    """Checks `index` from its beginning every `seconds`. What is wrong is given to `tell` before it is discarded."""

    def __init__(self, index: Index, seconds: float, tell: Callable[[str], None]) -> None:
        self._index, self._seconds, self._tell = index, seconds, tell
        self._part = 0
        self._due = steady_seconds()

    def look(self, size: int) -> None:
        """Check one part, if that is due, against the tree of `size` entries. Raises OSError and what `tell` raises.

        An index that cannot be read is none that can be wrong, and tiles that cannot are another's to find.
        """
        began = steady_seconds()
        if began < self._due:
            return
        following: int | None = None
        with suppress(IndexUnusable, Unverified):
            wrong, following = check_part(self._index, size, self._part)
            if wrong is not None:
                _LOG.critical("THE INDEX OF THE AUDIT LOG WAS WRONG, and is made anew", reason=wrong)
                self._tell(wrong)
                self._index.discard()
        now = steady_seconds()
        self._part = following or 0
        self._due = now + (self._seconds if following is None else (_SHARE - 1) * (now - began))
