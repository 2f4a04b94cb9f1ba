"""The disk of the audit log, full or read-only. Entries wait where they are safe, and are folded when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable

from faults.changers import Changers
from faults.disks import use_for
from faults.judge import judge_answers, judge_log, judge_tree, judge_vault
from faults.outcome import Outcome
from faults.runner import Bench, Fault
from faults.site import Site
from faults.small_disk import SmallDisk, small_disk
from kms.audit.log_files import CHECKPOINT

_HARM_SECONDS = 4.0
_FOLDED_SECONDS = 120
_MEBIBYTES = 24


def _harmed(bench: Bench, begin: Callable[[SmallDisk], None], end: Callable[[SmallDisk], None]) -> Outcome:
    """Keys are changed and used while nothing can be folded, and judged when all of it is."""
    outcome = Outcome()
    with small_disk(bench.folder / "disk", _MEBIBYTES) as disk:
        folder = bench.folder / "service"
        url = bench.databases.new_url(bench.folder) or f"sqlite:///{bench.folder / 'kms.db'}"
        site = Site.build(folder, url, workers=2, KMS_AUDIT_DIR=str(disk.folder / "log"))
        try:
            changers = Changers(site, bench.seed, outcome)
            changers.enrol()
            for number in range(bench.rounds):
                _one_time(bench, changers, disk, number, begin, end)
        finally:
            site.end()
        judge_vault(changers)
        judge_tree(site, outcome)
        judge_log(site, outcome)
        said = "".join(site.logs)
        if "THE AUDIT LOG IS NOT FOLDED" not in said or "the audit log is folded again" not in said:
            outcome.find("wrong", "the service does not say that nothing was folded, or that it is again")
    return outcome


def _one_time(
    bench: Bench,
    changers: Changers,
    disk: SmallDisk,
    number: int,
    begin: Callable[[SmallDisk], None],
    end: Callable[[SmallDisk], None],
) -> None:
    outcome, before = changers.outcome, len(changers.books)
    _wait_for_more(changers.site, -1)
    changers.start(number)
    changers.wait_for(bench.chance("log disk", number).randrange(10, 60))
    begin(disk)
    outcome.tries += 1
    size = _size(changers.site)
    try:
        # It works, because entries do not need the log's own disk until they are folded.
        use_for(_HARM_SECONDS, changers, "while nothing could be folded")
        stood_at = _size(changers.site)
    finally:
        end(disk)
    if stood_at != size:
        outcome.find("wrong", f"the log grew from {size} to {stood_at} entries where nothing can be written")
    outcome.recovery.append(_wait_for_more(changers.site, stood_at))
    changers.stop()
    judge_answers(changers, changers.books[before:])


def _size(site: Site) -> int:
    """The size that the published checkpoint says; 0 before there is one."""
    try:
        return int((site.settings.audit_log_dir / CHECKPOINT).read_text().split("\n")[1])
    except FileNotFoundError:
        return 0


def _wait_for_more(site: Site, size: int) -> float:
    """Wait until the log is larger than that; returns how long it took, in seconds. Raises TimeoutError."""
    began = time.monotonic()
    while _size(site) <= size:
        if time.monotonic() - began > _FOLDED_SECONDS:
            raise TimeoutError("nothing is folded any more: " + site.log.read_text(errors="replace")[-2000:])
        time.sleep(0.05)
    return time.monotonic() - began


def full(bench: Bench) -> Outcome:
    """Not a byte is left on the disk of the log."""
    return _harmed(bench, SmallDisk.fill, SmallDisk.empty)


def read_only(bench: Bench) -> Outcome:
    """Nobody may write on the disk of the log."""
    return _harmed(bench, SmallDisk.protect, SmallDisk.release)


FAULTS = [
    Fault("full-disk-audit-log", "full disk of the audit log", full, full=3),
    Fault("read-only-audit-log", "read-only disk of the audit log", read_only, full=3),
]
