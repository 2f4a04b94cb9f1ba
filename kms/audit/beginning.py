"""Beginning another log, where the one before is lost: its entries cannot be had back, and nobody may forge them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from kms.audit.log_files import CHECKPOINT
from kms.errors import Conflict
from kms.vault.folded import NOT_BEGUN, audit_log
from kms.vault.rows import AuditLog
from kms.vault.store import Vault

_NUMBERED = re.compile(r"(.+/audit)(?:/([0-9]+))?")


def begin_anew(vault: Vault, directory: Path, entry: str) -> AuditLog:
    """Let the next fold begin another log in the empty `directory`; `entry` becomes its first. Returns the lost one.

    The new log has another name: under the former one there may be checkpoints, receipts and cosignatures of the lost
    entries. Raises Conflict if no log was begun, or one is in the directory; Unavailable.
    """
    if (directory / CHECKPOINT).exists():
        raise Conflict(f"There is a log in {directory}. Move it away, to where it is kept.")
    with vault.change() as change:
        lost = audit_log(change)
        if not lost.size:
            raise Conflict("This vault's audit log has not begun yet, so it cannot be lost.")
        change.replace(
            lost,
            replace(
                NOT_BEGUN,
                origin=_next_name(lost.origin),
                last_folded=lost.last_folded,
                entries_folded=lost.entries_folded,
            ),
        )
        change.record(entry)
    return lost


def _next_name(origin: str) -> str:
    found = _NUMBERED.fullmatch(origin)
    if found is None:
        return f"{origin}/2"
    return f"{found[1]}/{int(found[2] or 1) + 1}"
