"""Revocations that are newer than a restored backup, put in force again.

A backup does not know what was revoked after it was made. What is at hand from that time and authentic is evidence:
the signed revocation list, the database that the backup takes the place of. `Evidence` is what each source comes to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from kms.clock import rfc3339
from kms.keys.model import Key, KeyState, KeyVersion, RevocationReason
from kms.revocation.leaves import enter
from kms.revocation.model import Revocation
from kms.revocation.published import in_force
from kms.revocation.revoke import publish_under_its_id, revoke_again
from kms.vault.change import Change, next_serial
from kms.vault.rows import MessageCount
from kms.vault.tables import revocations


@dataclass(frozen=True)
class Evidence:
    """What one source proves: `entries` in their order, and the newest state of the vault that it knows of.

    `counter` and `epoch` are of that state, 0 where it knows of none.

    `by_id` are the serial numbers of entries that name their key by its id only, and have a stand-in for its uid.
    `remarks` are sentences for the operator about what the source does not prove.
    """

    about: str
    entries: tuple[Revocation, ...]
    by_id: frozenset[int] = frozenset()
    counter: int = 0
    epoch: int = 0
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """A revocation that was put in force again: `entry` as it is stored now, `is_key_here` whether its key is."""

    entry: Revocation
    is_key_here: bool


def stand_in_uid(key_id: str) -> bytes:
    """What stands for the uid of a key of which only the id is known; no key has it."""
    return sha256(b"a key of unknown uid " + key_id.encode()).digest()[:16]


def missing(change: Change, evidence: Iterable[Evidence]) -> list[tuple[Revocation, bool]]:
    """The revocations in force by `evidence` that the list lacks, and whether their key uid is known.

    Each comes once. Holds that were lifted are not among them, and stay as the backup has them.
    """
    known: set[_Form] = set()
    for entry in change.select(Revocation, order_by=revocations.c.serial):
        known |= _forms(entry)
    found: list[tuple[Revocation, bool]] = []
    for source in sorted(evidence, key=lambda each: len(each.by_id)):  # first those that know most
        for entry in in_force(source.entries):
            is_uid_known = entry.serial not in source.by_id
            if not _is_among(known, entry, is_uid_known=is_uid_known):
                known |= _forms(entry)
                found.append((entry, is_uid_known))
    return sorted(found, key=lambda each: each[0].revoked_at)


def apply_again(
    change: Change, lacking: Iterable[tuple[Revocation, bool]], now: datetime, record: Callable[[Revocation], None]
) -> list[Applied]:
    """Put revocations in force that `missing` found, in their order; `record` writes the audit entry of each.

    What was revoked under an id that the key does not have in the backup is listed under the one that it has, too.
    """
    applied = []
    for entry, is_uid_known in lacking:
        applied.append(_apply(change, entry, is_uid_known, now))
        record(applied[-1].entry)
    for uid in dict.fromkeys(each.entry.key_uid for each in applied if each.is_key_here):
        key = change.find(Key, uid)
        assert key is not None
        publish_under_its_id(change, key)
    return applied


def make_counted_due(change: Change, now: datetime) -> int:
    """Make keys due for rotation whose messages are counted, and return how many there are.

    Nobody knows how many messages their latest versions have protected since the backup.
    """
    due = 0
    for count in change.select(MessageCount):
        key = change.find(Key, count.key_uid)
        if key is None or key.latest_version != count.version or not key.origin.is_renewable:
            continue
        latest = change.find(KeyVersion, key.uid, key.latest_version)
        if latest is not None and latest.state is KeyState.ACTIVE:
            change.replace(key, replace(key, next_rotation_at=min(key.next_rotation_at or now, now)))
            due += 1
    return due


def _apply(change: Change, entry: Revocation, is_uid_known: bool, now: datetime) -> Applied:
    key = change.find(Key, entry.key_uid) if is_uid_known else change.key_by_id(entry.key_id)
    serial = next_serial(change, revocations.c.serial)
    if key is None:
        # The key came after the backup and is lost. Whoever checks its old signatures still finds it in the list.
        stored = replace(entry, serial=serial)
        enter(change, stored)
        return Applied(stored, is_key_here=False)
    is_hold = entry.reason is RevocationReason.CERTIFICATE_HOLD  # on the latest version, whichever that is
    up_to = key.latest_version if is_hold else entry.up_to_version
    if up_to > key.latest_version:
        key = _with_lost_versions(change, key, up_to, entry, now)
    stored = replace(entry, serial=serial, key_uid=key.uid, up_to_version=up_to)
    enter(change, stored)
    if is_hold:
        _hold_again(change, key, now)
    else:
        revoke_again(change, key, now)
    return Applied(stored, is_key_here=True)


def _hold_again(change: Change, key: Key, now: datetime) -> None:
    """Suspend the latest version, also where its period has ended meanwhile, so that it does not even decrypt."""
    latest = change.find(KeyVersion, key.uid, key.latest_version)
    if latest is not None and latest.state in {KeyState.PRE_ACTIVATION, KeyState.ACTIVE}:
        held = replace(
            latest,
            state=KeyState.SUSPENDED,
            changed_at=now,
            revocation_reason=RevocationReason.CERTIFICATE_HOLD,
        )
        change.replace(latest, held)


def _with_lost_versions(change: Change, key: Key, up_to: int, entry: Revocation, now: datetime) -> Key:
    """`key` with the versions that came after the backup, as destroyed ones.

    They were revoked. Their numbers must not come back as new versions, to which the revocation would apply too.
    """
    for number in range(key.latest_version + 1, up_to + 1):
        if change.find(KeyVersion, key.uid, number) is None:  # else it is material that waits, and is revoked as such
            change.insert(
                KeyVersion(
                    key_uid=key.uid,
                    version=number,
                    type=key.type,
                    state=KeyState.DESTROYED,
                    created_at=now,
                    activate_at=now,
                    expires_at=now,
                    process_until=now,
                    material=None,
                    revocation_reason=entry.reason,
                    changed_at=now,
                )
            )
    return change.replace(key, replace(key, latest_version=up_to))


_Form = tuple[bytes, str, int, str, str]
"""By what an entry is known again in whatever form it comes; published ones have seconds only.

The key id is a part of it: a revocation that is listed under two ids must be found under both again.
"""


def _forms(entry: Revocation) -> set[_Form]:
    return {_form(entry, entry.key_uid), _form(entry)}


def _form(entry: Revocation, key_uid: bytes = b"") -> _Form:
    return key_uid, entry.key_id, entry.up_to_version, str(entry.reason), rfc3339(entry.revoked_at)


def _is_among(known: set[_Form], entry: Revocation, *, is_uid_known: bool) -> bool:
    """Whether `entry` is known. Two keys may have had the same id, so a known uid is what counts.

    An earlier restore may have stored a stand-in for it.
    """
    if not is_uid_known:
        return _form(entry) in known
    return not known.isdisjoint({_form(entry, entry.key_uid), _form(entry, stand_in_uid(entry.key_id))})
