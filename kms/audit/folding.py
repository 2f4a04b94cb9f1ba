"""Folding all the time: in a process of its own beside the workers, or in one of them where there is no such process.

A process of its own because those who use keys must not wait for it: Python runs one thread at a time.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

import structlog

from kms.allocator import return_freed_memory
from kms.audit.entry import about_itself
from kms.audit.index import Index
from kms.audit.index_file import IndexUnusable
from kms.audit.index_watch import WRONG, IndexWatch
from kms.audit.sequencer import MOST_AT_ONCE, Sequencer
from kms.audit.tree import Unverified
from kms.audit.witnesses import Witnesses, witnesses_of
from kms.clock import Clock, utc_now
from kms.config import Settings
from kms.errors import Refusal, StartError
from kms.files import fault_of, private_directory, write_private
from kms.process_protection import name_process
from kms.vault.opening import open_vault
from kms.vault.store import Vault
from kms.vault.unsealed import Unsealed

PROCESS_NAME = "kms-folding"
"""What `ps` and `top` call the process."""
_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_PAUSE_SECONDS = 1.0
_LEAVES_TIME_TO_OTHERS = 5
_JOIN_SECONDS = 20
_BETWEEN_STARTS_SECONDS = 3.0
_FAULT = "folding-fault"
_LOG = structlog.get_logger()


def fault_of_folding(run_dir: Path) -> str:
    """What keeps the process of this host that folds from it, as a sentence; empty where nothing does."""
    try:
        return (run_dir / _FAULT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


class Folder:
    """Folds again and again, if this process is the one of its host that does."""

    def __init__(self, vault: Vault, settings: Settings, clock: Clock = utc_now) -> None:
        self._sequencer = Sequencer(
            vault,
            settings.audit_log_dir,
            settings.spool_dir,
            settings.audit_origin,
            clock,
            keep=settings.audit_keep,
        )
        self._vault, self._clock = vault, clock
        self._index = Index(settings.audit_log_dir, settings.audit_index)
        self._watch = IndexWatch(self._index, settings.integrity_interval.total_seconds(), self._tell_of_index)
        self._witnesses = Witnesses(settings.audit_log_dir, witnesses_of(settings))
        self._lock = settings.run_dir / "folding"
        self._fault = settings.run_dir / _FAULT
        self._held: BinaryIO | None = None
        self._failing = ""
        self._not_indexed = ""

    def fold(self) -> None:
        """Fold everything that is there. What keeps it from that is logged when it begins, and when it is over."""
        if not self._is_the_one():
            return
        try:
            is_more = True
            while is_more:
                is_more = self._sequencer.fold() >= MOST_AT_ONCE
                self._catch_up()
            self._watch.look(self._sequencer.size)
        except Refusal as refusal:
            self._note(refusal.detail)
        except (StartError, OSError) as error:
            self._note(fault_of(error) if isinstance(error, OSError) else str(error))
        else:
            self._note("")

    def _catch_up(self) -> None:
        """Index what was folded. A search does without, up to a point, so nothing waits for it."""
        reason = ""
        try:
            while self._index.catch_up(self._sequencer.size):
                pass
            self._index.forget_dropped(self._sequencer.size)
        except (IndexUnusable, Unverified) as unusable:
            reason = str(unusable)
        if reason and not self._not_indexed:
            _LOG.warning("the audit log is not indexed: searches take longer, or cannot be answered", reason=reason)
        self._not_indexed = reason

    def _tell_of_index(self, reason: str) -> None:
        with self._vault.change() as change:
            change.record(about_itself(WRONG, reason, self._clock()).decode())

    def close(self) -> None:
        """Ask no witness any more, and let go of the index."""
        self._witnesses.stop()
        self._index.close()

    def _is_the_one(self) -> bool:
        if self._held is None:
            private_directory(self._lock.parent)
            lock = self._lock.open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
            except BlockingIOError:
                lock.close()
                return False
            self._held = lock
            self._witnesses.start()
        return True

    def _note(self, reason: str) -> None:
        if reason and not self._failing:
            _LOG.warning("THE AUDIT LOG IS NOT FOLDED: its entries wait", reason=reason)
        elif self._failing and not reason:
            _LOG.warning("the audit log is folded again")
        if reason != self._failing:
            with suppress(StartError):  # the log has said it already
                write_private(self._fault, reason.encode())
        self._failing = reason


class FoldingProcess:
    """A process that folds, from `start` to `stop`. It calls `let_go` first, to close what it must not inherit."""

    def __init__(self, settings: Settings, unsealed: Unsealed | None, let_go: Callable[[], None]) -> None:
        self._settings, self._unsealed, self._let_go = settings, unsealed, let_go
        self._process: BaseProcess | None = None
        self._began = 0.0

    def start(self) -> None:
        """Fork it. The signals that stop the service must be blocked: it waits for them."""
        # Forked, because what was unsealed is inherited and not sent.
        self._process = get_context("fork").Process(
            target=_fold_until_stopped,
            args=(self._settings, self._unsealed, self._let_go, os.getpid()),
            name="folding",
        )
        self._process.start()
        self._began = time.monotonic()

    def look_after(self) -> None:
        """Start another if it has ended; one that ends at once, as without its database, is not followed at once."""
        if self._process is None or time.monotonic() < self._began + _BETWEEN_STARTS_SECONDS:
            return
        if not self._process.is_alive():
            _LOG.warning(
                "the process that folds the audit log has ended; another begins", code=self._process.exitcode
            )
            self.start()

    def stop(self) -> None:
        """Let it fold what is there, and end."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(_JOIN_SECONDS)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


def _fold_until_stopped(
    settings: Settings, unsealed: Unsealed | None, let_go: Callable[[], None], parent: int
) -> None:
    let_go()
    with suppress(OSError):  # where the unit that started the service allows no such call
        os.nice(_LEAVES_TIME_TO_OTHERS)
    name_process(PROCESS_NAME)
    return_freed_memory()
    try:
        vault = open_vault(settings, unsealed)
    except StartError as error:
        _LOG.error(f"the audit log is not folded: {error}")
        sys.exit(1)
    folder = Folder(vault, settings)
    while os.getppid() == parent and not _is_told_to_stop():
        if vault.host.distrust is None:
            folder.fold()
    if vault.host.distrust is None:
        folder.fold()
    folder.close()
    vault.close()


def _is_told_to_stop() -> bool:
    """Wait a moment for a signal that stops the service."""
    came = signal.sigtimedwait(_STOP_SIGNALS, _PAUSE_SECONDS)
    # Where the process was suspended for longer than the pause, Python returns a signal that did not come.
    return came is not None and came.si_signo in _STOP_SIGNALS
