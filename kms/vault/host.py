"""What the processes of one host share about a vault: a small memory-mapped file, and a lock for writing, the turn.

The file holds the newest epoch and the newest counter of the head (see `head`) that this host has seen. The epoch is
written after each commit that outdates something, before the request is answered. So a worker sees without asking the
database whether it may still answer from memory. The counter survives a restart: a database with a lower counter is
an older copy. The branch of its history (see `history`) stands in the same word, so that a database which has lost
changes and made others is noticed too. If that or another inconsistency is found, the reason is kept in the file
until an operator accepts the database. Several processes may write the counter at the same moment, so each has a word
of its own for it. Where the vault was opened (see `lost`) is kept too.

Changes on one host happen one after the other: the process that has the turn begins, commits, and writes the epoch
before the next one may begin, so that neither number ever goes back.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import queue
import re
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from pathlib import Path

from kms.errors import StartError, Unavailable
from kms.files import fault_of, private_directory
from kms.vault.history import Seen

_SIZE = 4096
_FORMAT = b"KMSHOST1"
EPOCH, _COUNTER = 1, 2  # words of 64 bits, aligned, so that each is read and written whole
_COUNTERS = slice(128, 512)  # a process writes what it saw into one of these; none takes back what another saw
_IDENTITY = slice(64, 192)
_NODE_ID = slice(192, 208)
_PLACES = slice(26, 32)  # words, of which 0 is none
_DISTRUST = slice(256, 1024)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PATIENCE_SECONDS = 10.0
_NAME = re.compile(r"newest-[0-9a-f]{32}")


class Host:
    """The shared file of one vault, in the data directory `directory`.

    `words` is the mapped file as numbers; the hot path compares `words[EPOCH]`. `node_id` names this host among the
    nodes of the database.
    """

    def __init__(self, directory: Path, vault_id: bytes) -> None:
        path = private_directory(directory) / f"newest-{vault_id.hex()}"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._door = os.open(f"{path}.door", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                if os.fstat(self._file).st_size < _SIZE:
                    os.posix_fallocate(self._file, 0, _SIZE)  # a hole would kill the process on a full disk
                if not os.pread(self._file, len(_FORMAT), 0).strip(b"\0"):  # also where the first start was cut off
                    os.pwrite(self._file, _FORMAT, 0)
                    os.fsync(self._file)
                self._map = mmap.mmap(self._file, _SIZE)
                self.node_id = self._own_node_id()
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        except OSError as error:
            raise StartError(f"Cannot write {path}: {error.strerror}.") from error
        if self._map[: len(_FORMAT)] != _FORMAT:
            raise StartError(f"{path} is not a file of this service. Move it away.")
        self.words = memoryview(self._map).cast("Q")
        self._turn = _TimedLock(self._file)
        self._waiting_room = _TimedLock(self._door)
        self._seeing = threading.Lock()

    @property
    def counter(self) -> int:
        """The newest counter that this host has seen."""
        return max(self.words[_COUNTER], self.seen.counter)

    @property
    def seen(self) -> Seen:
        """The newest of what this release has seen on this host."""
        return Seen.in_word(max(self.words[_COUNTERS]))

    def saw(self, seen: Seen) -> None:
        """Remember it."""
        with self._seeing:
            # The second is where the releases before this one look.
            for at, value in ((self._own_word(), seen.word), (_COUNTER, seen.counter)):
                if value > self.words[at]:
                    self.words[at] = value

    def announce(self, epoch: int) -> None:
        """Tell every process of this host that something is outdated; only the one that has the turn may call it."""
        self.words[EPOCH] = max(epoch, self.words[EPOCH])

    @property
    def remembered(self) -> tuple[int, tuple[int, ...]]:
        """What `begin_anew` may take back: the words of what was seen, that of the releases before first."""
        return self.words[_COUNTER], tuple(self.words[_COUNTERS])

    def begin_anew(self, seen: Seen, epoch: int, remembered: tuple[int, tuple[int, ...]]) -> None:
        """Trust the database as it is now, at these numbers, even if the file was damaged and says higher ones.

        `remembered` was read before the database was accepted: what a process has seen since then stays. Only the
        one that has the turn may call it.
        """
        before, words = remembered
        if before > seen.counter and self.words[_COUNTER] == before:
            self.words[_COUNTER] = seen.counter
        for at, word in enumerate(words, _COUNTERS.start):
            if word > seen.word and self.words[at] == word:
                self.words[at] = seen.word
        self.saw(seen)
        self.words[EPOCH] = epoch
        self.distrust = None

    @property
    def distrust(self) -> str | None:
        """Why the database is not trusted; None where it is."""
        text = self._map[_DISTRUST].rstrip(b"\0")
        return text.decode("utf-8", "replace") if text else None

    @distrust.setter
    def distrust(self, reason: str | None) -> None:
        """Say so, or that it is trusted again."""
        length = _DISTRUST.stop - _DISTRUST.start
        self._map[_DISTRUST] = (reason or "").encode()[:length].ljust(length, b"\0")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the host's only write lock, as a context manager. Raises Unavailable after waiting ten seconds.

        Two locks make the queue fair: a process that has had the turn cannot take it again before one that waits. The
        kernel releases both if the process dies.
        """
        self._waiting_room.acquire()
        try:
            self._turn.acquire()
        finally:
            self._waiting_room.release()
        try:
            yield
        finally:
            self._turn.release()

    def opened_at(self, place: int) -> None:
        """Remember that the vault was in the database at `place` (see `database.place_of`)."""
        known = self.words[_PLACES].tolist()
        if place not in known:
            at = known.index(0) if 0 in known else place % len(known)
            self.words[_PLACES.start + at] = place

    def close(self) -> None:
        """Let go of the file."""
        self.words.release()
        self._map.close()
        self._turn.close()
        self._waiting_room.close()

    @staticmethod
    def _own_word() -> int:
        return _COUNTERS.start + os.getpid() % (_COUNTERS.stop - _COUNTERS.start)

    def _own_node_id(self) -> str:
        """The id in the file, as long as it is this very file in this boot of the machine, and no copy of it."""
        status = os.fstat(self._file)
        boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(os.getpid())
        identity = f"{boot} {status.st_dev} {status.st_ino}".encode().ljust(_IDENTITY.stop - _IDENTITY.start, b"\0")
        if self._map[_IDENTITY] != identity:
            self._map[_NODE_ID] = secrets.token_hex(8).encode()
            self._map[_IDENTITY] = identity
        return self._map[_NODE_ID].decode()


