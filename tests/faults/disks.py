"""A full disk: for the database, for the audit spools, for the log. It refuses, and goes on when there is space."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from faults.changers import Changers
from faults.connection import Connection, Unanswered
from faults.databases import PostgresServer
from faults.judge import judge_answers, judge_log, judge_vault
from faults.outcome import Outcome
from faults.runner import Bench, Fault
from faults.site import Site
from faults.small_disk import SmallDisk, small_disk
from helpers.support import new_database

_FULL_SECONDS = 3.0
_PROBES = 10


@contextmanager
def _site_for(bench: Bench, disk: SmallDisk, what: str) -> Iterator[tuple[Site, PostgresServer | None]]:
    """A service that has one of its files, and only that, on the small disk."""
    folder, log = bench.folder / "service", None
    url, server = None, None
    if what == "database" and bench.is_sqlite:
        url = f"sqlite:///{disk.folder / 'kms.db'}"
    elif what == "database":
        bench.folder.chmod(0o711)  # the server is another user
        (disk.folder / "server").mkdir()
        server = PostgresServer(disk.folder / "server")
        url = new_database(server.url)
    else:
        url = bench.databases.new_url(bench.folder) or f"sqlite:///{bench.folder / 'kms.db'}"
        if what == "spools":
            (folder / "kms-data").mkdir(parents=True, mode=0o700)
            (disk.folder / "audit").mkdir(mode=0o700)
            (folder / "kms-data" / "audit").symlink_to(disk.folder / "audit")
        else:
            log = disk.folder / "log"
    level = "info" if what == "log" else "error"
    site = Site.build(folder, url, workers=2, log=log, KMS_LOG_LEVEL=level)
    try:
        yield site, server
    finally:
        site.end()
        if server is not None:
            server.stop()


def _full(bench: Bench, what: str, mebibytes: int) -> Outcome:
    outcome = Outcome()
    with (
        small_disk(bench.folder / "disk", mebibytes, "755") as disk,
        _site_for(bench, disk, what) as (site, server),
    ):
        changers = Changers(site, bench.seed, outcome)
        changers.enrol()
        for number in range(bench.rounds):
            _one_time(bench, changers, disk, server, number)
        site.end()
        judge_vault(changers)
        judge_log(site, outcome)
    return outcome


def _one_time(bench: Bench, changers: Changers, disk: SmallDisk, server: PostgresServer | None, number: int) -> None:
    """Fill the disk among changes, use a key meanwhile, give the space back, and wait until it goes on."""
    outcome, before = changers.outcome, len(changers.books)
    changers.start(number)
    changers.wait_for(bench.chance("disk", number).randrange(10, 60))
    disk.fill()
    outcome.tries += 1
    use_for(_FULL_SECONDS, changers, "while the disk was full")
    emptied_at = time.monotonic()
    disk.empty()
    if server is not None and server.process.poll() is not None:
        server.start()  # it ends where it cannot write its log, and whoever looks after it starts it again
    outcome.recovery.append(changers.acknowledged_after(emptied_at))
    changers.site.wait_ready()
    changers.stop()
    judge_answers(changers, changers.books[before:])


def use_for(seconds: float, changers: Changers, meanwhile: str) -> None:
    """Ask for uses of a key: an answer, or a plain refusal. `meanwhile` says in findings what was wrong then."""
    book = next(each for each in changers.books if each.now.state)
    owner = Connection(changers.site, changers.tokens[book.client])
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            reply = owner.ask("POST", f"/api/v1/keys/{book.key_id}/encrypt", {"plaintext": "AAAA"})
        except Unanswered:
            changers.outcome.find("wrong", f"a use of a key got no answer {meanwhile}")
            continue
        if reply.status not in {200, 403, 404, 409, 503}:
            changers.outcome.find("wrong", f"a use of a key was answered {reply.status} {reply.body}")
        changers.outcome.refused += reply.status == 503
        time.sleep(0.02)
    owner.close()


def database(bench: Bench) -> Outcome:
    """The disk of the database."""
    return _full(bench, "database", 16 if bench.is_sqlite else 110)


def spools(bench: Bench) -> Outcome:
    """The disk of the audit spools."""
    return _full(bench, "spools", 2)


def log(bench: Bench) -> Outcome:
    """The disk of what goes to stderr."""
    return _full(bench, "log", 1)


FAULTS = [
    Fault("full-disk-database", "full disk of the database", database, full=3),
    Fault("full-disk-spools", "full disk of the audit spools", spools, full=3),
    Fault("full-disk-log", "full disk of the log (stderr)", log, full=3),
]
