"""What a vault knows of its audit log: the key, the tree that its own row speaks of, and what waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from sqlalchemy import func, select

from kms.audit import keys, spool_reading
from kms.audit.checkpoint import Checkpoint
from kms.audit.entry import time_of
from kms.audit.log_files import note_of
from kms.audit.note import Ed25519Key, signed
from kms.audit.reading import settled
from kms.audit.spool_files import processes_of, spools_in
from kms.audit.tree import Unverified
from kms.vault import tables
from kms.vault.folded import audit_log, folded_spools
from kms.vault.rows import OutboxEntry
from kms.vault.store import Vault

_MOST_COUNTED_BYTES = 16 << 20


def key_and_state(vault: Vault, directory: Path, origin: str) -> tuple[Ed25519Key, list[bytes]]:
    """The key, and the tree of the database as a checkpoint, which the log must continue; none before it begins.

    It waits a moment for a fold whose files are being written into `directory`. Raises Refusal.
    """
    log = settled(vault, directory)
    with vault.read() as snapshot:
        signer = keys.log_signer(snapshot, origin)
    if not log.size:
        return signer.key, []
    return signer.key, [bytes(signed(Checkpoint(log.origin, log.size, log.root).text, signer))]


class LogState(NamedTuple):
    """The tree of the database: its `size`, when it has grown last, and how many entries wait.

    `oldest` is the time of the oldest that waits, as entries have it; empty where none does.
    """

    size: int
    folded_at: datetime
    waiting: int
    oldest: str


def log_state(vault: Vault, spools: Path) -> LogState:
    """The state as this host sees it, with what waits in its own spools, up to 16 MiB. Raises Refusal."""
    with vault.read() as snapshot:
        log = audit_log(snapshot)
        changes = snapshot.connection.execute(select(func.count()).select_from(tables.audit_outbox)).scalar_one()
        first = snapshot.select(OutboxEntry, order_by=tables.audit_outbox.c.sequence, limit=1)
        folded = folded_spools(snapshot, processes_of(spools_in(spools)))
    uses = spool_reading.unchecked(spools, folded, _MOST_COUNTED_BYTES)
    times = [time_of(line) for line in (*(row.entry.encode() for row in first), *uses)]
    return LogState(log.size, log.folded_at, changes + len(uses), min(filter(None, times), default=""))


@dataclass
class RememberedLogState:
    """The state, for pages that anybody may ask for: it is read once a second at the most."""

    vault: Vault
    spools: Path
    _lock: Lock = field(default_factory=Lock, init=False)
    _until: float = field(default=0.0, init=False)
    _state: LogState | None = field(default=None, init=False)

    def read(self) -> LogState:
        """The state, at most a second old. Raises Refusal."""
        with self._lock:
            if self._state is None or time.monotonic() >= self._until:
                self._state = log_state(self.vault, self.spools)
                self._until = time.monotonic() + 1.0
            return self._state


def newest(directory: Path, name: str) -> tuple[int, float]:
    """The size in the checkpoint of that name, and when it was written (seconds since 1970); 0 if it is not there."""
    try:
        note = note_of(directory, name)
        if note is not None:
            return Checkpoint.parse(note.text).size, (directory / name).stat().st_mtime
    except (OSError, Unverified):
        pass
    return 0, 0.0
