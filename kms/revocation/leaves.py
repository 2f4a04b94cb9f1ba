"""Which entry of the audit log made a revocation, by its leaf hash (RFC 6962).

The entry is written last in a change, after the revocation. So the leaves have rows of their own, and no row of the
list is ever written a second time; a release that does not know them still reads the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from kms.audit.tree import leaf_hash
from kms.errors import IntegrityFailure
from kms.revocation.model import Revocation
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.head import Head, TableDigest, digest_of
from kms.vault.memory import Memory
from kms.vault.records import stored_in, to_row
from kms.vault.transaction import Snapshot


@stored_in(tables.revocation_leaves)
@dataclass(frozen=True, slots=True)
class RevocationLeaf:
    """The leaf hash of the audit entry that made the revocation `serial`."""

    serial: int
    leaf: bytes


def enter(change: Change, entry: Revocation) -> None:
    """Put `entry` on the list. The next audit entry of this change is the one that made it."""
    change.insert(entry)
    change.at_next_entry(lambda line: change.insert(RevocationLeaf(entry.serial, leaf_hash(line.encode()))))


def enter_copy(change: Change, copy: Revocation, of: Revocation) -> None:
    """Put `copy` on the list, which the same audit entry has made as the revocation `of`."""
    change.insert(copy)
    made_by = change.find(RevocationLeaf, of.serial)
    if made_by is not None:
        change.insert(RevocationLeaf(copy.serial, made_by.leaf))


class KnownLeaves:
    """The leaves as this worker knows them, by the serial numbers of revocations."""

    def __init__(self, memory: Memory) -> None:
        self._known: dict[int, bytes] = {}
        self._last = 0
        self._digest = TableDigest()
        memory.follow(tables.revocation_leaves, self.follow)

    def of(self, serial: int) -> bytes | None:
        """The leaf hash for one revocation; None where an older release made it."""
        return self._known.get(serial)

    def follow(self, snapshot: Snapshot, head: Head) -> None:
        """Read new leaves. Raises IntegrityFailure where a row was altered, or the rows are not those of the head."""
        wanted = head.digest(tables.revocation_leaves) or TableDigest()  # none before the first row
        if self._goes_on(snapshot, wanted):
            return
        self._known, self._last, self._digest = {}, 0, TableDigest()  # an operator may have accepted other rows
        if not self._goes_on(snapshot, wanted):
            raise IntegrityFailure("The audit entries of revocations are not those that the service wrote.")

    def _goes_on(self, snapshot: Snapshot, wanted: TableDigest) -> bool:
        """Read rows after those that are known; return whether all have the digest `wanted`. Else nothing is kept."""
        table = tables.revocation_leaves
        new = snapshot.select(RevocationLeaf, table.c.serial > self._last, order_by=table.c.serial)
        part = digest_of(snapshot.derived_keys, table, ([*to_row(each).values(), None] for each in new))
        digest = self._digest.plus(part.count, part.total)
        if digest != wanted:
            return False
        self._known.update((each.serial, each.leaf) for each in new)
        self._last = new[-1].serial if new else self._last
        self._digest = digest
        return True
