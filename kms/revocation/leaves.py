"""Which entry of the audit log made a revocation, by its leaf hash (RFC 6962).

The entry is written last in a change, after the revocation. So the leaves have rows of their own, and no row of the
list is ever written a second time; a release that does not know them still reads the list.
"""

from __future__ import annotations

from dataclasses import dataclass

from kms.audit.tree import leaf_hash
from kms.revocation.model import Revocation
from kms.vault import tables
from kms.vault.change import Change
from kms.vault.head import Head, TableDigest
from kms.vault.memory import Memory
from kms.vault.records import stored_in
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
        memory.follow(tables.revocation_leaves, self.follow)

    def of(self, serial: int) -> bytes | None:
        """The leaf hash for one revocation; None where an older release made it."""
        return self._known.get(serial)

    def follow(self, snapshot: Snapshot, head: Head) -> None:
        """Read new leaves. Raises IntegrityFailure where a row was altered."""
        table = tables.revocation_leaves
        digest = head.digest(table) or TableDigest()
        last = max(self._known, default=0)
        new = snapshot.select(RevocationLeaf, table.c.serial > last, order_by=table.c.serial)
        known = {**self._known, **{each.serial: each.leaf for each in new}}
        if len(known) != digest.count:  # an operator may have accepted other rows
            known = {each.serial: each.leaf for each in snapshot.select(RevocationLeaf)}
        self._known = known
