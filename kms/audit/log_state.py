"""What a vault knows of its audit log: the key, the tree that its own row speaks of, and what waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import msgspec
from sqlalchemy import func, select

from kms.audit import keys, spool_reading
from kms.audit.checkpoint import Checkpoint
from kms.audit.exclusive import STAGING
from kms.audit.note import Ed25519Key, Note, signed
from kms.audit.tree import Unverified
from kms.vault import tables
from kms.vault.folded import audit_log
from kms.vault.rows import FoldedSpool, OutboxEntry
from kms.vault.store import Vault

_MOST_COUNTED_BYTES = 16 << 20
_ATTEMPTS, _PAUSE_SECONDS = 40, 0.05


def key_and_state(vault: Vault, directory: Path, origin: str) -> tuple[Ed25519Key, list[bytes]]:
    """The key, and the tree of the database as a checkpoint, which the log must continue; none before it begins.

    It waits a moment for a fold whose files are being written into `directory`. Raises Refusal.
    """
    with vault.read() as snapshot:
        log = audit_log(snapshot)
        signer = keys.log_signer(snapshot, origin)
    if not log.size:
        return signer.key, []
    for _ in range(_ATTEMPTS):
        if not log.staged or not (directory / STAGING / log.staged).exists():
            break
        time.sleep(_PAUSE_SECONDS)
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
        positions = snapshot.matching(FoldedSpool)
    uses = spool_reading.unchecked(spools, {each.spool: each.folded for each in positions}, _MOST_COUNTED_BYTES)
    times = [_time_of(line) for line in (*(row.entry.encode() for row in first), *uses)]
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
    path = directory / name
    try:
        return Checkpoint.parse(Note.parse(path.read_bytes()).text).size, path.stat().st_mtime
    except (OSError, Unverified):
        return 0, 0.0


class _Timed(msgspec.Struct):
    time: str = ""


_decode = msgspec.json.Decoder(_Timed).decode


def _time_of(line: bytes) -> str:
    try:
        return _decode(line).time
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
