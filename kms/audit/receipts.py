"""Receipts: proofs that an entry is in the log, made for whoever has its leaf hash.

A leaf hash is what the service gave to the one who caused the entry. It covers the entry's random request id and its
time, so nobody who has not seen it can guess it, and a proof tells nothing else but how large the log is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from kms.audit import keys, spool_reading
from kms.audit.checkpoint import Checkpoint
from kms.audit.index import Index
from kms.audit.log_files import CHECKPOINT, COSIGNED, note_of
from kms.audit.looking_up import number_of
from kms.audit.note import Note, Verifier
from kms.audit.proof import TlogProof, proof_of
from kms.audit.spool import ALLOCATED_AT_ONCE, PATTERN, sizes
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
    """Makes proofs from the tree in `directory`. `spools` and `index` are files of this host.

    No proof is given that is not right: files of the log may be anybody's. Cosignatures of `witnesses` must be right
    where there are any.
    """

    vault: Vault
    directory: Path
    spools: Path
    index: Path
    witnesses: Sequence[Verifier] = ()
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
                    return self._proof(number, leaf, note, tiles)
            except Unverified:
                raise Unavailable(_UNREADABLE) from None
        if self._may_wait(leaf, size) or self._published() != note:
            raise Unavailable(_WAITING, retry_after=1)
        raise NotFound("No entry of the audit log has this leaf hash.")

    def _proof(self, number: int, leaf: bytes, published: Note, tiles: Tiles) -> TlogProof:
        """The proof for that entry, in the newest checkpoint that witnesses have cosigned if it covers the entry.

        Raises Unavailable where no checkpoint and tiles give one that is right.
        """
        with self.vault.read() as snapshot:
            key = keys.verifier_key(snapshot, "")
        for note in (*self._cosigned(), published):
            try:
                size = Checkpoint.parse(note.text).size
                if number < size:
                    proof = proof_of(number, tiles.at(size), note)
                    proof.check(leaf, key, self.witnesses)
                    return proof
            except Unverified:
                continue
        raise Unavailable(_UNREADABLE)

    def _cosigned(self) -> Iterator[Note]:
        """The checkpoint that is kept apart, if it is there and can be read: others do without it."""
        with suppress(OSError, Unverified):
            note = note_of(self.directory, COSIGNED)
            if note is not None:
                yield note

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
            positions = folded_spools(snapshot)
            nodes = len(self.vault.nodes.all(snapshot))
        here = {path.stem for path in self.spools.glob(PATTERN)}
        folded = {spool: end for spool, end in positions.items() if spool in here}
        written = sum(max(0, size - ALLOCATED_AT_ONCE) for size in sizes(self.spools))
        behind = written - sum(folded.values())
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
