"""What may befall the file of a database while the service runs, or between two runs."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg

from faults.judge import judge_log
from faults.outcome import Outcome, Skipped
from faults.runner import Bench, Fault
from faults.site import Site
from faults.witness import Witness

_HARM_SECONDS = 3.0
_START_SECONDS = 120.0
_LOCK_SECONDS = 13.0
"""Longer than a change waits for the database (ten seconds)."""


@contextmanager
def _witnessed(bench: Bench, number: int) -> Iterator[Witness]:
    folder = bench.folder / f"service-{number}"
    site = Site.build(folder, bench.databases.new_url(folder), workers=2, KMS_LOG_LEVEL="error")
    witness = Witness(site, Outcome())
    try:
        witness.prepare()
        yield witness
    finally:
        with suppress(ProcessLookupError):
            site.end()


def _file(witness: Witness, suffix: str = "") -> Path:
    return witness.site.folder / "kms-data" / f"kms.db{suffix}"


def _question(witness: Witness, seconds: float, may_be_gone: bool = False) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        witness.ask(may_be_gone)
        witness.make(may_be_gone)
        time.sleep(0.05)


def _until_it_works(witness: Witness, seconds: float = 60) -> None:
    began = time.monotonic()
    while not (witness.ask() and witness.make()):
        if time.monotonic() - began > seconds:
            raise TimeoutError("it does not work again: " + witness.site.log.read_text()[-2000:])
        time.sleep(0.05)
    witness.outcome.recovery.append(time.monotonic() - began)


def _passing(bench: Bench, seconds: float, begin: Callable[[Witness], Callable[[], None]]) -> Outcome:
    """A harm that passes: `begin` does it and returns what ends it. The service goes on by itself."""
    total = Outcome()
    for number in range(bench.rounds):
        with _witnessed(bench, number) as witness:
            witness.take_away()
            end = begin(witness)
            try:
                _question(witness, seconds)
            finally:
                end()
            _until_it_works(witness)
            witness.find_made()
            witness.site.end()
            _verify(witness)
            _add(total, witness)
    return total


def _verify(witness: Witness) -> None:
    code, said = witness.site.verify()
    if code:
        witness.outcome.find("half_made", f"vault verify: {said}")


def _add(total: Outcome, witness: Witness) -> None:
    judge_log(witness.site, witness.outcome)
    total.tries += 1
    for name in ("acknowledged", "lost", "half_made", "wrong", "refused", "unanswered"):
        setattr(total, name, getattr(total, name) + getattr(witness.outcome, name))
    total.recovery += witness.outcome.recovery
    total.findings += witness.outcome.findings


def locked(bench: Bench) -> Outcome:
    """Another process holds the lock for longer than a change waits."""

    def begin(witness: Witness) -> Callable[[], None]:
        if bench.is_sqlite:
            other = sqlite3.connect(_file(witness), isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            return other.close
        session = psycopg.connect(str(witness.site.database_url))
        session.execute("LOCK TABLE head IN ACCESS EXCLUSIVE MODE")
        return session.close

    return _passing(bench, _LOCK_SECONDS, begin)


def read_only(bench: Bench) -> Outcome:
    """The database becomes read-only, and a worker has to open it so."""

    def begin(witness: Witness) -> Callable[[], None]:
        return _immutable(witness) if bench.is_sqlite else _read_only_sessions(bench, witness)

    return _passing(bench, _HARM_SECONDS, begin)


def _immutable(witness: Witness) -> Callable[[], None]:
    """Root writes where it has no permission to; only the attribute of the file stops it."""
    path = _file(witness)
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        raise Skipped("this file system has no immutable files")
    os.kill(witness.site.worker_pids()[0], signal.SIGKILL)

    def end() -> None:
        subprocess.run(["chattr", "-i", path], check=True)

    return end


def _read_only_sessions(bench: Bench, witness: Witness) -> Callable[[], None]:
    url = str(witness.site.database_url)
    name, server = url.rpartition("/")[2], f"{bench.databases.server.url}/postgres"

    def set_to(value: str) -> None:
        with closing(psycopg.connect(server, autocommit=True)) as session:
            session.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")  # type: ignore[arg-type]  # no value of a caller
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    set_to("on")
    return lambda: set_to("off")


def _taken(
    bench: Bench, harm: Callable[[Witness, Path], None], *, is_running: bool, is_destroyed: bool = False
) -> Outcome:
    """A harm that stays. `harm` gets an old copy of the file, from before a revocation.

    Afterwards the service is started on what is there: what it acknowledged since the harm must be there, or it
    refuses; and what was revoked stays revoked. Where the file itself `is_destroyed`, what was acknowledged into it
    before that was noticed is gone as with a disk that dies; then the service must refuse.
    """
    total, gone = Outcome(), 0
    for number in range(bench.rounds):
        with _witnessed(bench, number) as witness:
            old = witness.site.folder / "old.db"
            with closing(sqlite3.connect(_file(witness))) as source:
                source.execute("VACUUM INTO ?", [str(old)])
            witness.take_away()
            witness.make()
            before = len(witness.made)
            if is_running:
                harm(witness, old)
                _question(witness, _HARM_SECONDS, may_be_gone=True)
            else:
                witness.site.kill()
                harm(witness, old)
            witness.site.kill() if is_running else None
            del witness.made[:before]  # the harm took these, and not the service
            witness.site.start(wait=False)
            made = len(witness.made)
            _look_after(witness, is_destroyed=is_destroyed)
            gone += made - len(witness.made)
            _add(total, witness)
    if is_destroyed:
        total.remarks.append(
            f"{gone} changes were acknowledged into the file before it was noticed, and went with it"
        )
    return total


def _look_after(witness: Witness, *, is_destroyed: bool) -> None:
    """Whatever came up, or refused to, does not say anything that is not true."""
    until = time.monotonic() + _START_SECONDS
    site = witness.site
    while site.process.poll() is None and time.monotonic() < until:
        text = site.log.read_text(errors="replace")
        if "KEYS ARE NOT USED" in text or site.is_ready():
            break
        time.sleep(0.1)
    if site.process.poll() is not None:
        text = site.log.read_text(errors="replace")
        witness.outcome.refused += 1
        if "The service does not start." not in text:
            witness.outcome.find("wrong", f"it does not start, and does not say why: {text[-500:]}")
        if is_destroyed:
            witness.made.clear()
        if witness.made:
            witness.outcome.find("lost", f"{len(witness.made)} changes were acknowledged after the harm")
        return
    for _ in range(5):
        witness.ask(may_be_gone=True)
    witness.find_made()


def _replace(witness: Witness, old: Path) -> None:
    shutil.copy(old, f"{old}.copy")
    Path(f"{old}.copy").replace(_file(witness))


def _replace_alone(witness: Witness, old: Path) -> None:
    _replace(witness, old)
    for suffix in ("-wal", "-shm"):
        _file(witness, suffix).unlink(missing_ok=True)


def _overwrite(witness: Witness, old: Path) -> None:
    """As `cp` does: the same file, with other content."""
    shutil.copyfile(old, _file(witness))


def _delete(witness: Witness, _old: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        _file(witness, suffix).unlink(missing_ok=True)


def _delete_alone(witness: Witness, _old: Path) -> None:
    _file(witness).unlink()


def _remove_wal(witness: Witness, _old: Path) -> None:
    _file(witness, "-wal").unlink(missing_ok=True)


def _other_wal(witness: Witness, old: Path) -> None:
    """The file of an older time beside the log of a newer one."""
    _file(witness, "-shm").unlink(missing_ok=True)
    shutil.copyfile(old, _file(witness))


def _fault(
    name: str, title: str, harm: Callable[[Witness, Path], None], *, is_running: bool, is_destroyed: bool = False
) -> Fault:
    def make(bench: Bench) -> Outcome:
        return _taken(bench, harm, is_running=is_running, is_destroyed=is_destroyed)

    return Fault(f"file-{name}", title, make, full=2, databases=("sqlite",))


FAULTS = [
    Fault("file-locked", "database locked by another process for 13 s", locked, full=1),
    Fault("file-read-only", "database read-only for 3 s", read_only, full=2),
    _fault("replaced", "database file replaced by an older copy while running", _replace, is_running=True),
    _fault("replaced-alone", "the same, its -wal removed", _replace_alone, is_running=True),
    _fault(
        "overwritten",
        "database file overwritten with an older copy while running",
        _overwrite,
        is_running=True,
        is_destroyed=True,
    ),
    _fault("deleted", "database file and -wal deleted while running", _delete, is_running=True),
    _fault("deleted-alone", "database file deleted while running", _delete_alone, is_running=True),
    _fault("wal-removed-live", "-wal removed while running", _remove_wal, is_running=True),
    _fault("wal-removed", "-wal removed after a kill -9", _remove_wal, is_running=False),
    _fault("other-wal", "older database file beside a newer -wal", _other_wal, is_running=False),
]
