"""Receipts: proofs that an entry is in the log, made for whoever has its leaf hash.

A leaf hash is what the service gave to the one who caused the entry. It covers the entry's random request id and its
time, so nobody who has not seen it can guess it, and a proof tells nothing else but how large the log is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from kms.audit import spool_reading
from kms.audit.checkpoint import Checkpoint
from kms.audit.index import Index
from kms.audit.log_files import CHECKPOINT, COSIGNED, note_of
from kms.audit.looking_up import number_of
from kms.audit.note import Note
from kms.audit.proof import TlogProof, proof_of
from kms.audit.spool_files import processes_of, spools_in
from kms.audit.tiles import Tiles
from kms.audit.tree import Unverified, leaf_hash
from kms.errors import NotFound, Unavailable
from kms.vault import tables
from kms.vault.folded import audit_log, folded_spools
from kms.vault.rows import OutboxEntry
from kms.vault.store import Vault

_MOST_WAITING_ROWS = 20_000
_MOST_WAITING_BYTES = 16 << 20
_ON_OTHER_HOSTS_SECONDS = 30.0
_MOST_REMEMBERED = 4096
_WAITING = "The entry is not in the log yet, or may be about to come. Ask again."

_UNREADABLE = "The audit log cannot be read. Operators see why with `kms audit verify`."


@dataclass
class Receipts:
    """Makes proofs from the tree in `directory`. `spools` and `index` are files of this host."""

    vault: Vault
    directory: Path
    spools: Path
    index: Path
    _asked: dict[bytes, float] = field(default_factory=dict, init=False)

    def proof(self, leaf: bytes) -> TlogProof:
        """The proof for the entry with this leaf hash.

        Raises Unavailable while the entry may be waiting to be folded, NotFound where there is none.
        """
        note = self._published()
        size = 0
        if note is not None:
            size = Checkpoint.parse(note.text).size
            tiles = Tiles.in_directory(self.directory)
            try:
                number = number_of(Index(self.directory, self.index), size, leaf)
                if number is not None:
                    return self._proof(number, note, tiles)
            except Unverified:
                raise Unavailable(_UNREADABLE) from None
        if self._may_wait(leaf, size) or self._published() != note:
            raise Unavailable(_WAITING, retry_after=1)
        raise NotFound("No entry of the audit log has this leaf hash.")

    def _proof(self, number: int, note: Note, tiles: Tiles) -> TlogProof:
        """The proof for that entry, in the newest checkpoint that witnesses have cosigned if it covers the entry."""
        cosigned = self._note(COSIGNED)
        if cosigned is not None and number < Checkpoint.parse(cosigned.text).size:
            note = cosigned
        return proof_of(number, tiles.at(Checkpoint.parse(note.text).size), note)

    def _published(self) -> Note | None:
        return self._note(CHECKPOINT)

    def _note(self, name: str) -> Note | None:
        try:
            return note_of(self.directory, name)
        except (OSError, Unverified):
            raise Unavailable(_UNREADABLE) from None

    def _may_wait(self, leaf: bytes, size: int) -> bool:
        """Whether the entry waits, or so much does that looking through it would cost too much."""
        with self.vault.read() as snapshot:
            log = audit_log(snapshot)
            column = tables.audit_outbox.c.sequence
            rows = snapshot.select(OutboxEntry, order_by=column.desc(), limit=_MOST_WAITING_ROWS)
            folded = folded_spools(snapshot, processes_of(spools_in(self.spools)))
            nodes = len(self.vault.nodes.all(snapshot))
        behind = spool_reading.bytes_waiting(self.spools, folded)
        if log.size > size or len(rows) == _MOST_WAITING_ROWS or behind > _MOST_WAITING_BYTES:
            return True
        if any(leaf_hash(row.entry.encode()) == leaf for row in rows):
            return True
        if any(leaf_hash(line) == leaf for line in spool_reading.unchecked(self.spools, folded, _MOST_WAITING_BYTES)):
            return True
        return nodes > 1 and self._may_wait_elsewhere(leaf)

    def _may_wait_elsewhere(self, leaf: bytes) -> bool:
        """Whether this was asked for the first time a moment ago: what waits on another host cannot be read here."""
        now = monotonic()
        first = self._asked.setdefault(leaf, now)
        while len(self._asked) > _MOST_REMEMBERED:
            self._asked.pop(next(iter(self._asked)), None)
        return now - first < _ON_OTHER_HOSTS_SECONDS
