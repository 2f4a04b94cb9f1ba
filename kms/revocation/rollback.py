"""Whether a backup is older than what is known of its vault, and what is done about it.

A restored backup takes the vault back to the moment at which it was made. Where something shows that the vault has
gone on since, that is named, and done only if the operator says so. What was revoked since and can be proven is then
revoked again, in the same transaction: no one ever sees the restored vault without it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.clock import rfc3339
from kms.errors import StartError
from kms.revocation.again import Applied, Evidence, apply_again, make_counted_due, missing, stand_in_uid
from kms.revocation.model import Revocation
from kms.vault.backup.restore import Loaded, Verdict
from kms.vault.change import Change
from kms.vault.head import ACCEPTED_BEYOND

Source = Callable[[Change], Evidence]
"""Somewhere that newer revocations may come from, looked at once the backup is loaded. Raises StartError."""

_MOST_SHOWN = 20


class RollbackRefused(StartError):
    """A backup is older than what is known, and the operator has not said that it is to be restored all the same."""


@dataclass
class Judge:
    """Decides on a loaded backup (see `vault.backup.restore`). What it found is in its fields, for the operator.

    `sources` are asked for what is newer. `report` is what the operator must know, in sentences.
    """

    now: datetime
    accepts_rollback: bool
    sources: Sequence[Source] = ()
    report: list[str] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    is_rollback: bool = False

    def __call__(self, change: Change, loaded: Loaded) -> Verdict:
        """Say whether this is a rollback, and put newer revocations in force. Raises StartError."""
        evidence = [source(change) for source in self.sources]
        newest = max([loaded.seen, *(each.counter for each in evidence)])
        lacking = missing(change, evidence)
        self.is_rollback = newest > loaded.head.counter or bool(lacking)
        found = _found(loaded, newest, evidence, [entry for entry, _ in lacking])
        if self.is_rollback and not self.accepts_rollback:
            raise RollbackRefused("\n".join([*found, _ADVICE]))
        record = self._recorder(change, loaded)
        self.applied = apply_again(change, lacking, self.now, record)
        due = make_counted_due(change, self.now) if self.is_rollback else 0
        self.report += [*found, *_limits(loaded, evidence, is_rollback=self.is_rollback)]
        if due:
            self.report.append(
                f"{due} keys are rotated as soon as the service runs, because the messages that they have protected "
                "since the backup were not counted."
            )
        return Verdict(self.is_rollback, newest, max([0, *(each.epoch for each in evidence)]))

    def shown_again(self) -> list[str]:
        """A line about each revocation that was put in force again."""
        return [_shown(each.entry) + ("" if each.is_key_here else _lost(each.entry)) for each in self.applied]

    def _recorder(self, change: Change, loaded: Loaded) -> Callable[[Revocation], None]:
        """Write the audit entry of the restore; returns what writes one for a revocation that is in force again."""
        request_id = secrets.token_hex(8)

        def entry(operation: str, target: str, key_id: str | None = None, version: int | None = None) -> None:
            made = AuditEntry(
                1, timestamp(self.now), request_id, operation, SUCCESS, "local", None, key_id, version, target
            )
            change.record(made.line().decode())

        kind = "rollback to the backup" if self.is_rollback else "backup"
        entry("restore_vault", f"{kind} of {loaded.header.made_at} at change {loaded.header.counter}")
        return lambda stored: entry("revoke_key", f"again, {stored.reason}", stored.key_id, stored.up_to_version)


_ADVICE = (
    "Nothing was restored. To restore it all the same, give --accept-rollback, and what is left of the newer time: "
    "--revocations FILE with the last revocation list that the service published, and --newer-database with the "
    "database that this backup takes the place of, even if it is damaged. What they prove to be revoked is then "
    "revoked again."
)


def _found(loaded: Loaded, newest: int, evidence: Sequence[Evidence], lacking: Sequence[Revocation]) -> list[str]:
    """What is known of the time after the backup."""
    made = f"The backup was made at {loaded.header.made_at}, at change {loaded.header.counter} of the vault."
    found = [made]
    lost = newest - loaded.head.counter
    if lost > 0:
        by = [each.about for each in evidence if each.counter == newest]
        knows = " and ".join(["this data directory"] * (loaded.seen == newest) + by)
        accepted = ""
        if lost >= ACCEPTED_BEYOND:
            accepted = ", and an operator has accepted the database since"
        found.append(
            f"ROLLBACK: {knows} has seen change {newest}. {lost % ACCEPTED_BEYOND} changes are lost{accepted}: keys "
            "and versions that were made then, and every revocation, deletion, changed grant, ended session and "
            "removed access key or client of that time."
        )
    if lacking:
        found.append(f"ROLLBACK: {len(lacking)} revocations that can be proven are not in the backup:")
        found += [f"  {_shown(entry)}" for entry in lacking[:_MOST_SHOWN]]
        if len(lacking) > _MOST_SHOWN:
            found.append(f"  and {len(lacking) - _MOST_SHOWN} more")
    return found


def _limits(loaded: Loaded, evidence: Sequence[Evidence], *, is_rollback: bool) -> list[str]:
    """What cannot be known."""
    said = [f"{each.about}: {remark}" for each in evidence for remark in each.remarks]
    if is_rollback and not evidence:
        said.append("Nothing was given that says what was revoked since the backup: those keys can be used again.")
    if is_rollback:
        said.append("What was taken away since then is back: look through clients, grants, access keys and sessions.")
    elif not loaded.seen and not evidence:
        said.append(
            "This data directory has not seen this vault before, so nothing here says whether there was a newer one: "
            f"what was revoked after {loaded.header.made_at} would be in force no more."
        )
    return said


def _lost(entry: Revocation) -> str:
    if entry.key_uid != stand_in_uid(entry.key_id):
        return " (the backup does not have this key)"
    return " (the backup has no key of this id; was it `deleted-…`, look for the key under its former one)"


def _shown(entry: Revocation) -> str:
    return f"{entry.key_id} up to version {entry.up_to_version}, {entry.reason}, at {rfc3339(entry.revoked_at)}"