def newest_seen(directory: Path, vault_id: bytes) -> tuple[int, int]:
    """The newest counter and the newest epoch of a vault that this host has seen, 0 for none. Nothing is written.

    Raises StartError.
    """
    path = directory / f"newest-{vault_id.hex()}"
    kept = _kept_in(path)
    if not kept:
        return 0, 0
    words = _words_of(kept)
    if words is None:
        raise StartError(f"{path} is not a file of this service. Move it away.")
    return _newest_of(words), words[EPOCH]


def vaults_seen(directory: Path) -> Iterator[tuple[Path, frozenset[int]]]:
    """The files about vaults that this host has opened, or of which it has seen a state, and where it opened each.

    There are no places in what a release wrote that did not keep them, or in a damaged file. Nothing is written.
    Raises StartError.
    """
    for path in sorted(directory.glob("newest-*")):
        kept = _kept_in(path) if _NAME.fullmatch(path.name) else b""
        words = _words_of(kept)
        places = frozenset(words[_PLACES] if words else ()) - {0}
        if kept and (words is None or places or _newest_of(words)):
            yield path, places


def _kept_in(path: Path) -> bytes:
    """What is in a file of a host; empty where it is not there, or whoever began it was cut off."""
    try:
        kept = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StartError(f"Cannot read {path}: {fault_of(error)}.") from error
    return kept if kept[: len(_FORMAT)].strip(b"\0") else b""


def _words_of(kept: bytes) -> memoryview[int] | None:
    return memoryview(kept).cast("Q") if len(kept) == _SIZE and kept.startswith(_FORMAT) else None


def _newest_of(words: memoryview[int]) -> int:
    return max(words[_COUNTER], Seen.in_word(max(words[_COUNTERS])).counter)


class _TimedLock:
    """A lock on a file between processes, with a time limit. In this process one thread at a time asks for it."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._mutex = threading.Lock()
        self._abandoned: Future[None] | None = None
        self._asked: queue.SimpleQueue[Future[None]] | None = None

    def acquire(self) -> None:
        """Take it. Raises Unavailable."""
        with self._mutex:
            standing, self._abandoned = self._abandoned, None
        if standing is None:
            with suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            standing = self._stand()
        try:
            standing.result(_PATIENCE_SECONDS)
        except FutureTimeout:
            with self._mutex:
                self._abandoned = standing
            standing.add_done_callback(self._give_back)
            raise Unavailable("Another process is writing and does not end. Try again.", retry_after=1) from None
        return None

    def release(self) -> None:
        """Give it back."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, -1
        os.close(file)

    def _stand(self) -> Future[None]:
        """Have another thread stand in the kernel's queue, which has no time limit."""
        if self._asked is None:
            self._asked = queue.SimpleQueue()
            threading.Thread(target=_stand_for, args=(self._file, self._asked), daemon=True).start()
        standing: Future[None] = Future()
        self._asked.put(standing)
        return standing

    def _give_back(self, late: Future[None]) -> None:
        """Release what came too late, unless somebody has asked for it again meanwhile."""
        with self._mutex:
            if self._abandoned is late:
                self._abandoned = None
                self.release()


def _stand_for(file: int, asked: queue.SimpleQueue[Future[None]]) -> None:
    while True:
        standing = asked.get()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # the file was closed
            standing.set_exception(error)
            return
        standing.set_result(None)
