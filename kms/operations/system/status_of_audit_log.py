"""The section of `kms status` about the audit log: its tree, what waits for it, and its witnesses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Self

from msgspec import UNSET, UnsetType

from kms.audit.entry import timestamp
from kms.audit.folding import fault_of_folding
from kms.audit.log_files import CHECKPOINT, COSIGNED
from kms.audit.log_state import log_state, newest
from kms.operations.system.status_sections import Look, Section

_FOLDED_WITHIN = timedelta(minutes=1)
_COSIGNED_WITHIN = timedelta(hours=1)


class AuditLogSection(Section):
    """The audit log: `entries` in its tree, those that wait to be folded into it, and when that was done last.

    `files` and `bytes` are of the spools of this host, with what is allocated ahead. `cosigned_entries` is the size
    of the newest checkpoint that witnesses have cosigned, where there are any.
    """

    entries: int
    waiting: int
    files: int
    bytes: int
    folded_at: datetime | UnsetType = UNSET
    cosigned_entries: int | UnsetType = UNSET

    @classmethod
    def read(cls, look: Look) -> Self:
        """As `Section.read`."""
        entries, waiting = look.gauge("kms_audit_log_entries"), look.gauge("kms_audit_waiting_entries")
        folded = look.gauge("kms_audit_folded_timestamp_seconds")
        folded_at = datetime.fromtimestamp(folded, UTC) if folded else UNSET
        settings = look.service.settings
        fault = fault_of_folding(settings.run_dir)
        state = log_state(look.service.vault, settings.spool_dir)
        if fault:
            look.attention.append(f"The audit log is not folded. {fault}")
        elif state.oldest and state.oldest < timestamp(look.now - _FOLDED_WITHIN):
            look.attention.append(
                f"{waiting} entries wait for longer than a minute to be folded into the audit log. Does the process "
                "that folds run? See the log."
            )
        cosigned = _cosigned(look) if settings.witness_urls else UNSET
        return cls(
            entries=entries,
            waiting=waiting,
            folded_at=folded_at,
            cosigned_entries=cosigned,
            files=look.gauge("kms_audit_spool_files"),
            bytes=look.gauge("kms_audit_spool_bytes"),
        )


def _cosigned(look: Look) -> int:
    """The size of the newest checkpoint that witnesses have cosigned; 0 where there is none."""
    directory = look.service.settings.audit_log_dir
    size, since = newest(directory, COSIGNED)
    if size < newest(directory, CHECKPOINT)[0] and since < (look.now - _COSIGNED_WITHIN).timestamp():
        look.attention.append("No witness has cosigned the audit log for an hour. The log says why.")
    return size
