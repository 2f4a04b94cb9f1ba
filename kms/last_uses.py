"""When each key was last used, so that somebody who wants to delete a key can see whether it is still in use.

A worker remembers it and writes it down every few minutes: a use costs no access to the database. After a crash the
uses of those minutes are missing.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from kms.clock import Clock
from kms.errors import Refusal
from kms.keys.model import Key
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.rows import LastUse
from kms.vault.store import Vault

_INTERVAL = timedelta(minutes=5)
_MOST_REMEMBERED = 20_000
_ROWS_AT_ONCE = 200  # more would keep requests waiting

Use = tuple[datetime, str, str]
"""When, by which operation, in which request."""

BEGINNING = bytes(16)
"""The uid under which is written since when uses are written down at all."""


class LastUses:
    """The last uses that this worker has seen and not yet written to the vault."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault = vault
        self._clock = clock
        self._seen: dict[str, Use] = {}
        self._due: list[str] = []
        self.began = clock()
        self._next_writing = self.began + _INTERVAL

    def note(self, key_id: str, use: Use) -> None:
        """Remember a use that succeeded."""
        self._seen[key_id] = use

    def seen(self, key_id: str) -> Use | None:
        """What this worker remembers of a key."""
        return self._seen.get(key_id)

    def write_if_due(self) -> None:
        """Write a part down if it is time, and everything if there is too much of it. Raises Unavailable."""
        if len(self._seen) > _MOST_REMEMBERED:
            self.write()
        elif not self._due and not _INTERVAL >= self._next_writing - self._clock() > timedelta():
            self._begin()
        if self._due:
            self._write_some()

    def write_at_the_end(self) -> None:
        """Write everything down, if that can be done."""
        with suppress(Refusal):
            self.write()

    def write(self) -> None:
        """Write everything down. Raises Unavailable, and then keeps it."""
        self._begin()
        while self._due:
            self._write_some()

    def _begin(self) -> None:
        self._next_writing = self._clock() + _INTERVAL
        self._due = list(self._seen)

    def _write_some(self) -> None:
        taken = ((key_id, self._seen.pop(key_id, None)) for key_id in self._due[-_ROWS_AT_ONCE:])
        some = {key_id: use for key_id, use in taken if use is not None}
        try:
            with self._vault.change() as change:
                if change.find(LastUse, BEGINNING) is None:
                    change.insert(LastUse(BEGINNING, "", self.began, ""))
                _write(change, some, self._clock())
        except BaseException:
            for key_id, use in some.items():
                self._seen.setdefault(key_id, use)
            raise
        del self._due[-_ROWS_AT_ONCE:]


def _write(change: Change, uses: dict[str, Use], now: datetime) -> None:
    """Keep the later of each of `uses` and what is written already; keys that are gone meanwhile are passed over."""
    keys = change.select(Key, tables.keys.c.key_id.in_(uses))
    column = tables.last_uses.c.key_uid
    before = {each.key_uid: each for each in change.select(LastUse, column.in_([key.uid for key in keys]))}
    first, later = [], []
    for key in keys:
        used_at, operation, request_id = uses[key.key_id]
        if used_at < key.created_at:
            continue  # it was another key of that name
        after = LastUse(key.uid, operation, used_at, request_id)
        written = before.get(key.uid)
        if written is None:
            first.append(after)
        elif written.used_at < used_at or written.used_at > now:  # a clock was ahead
            later.append((written, after))
    change.insert(*first)
    change.replace_all(later)
