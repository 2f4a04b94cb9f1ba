"""Folds the entries of changes and of this host's spools into the tree, exactly once, whatever dies meanwhile.

A fold reads what is new, writes all of it into one staged file, and then says in one commit of the database: the
tree has this size and this root now, these entries of changes are gone, and the spools are folded up to here. Only
after that the tiles are made of what was staged, and the checkpoint is signed. So before the commit nothing has
happened, and after it the tiles follow from what is there already, whoever writes them: the next fold begins with
that. What a process writes that was stopped for long is right, or is a staged file that nobody asks for.

A database that was put back knows of a smaller tree than the directory holds. A log never goes back: it is continued
where it is, and what it holds already is not folded again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from shutil import rmtree

import structlog

from kms.audit import keys, older_spools, spool_reading
from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.entry import about_itself
from kms.audit.growing import Growth, grown, leaves_between, outdated
from kms.audit.log_files import CHECKPOINT, KEY, STAGING, content_of, exclusive, put
from kms.audit.note import Ed25519Signer, signed
from kms.audit.retention import DROPPED, Retention, target_of
from kms.audit.spool_files import processes_of, spools_in
from kms.audit.spool_reading import MOST_SHOWN_BYTES, SpoolRead
from kms.audit.tiles import MAX_ENTRY_BYTES, Tiles, bundle_of, entries_of
from kms.audit.tree import Unverified, leaf_hash
from kms.clock import Clock
from kms.errors import Conflict, IntegrityFailure, Refusal, Unavailable
from kms.files import durable_directory
from kms.vault import sentences
from kms.vault.change import Change
from kms.vault.folded import audit_log, folded_rows, folded_spools, waiting_entries
from kms.vault.rows import AuditLog, FoldedSpool, OutboxEntry
from kms.vault.schema import keep_out_older_releases
from kms.vault.store import Vault

FIRST_REVISION = "0013"  # nodes of older releases take a shorter outbox for one that was altered
MOST_AT_ONCE = 20_000
_MOST_SPOOL_BYTES = 8 << 20
_ALL = 1 << 40
_BEGINNING_BYTES = 4096  # who did what to which key: that comes first
_LOG = structlog.get_logger()


_WRONG = (
    "The audit log in {} is not the one of this database, or is damaged: put the log's directory back. Several nodes "
    "need one that they share (KMS_AUDIT_DIR)."
)


class WrongDirectory(Unavailable):
    """The directory does not hold the tree that the database speaks of."""


@dataclass
class Sequencer:
    """Folds what this host has. `directory` holds the tree, `spools` the files of this host's processes.

    `origin` names the log when it begins. Entries that are older than `keep` are dropped; None keeps them for ever.
    """

    vault: Vault
    directory: Path
    spools: Path
    origin: str
    clock: Clock
    keep: timedelta | None = None
    _applied: tuple[int, bytes] | None = field(default=None, init=False)  # the tree that this process has seen whole
    _told: set[str] = field(default_factory=set, init=False)  # what was wrong with spools at the last fold
    _growth: tuple[str, Growth] | None = field(default=None, init=False)  # of what this process has just staged

    def __post_init__(self) -> None:
        self._retention = Retention(self.directory, self.keep)

    def fold(self) -> int:
        """Fold what is there, at most `MOST_AT_ONCE` entries and some, and return how many that were.

        Raises Unavailable or IntegrityFailure, WrongDirectory, OSError.
        """
        with exclusive(self.directory, wait=False) as is_mine:  # two would only do the same work twice
            try:
                return self._fold() if is_mine else 0
            except Unverified as unverified:
                raise WrongDirectory(f"{_WRONG.format(self.directory)} {unverified}") from unverified

    @property
    def size(self) -> int:
        """How many entries the tree had when this process looked last."""
        return self._applied[0] if self._applied is not None else 0

    def _fold(self) -> int:
        published = content_of(
            self.directory, CHECKPOINT
        )  # before the database is read: what is published later is not newer
        with self.vault.read() as snapshot:
            if any(each.revision < FIRST_REVISION for each in self.vault.nodes.all(snapshot)):
                return 0
            before = audit_log(snapshot)
            entries = waiting_entries(snapshot, before, MOST_AT_ONCE)
            signer = keys.log_signer(snapshot, self.origin)
        self._apply(before, signer)
        log, known = self._continued(before, published, signer)
        if known:  # then everything at once: no later fold can tell what the log has already
            with self.vault.read() as snapshot:
                entries = waiting_entries(snapshot, before, _ALL)
        spools = self._read_spools(before, published, MOST_SHOWN_BYTES if known else _MOST_SPOOL_BYTES)
        lines = [entry.entry.encode() for entry in entries]
        for each in spools:
            lines += each.entries
        if known:
            lines = [line for line in lines if leaf_hash(line) not in known]
            lines.append(self._report("audit_log_continued", f"the database was put back to entry {before.size}"))
            for each in spools:  # what the database forgot may have been folded, and its file removed
                each.damage = [damage for damage in each.damage if not damage.is_gap]
        damaged = {str(damage) for each in spools for damage in each.damage}
        lines += [self._report("audit_spool_damaged", each) for each in sorted(damaged - self._told)]
        dropping = self._retention.due(log.size, log.root, self.clock())
        if dropping:
            lines.append(self._about_itself(DROPPED, target_of(dropping)))
        if not lines:
            self._settle(spools, damaged)
            return 0
        after = self._staged(log, entries, lines)
        try:
            self._commit(before, after, spools)
        except Refusal as refused:  # what was staged is nobody's, unless it may have been committed
            if refused.detail not in {sentences.UNKNOWN, sentences.TAKEN_AWAY}:
                (self.directory / STAGING / after.staged).unlink(missing_ok=True)
            if isinstance(refused, Conflict):  # another node was first
                return 0
            raise
        self._apply(after, signer)
        if dropping:
            _LOG.info("old entries of the audit log are dropped", entries=target_of(dropping))
            self._retention.drop(dropping)
        self._settle(spools, damaged)
        return len(lines)

    def _continued(
        self, log: AuditLog, published: bytes | None, signer: Ed25519Signer
    ) -> tuple[AuditLog, frozenset[bytes]]:
        """The tree to go on from, and the leaf hashes of those of its entries that the database does not know of.

        Raises WrongDirectory where what was published does not continue the tree of the database.
        """
        if published is None:
            return log, frozenset()
        there = self._opened(published, signer)
        if there.size <= log.size:
            return log, frozenset()
        known = leaves_between(self._tiles, (log.size, log.root), (there.size, there.root))
        _LOG.critical("THE DATABASE IS OLDER THAN ITS AUDIT LOG", database=log.size, log=there.size)
        return replace(log, origin=there.origin, size=there.size, root=there.root), frozenset(known)

    @staticmethod
    def _opened(published: bytes, signer: Ed25519Signer) -> Checkpoint:
        """The checkpoint that is published. Raises Unverified, which names the file, where it is not of this log."""
        try:
            return open_checkpoint(published, signer.key).checkpoint
        except Unverified as unverified:
            raise Unverified(f"Its file `{CHECKPOINT}`: {unverified}") from unverified

    def _report(self, operation: str, target: str) -> bytes:
        """An entry of the log about what was done to it."""
        _LOG.critical("THE AUDIT LOG IS NOT AS THE SERVICE LEFT IT", operation=operation, reason=target)
        return self._about_itself(operation, target)

    def _instead_of(self, line: bytes) -> bytes:
        """What is folded for an entry that is too long for the log, which would stop it for ever: its beginning."""
        begin = line[:_BEGINNING_BYTES].decode(errors="replace")
        return self._report("audit_entry_cut", f"{len(line)} bytes, SHA-256 {sha256(line).hexdigest()}: {begin}")

    def _about_itself(self, operation: str, target: str) -> bytes:
        return about_itself(operation, target, self.clock())

    def _staged(self, log: AuditLog, entries: list[OutboxEntry], lines: list[bytes]) -> AuditLog:
        """Write `lines` down, and return what the database is to say then."""
        lines = [line if len(line) <= MAX_ENTRY_BYTES else self._instead_of(line) for line in lines]
        # What is read is checked again, each time: it is signed, and others may have written in the directory since.
        growth = grown(self._tiles, log.size, lines, log.root)
        # Nobody else's name: two may stage the same where locks do not reach, and one of them takes its file back.
        staged = f"{log.size}-{growth.size}-{growth.root.hex()}-{token_hex(8)}"
        put(self.directory / STAGING, staged, bundle_of(lines))
        self._growth = staged, growth
        return replace(
            log,
            origin=log.origin or self.origin,
            size=growth.size,
            root=growth.root,
            staged=staged,
            last_folded=entries[-1].sequence if entries else log.last_folded,
            entries_folded=log.entries_folded + len(entries),
            folded_at=self.clock(),
        )

    def _commit(self, before: AuditLog, after: AuditLog, spools: Iterable[SpoolRead]) -> None:
        """Say so in the database. Raises Conflict if it says something else by now."""
        node_id = self.vault.host.node_id
        with self.vault.change() as change:
            if audit_log(change) != before:
                raise Conflict("Another process has folded meanwhile.")
            reached = {each.process: each.end for each in spools if each.entries}
            rows = {each.spool: each for each in folded_rows(change, reached)}
            for process, end in reached.items():
                row = FoldedSpool(node_id, process, end)
                if process in rows:
                    change.replace(rows[process], row)
                else:
                    change.insert(row)
            self._put(change, before, after)
            if after.last_folded > before.last_folded:
                change.delete_entries(after.last_folded)

    @staticmethod
    def _put(change: Change, before: AuditLog, after: AuditLog) -> None:
        if before.size or before.origin:
            change.replace(before, after)
        else:
            keep_out_older_releases(change)  # they expect every entry of a change in the outbox, also those folded
            change.insert(after)

    @property
    def _tiles(self) -> Tiles:
        return Tiles.in_directory(self.directory)

    def _root(self, size: int) -> bytes:
        """The root of the first `size` entries in the directory; nothing where it does not hold them."""
        try:
            return self._tiles.root(size)
        except Unverified:
            return b""

    def _apply(self, log: AuditLog, signer: Ed25519Signer) -> None:
        """See to it that the directory holds the tree of `log` and its checkpoint.

        Raises WrongDirectory if it holds another tree.
        """
        if not log.size or self._applied == (log.size, log.root):
            return
        staged = self.directory / STAGING / log.staged
        if staged.exists():
            self._write_tiles(staged, log)
        if self._root(log.size) != log.root:
            raise WrongDirectory(_WRONG.format(self.directory))
        self._publish(log, signer)
        staged.unlink(missing_ok=True)
        self._forget_staged(log.size)
        self._applied = log.size, log.root

    def _forget_staged(self, size: int) -> None:
        """Remove what was staged upon a smaller tree, by a process that died before its commit: nobody commits it."""
        for path in (self.directory / STAGING).glob("[0-9]*-*"):
            begin = path.name.split("-")[0]
            if begin.isdecimal() and int(begin) < size:
                path.unlink(missing_ok=True)

    def _write_tiles(self, staged: Path, log: AuditLog) -> None:
        size = int(log.staged.split("-")[0])
        files = self._files_of(staged, size, log.root)
        directories = {self.directory / path.rpartition("/")[0] for path in files}
        for each in directories:
            durable_directory(each)
        with ThreadPoolExecutor(8) as pool:  # each waits for the disk
            for done in [pool.submit(self._write, path, content) for path, content in files.items()]:
                done.result()
        for path in outdated(0 if self._applied is None else size, size):
            rmtree(self.directory / path, ignore_errors=True)

    def _files_of(self, staged: Path, size: int, root: bytes) -> dict[str, bytes]:
        """The tiles and bundles that follow from what is staged: made anew, unless this process just made them.

        Raises Unverified where they do not give `root`.
        """
        mine, self._growth = self._growth, None
        if mine is not None and mine[0] == staged.name:
            return mine[1].files
        lines, _ = entries_of(staged.read_bytes())
        growth = grown(self._tiles, size, lines)
        if growth.root != root:
            raise Unverified(f"{STAGING}/{staged.name} does not give the root of the tree.")
        return growth.files

    def _write(self, path: str, content: bytes) -> None:
        put(self.directory, path, content)

    def _publish(self, log: AuditLog, signer: Ed25519Signer) -> None:
        """Sign the checkpoint of `log`, unless that or a later one is there."""
        published = content_of(self.directory, CHECKPOINT)
        if published is not None and self._opened(published, signer).size >= log.size:
            return
        key = f"{signer.key}\n".encode()
        if published is None or content_of(self.directory, KEY) != key:
            put(self.directory, KEY, key)
        note = signed(Checkpoint(log.origin, log.size, log.root).text, signer)
        put(self.directory, CHECKPOINT, bytes(note))

    def _read_spools(self, before: AuditLog, published: bytes | None, most_bytes: int) -> list[SpoolRead]:
        """What this host's processes have written, and nothing twice: where a process is folded to stays for ever."""
        files = spools_in(self.spools)  # once: what is put back after it was asked for must not be taken for new
        with self.vault.read() as snapshot:
            key = keys.spool_key(snapshot)
            folded = folded_spools(snapshot, processes_of(files))
        if key is None:  # who has made the key that signs has made this one, too
            raise IntegrityFailure("The key for the spools of the audit log was removed from the vault.")
        if not before.size and not before.origin and published is None:
            older_spools.adopt(self.spools, key)
        return spool_reading.read(files, folded, key, most_bytes)

    def _settle(self, spools: Iterable[SpoolRead], damaged: set[str]) -> None:
        """Remove files of processes that have ended, once folded, and keep those that are damaged aside."""
        new, self._told = damaged - self._told, damaged
        fault: OSError | None = None
        for each in spools:
            try:
                each.settle(keeps=any(str(damage) in new for damage in each.damage))
            except OSError as error:  # one that cannot be copied or removed keeps no other from it
                fault = error
        if fault is not None:
            raise fault
