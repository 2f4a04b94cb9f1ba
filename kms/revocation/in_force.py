"""The revocations in force, kept in memory and checked against the head.

An old row of a version, from before its revocation, still has a valid authentication code. So a version is used only
if this list allows it, too. The list is read when a worker starts, then extended by each new entry, and always
compared with its digest in the head. An attacker who puts an old row of a version back would also have to put back
the list, and then the head; and an old head is detected (see `kms.vault.host`).
"""

from __future__ import annotations

from dataclasses import dataclass

from kms.errors import IntegrityFailure
from kms.keys.model import KeyState, KeyVersion, RevocationReason
from kms.revocation.model import Revocation
from kms.revocation.times import NEWEST
from kms.vault import tables
from kms.vault.head import Head, TableDigest, digest_of
from kms.vault.memory import Memory
from kms.vault.records import to_row
from kms.vault.transaction import Snapshot

_NOT_IN_USE = {KeyState.DEACTIVATED, KeyState.COMPROMISED, KeyState.DESTROYED}
_NEVER_USED = {KeyState.COMPROMISED, KeyState.DESTROYED}


@dataclass(slots=True)
class _OfKey:
    """Up to which versions a key was revoked: for compromise, for another reason, and on hold at the moment."""

    compromised: int = 0
    ended: int = 0
    held: int = 0


class _Known:
    """The list up to some entry, and what it makes of each key."""

    def __init__(self) -> None:
        self.entries: list[Revocation] = []
        self.of_key: dict[bytes, _OfKey] = {}
        self.digest = TableDigest()

    def goes_on(self, snapshot: Snapshot, head: Head) -> bool:
        """Read new entries; return whether the list then has the digest in the head. If not, nothing is kept."""
        table = tables.revocations
        last = self.entries[-1].serial if self.entries else 0
        new = snapshot.select(Revocation, table.c.serial > last, order_by=table.c.serial)
        part = digest_of(snapshot.derived_keys, table, ([*to_row(each).values(), None] for each in new))
        digest = self.digest.plus(part.count, part.total)
        if digest != head.digest(table):
            return False
        for entry in new:
            self._put_in_force(entry)
        self.digest = digest
        self.entries += new
        return True

    def _put_in_force(self, entry: Revocation) -> None:
        of_key = self.of_key.setdefault(entry.key_uid, _OfKey())
        of_key.held = 0  # whatever comes later takes the place of a hold
        if entry.reason is RevocationReason.CERTIFICATE_HOLD:
            of_key.held = entry.up_to_version
        elif entry.reason.leads_to is KeyState.COMPROMISED:
            of_key.compromised = max(of_key.compromised, entry.up_to_version)
        elif entry.reason.leads_to is KeyState.DEACTIVATED:
            of_key.ended = max(of_key.ended, entry.up_to_version)


class RevocationsInForce:
    """The list as this worker knows it."""

    def __init__(self, memory: Memory) -> None:
        self._known = _Known()
        memory.follow(tables.revocations, self.follow)

    @property
    def entries(self) -> list[Revocation]:
        """All entries, including those that are no longer in force."""
        return self._known.entries[:]

    @property
    def newest(self) -> list[Revocation]:
        """The last `times.NEWEST` entries."""
        return self._known.entries[-NEWEST:]

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._known.entries)

    def follow(self, snapshot: Snapshot, head: Head) -> None:
        """Read new entries of the list. Raises IntegrityFailure if its digest is not the one in the head."""
        if self._known.goes_on(snapshot, head):
            return
        again = _Known()  # an operator may have accepted another list
        if not again.goes_on(snapshot, head):
            raise IntegrityFailure("The revocation list is not what the service wrote.")
        self._known = again

    def allow(self, version: KeyVersion) -> bool:
        """Whether the list agrees with `version`: False if its row says that it is usable but it was revoked."""
        of_key = self._known.of_key.get(version.key_uid)
        if of_key is None:
            return True
        number, state = version.version, version.state
        return not (
            (number <= of_key.compromised and state not in _NEVER_USED)
            or (number <= of_key.ended and state not in _NOT_IN_USE)
            or (number == of_key.held and state not in {KeyState.SUSPENDED, *_NOT_IN_USE})
        )

    def require_allowed(self, version: KeyVersion) -> None:
        """Raise IntegrityFailure where a version says that it may be used and the list says otherwise."""
        if not self.allow(version):
            raise IntegrityFailure(
                f"Version {version.version} of this key is {version.state} in the database, but it was revoked. "
                "Someone else wrote to the database."
            )
