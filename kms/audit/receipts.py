"""Receipts: proofs that an entry is in the log, made for whoever has its leaf hash.

A leaf hash is what the service gave to the one who caused the entry. It covers the entry's random request id and its
time, so nobody who has not seen it can guess it, and a proof tells nothing else but how large the log is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic

from sqlalchemy import select

from kms.audit import keys, spool_reading
from kms.audit.checkpoint import Checkpoint
from kms.audit.index import Index
from kms.audit.log_files import CHECKPOINT, COSIGNED, note_of
from kms.audit.looking_up import number_of
from kms.audit.note import Note, Verifier
from kms.audit.proof import TlogProof, proof_of
from kms.audit.spool_files import ALLOCATED_AT_ONCE, processes_of, sizes, spools_in
from kms.audit.tiles import Tiles
from kms.audit.tree import Unverified, leaf_hash
from kms.errors import NotFound, Unavailable
from kms.vault import tables
from kms.vault.folded import audit_log, folded_spools
from kms.vault.rows import OutboxEntry
from kms.vault.store import Vault

_MOST_WAITING_ROWS = 4096
_MOST_WAITING_BYTES = 4 << 20
_MUCH = 256  # entries: to look through fewer costs as much as the rest of an answer
_MUCH_SECONDS = 1.0
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
    _asked_here: dict[bytes, float] = field(default_factory=dict, init=False)
    _reading: Lock = field(default_factory=Lock, init=False)
    _waiting: tuple[float, frozenset[bytes]] = field(default=(0.0, frozenset()), init=False)

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
        try:
            return note_of(self.directory, CHECKPOINT)
        except (OSError, Unverified):
            raise Unavailable(_UNREADABLE) from None

    def _may_wait(self, leaf: bytes, size: int) -> bool:
        """Whether the entry waits, or so much does that looking through it would cost too much."""
        asked = monotonic()
        with self.vault.read() as snapshot:
            log = audit_log(snapshot)
            if log.size > size:
                return True
            column = tables.audit_outbox.c.sequence
            newest = snapshot.connection.execute(select(column).order_by(column.desc()).limit(_MOST_WAITING_ROWS))
            rows = len(newest.all())
            folded = folded_spools(snapshot, processes_of(spools_in(self.spools)))
            nodes = len(self.vault.nodes.all(snapshot))
        if rows == _MOST_WAITING_ROWS or spool_reading.bytes_waiting(self.spools, folded) > _MOST_WAITING_BYTES:
            return True
        return self._waits_here(leaf, size, asked, folded) or (nodes > 1 and self._may_wait_elsewhere(leaf))

    def _waits_here(self, leaf: bytes, size: int, asked: float, folded: Mapping[str, int]) -> bool:
        """Whether the entry waits on this host, or may do so: much is looked through only once in a while.

        Then only what was read after somebody asked for this leaf first, at `asked` or before, says that it does not.
        """
        with self._reading:
            first = self._asked_here.setdefault(leaf, asked)
            while len(self._asked_here) > _MOST_REMEMBERED:
                self._asked_here.pop(next(iter(self._asked_here)), None)
            read_at, hashes = self._waiting
            if read_at < first and (len(hashes) < _MUCH or read_at + _MUCH_SECONDS < monotonic()):
                read_at = monotonic()
                column = tables.audit_outbox.c.sequence
                with self.vault.read() as snapshot:
                    is_behind = audit_log(snapshot).size > size
                    rows = snapshot.select(OutboxEntry, order_by=column.desc(), limit=_MOST_WAITING_ROWS)
                lines = [row.entry.encode() for row in rows]
                most = _MOST_WAITING_BYTES + ALLOCATED_AT_ONCE * len(sizes(self.spools))
                lines += spool_reading.unchecked(self.spools, folded, most)
                hashes = frozenset(map(leaf_hash, lines))
                self._waiting = read_at, hashes
                if is_behind or len(rows) == _MOST_WAITING_ROWS:  # of what was folded meanwhile, nothing is read
                    return True
        return leaf in hashes or read_at < first

    def _may_wait_elsewhere(self, leaf: bytes) -> bool:
        """Whether this was asked for the first time a moment ago: what waits on another host cannot be read here."""
        now = monotonic()
        first = self._asked.setdefault(leaf, now)
        while len(self._asked) > _MOST_REMEMBERED:
            self._asked.pop(next(iter(self._asked)), None)
        return now - first < _ON_OTHER_HOSTS_SECONDS
