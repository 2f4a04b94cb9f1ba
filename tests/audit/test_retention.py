"""Old entries are dropped, after the log says so; what somebody else drops is found, and every proof stays valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kms.audit import keys
from kms.audit.checkpoint import open_checkpoint
from kms.audit.entry import AuditEntry, timestamp
from kms.audit.log_files import CHECKPOINT
from kms.audit.note import Ed25519Signer, Verifier
from kms.audit.retention import DROPPED, Retention, dropped_up_to
from kms.audit.sequencer import Sequencer
from kms.audit.tiles import TILE_WIDTH, Tiles, bundle_path, entries_of, tile_path
from kms.audit.tree import inclusion_proof, leaf_hash, leaf_hashes, verify_inclusion
from kms.audit.verify import verify_log
from kms.config import Settings, load
from kms.errors import StartError
from kms.vault.folded import audit_log
from kms.vault.opening import open_vault
from kms.vault.store import Vault

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
KEEP = timedelta(days=30)


@dataclass
class Kept:
    """A log whose entries are a minute apart, and its retention."""

    vault: Vault
    directory: Path
    keep: timedelta | None = KEEP
    now: datetime = BEGAN
    written: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sequencer = self.another()

    def another(self) -> Sequencer:
        """As another process has it."""
        spools = self.directory.with_name("spools")
        spools.mkdir(exist_ok=True)
        return Sequencer(self.vault, self.directory, spools, "kms.test/audit", lambda: self.now, keep=self.keep)

    def write(self, count: int) -> None:
        with self.vault.change() as change:
            for _ in range(count):
                self.now += timedelta(minutes=1)
                line = AuditEntry(1, timestamp(self.now), f"{len(self.written):016x}", "x", "success", "local").line()
                change.record(line.decode())
                self.written.append(line)
        self.fold()

    def fold(self) -> int:
        return self.sequencer.fold()

    @property
    def tiles(self) -> Tiles:
        return Tiles.in_directory(self.directory)

    @property
    def size(self) -> int:
        with self.vault.read() as snapshot:
            return audit_log(snapshot).size

    @property
    def key(self) -> Verifier:
        with self.vault.read() as snapshot:
            return Ed25519Signer(audit_log(snapshot).origin, keys.log_key(snapshot)).key

    @property
    def dropped(self) -> list[int]:
        """The full bundles that are gone."""
        return [each for each in range(self.size // TILE_WIDTH) if not (self.directory / bundle_path(each)).exists()]

    def verdict(self) -> list[str]:
        """What is wrong with the log, where what retention dropped may be missing."""
        found = verify_log(self.tiles, self.key)
        return [each.sentence for each in found.findings]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    vault = open_vault(Settings(data_dir=tmp_path / "data"))
    with vault.change() as change:
        keys.ensure_keys(change, BEGAN)
    yield Kept(vault, tmp_path / "log")
    vault.close()


def last_entry(kept: Kept) -> bytes:
    (line,) = kept.tiles.entries(kept.size - 1, kept.size, kept.size)
    return line


def test_full_bundles_of_old_entries_are_dropped_after_the_log_says_so(kept: Kept) -> None:
    kept.write(1000)
    assert kept.dropped == []
    kept.now = (
        BEGAN + KEEP + timedelta(minutes=2 * TILE_WIDTH)
    )  # the last entry of the second bundle is as old as that
    assert kept.fold() == 1
    assert kept.dropped == [0]
    assert b'"operation":"audit_entries_dropped"' in last_entry(kept)
    assert b'"target":"0-255"' in last_entry(kept)
    kept.now += timedelta(minutes=1)
    assert kept.fold() == 1
    assert kept.dropped == [0, 1]
    assert b'"target":"256-511"' in last_entry(kept)
    assert kept.fold() == 0
    assert dropped_up_to(kept.tiles, kept.size) == 512
    assert kept.verdict() == []


def test_the_bundle_that_is_not_full_is_kept_and_so_is_everything_without_a_period(kept: Kept) -> None:
    kept.keep = None
    kept.sequencer = kept.another()
    kept.write(600)
    kept.now += 100 * KEEP
    assert kept.fold() == 0
    kept.keep = KEEP
    kept.sequencer = kept.another()
    assert kept.fold() == 1
    assert kept.dropped == [0, 1]
    assert kept.fold() == 0
    kept.write(1)
    assert kept.verdict() == []


def test_proofs_of_dropped_entries_stay_valid(kept: Kept) -> None:
    kept.write(700)
    kept.now += KEEP + timedelta(days=1)
    kept.fold()
    size, tiles = kept.size, kept.tiles
    root = open_checkpoint((kept.directory / CHECKPOINT).read_bytes(), kept.key).checkpoint.root
    for number in (0, 255, 256, 511, 600):
        path = inclusion_proof(number, size, tiles.at(size))
        assert verify_inclusion(leaf_hash(kept.written[number]), number, size, path, root)


def test_a_few_are_dropped_at_a_time(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kms.audit.retention.MOST_AT_ONCE", 2)
    kept.write(5 * TILE_WIDTH)
    kept.now += 2 * KEEP
    gone = []
    while kept.fold():
        gone.append(len(kept.dropped))
    assert gone == [2, 4, 5]
    assert dropped_up_to(kept.tiles, kept.size) == 5 * TILE_WIDTH
    assert kept.verdict() == []


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_crash_between_entry_and_drop_goes_on(kept: Kept, monkeypatch: pytest.MonkeyPatch, done: int) -> None:
    kept.write(3 * TILE_WIDTH + 10)
    kept.now += 2 * KEEP

    def crash(self: Retention, bundles: range) -> None:
        undisturbed(self, bundles[:done])
        raise Crash

    undisturbed = Retention.drop
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(Retention, "drop", crash)
        kept.fold()
    assert kept.dropped == [0, 1, 2][:done]
    assert kept.verdict() == []
    kept.sequencer = kept.another()
    while kept.fold():
        pass
    assert kept.dropped == [0, 1, 2]
    assert dropped_up_to(kept.tiles, kept.size) == 3 * TILE_WIDTH
    assert kept.verdict() == []


def test_nothing_is_dropped_whose_entry_was_not_committed(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write(TILE_WIDTH)
    kept.now += 2 * KEEP
    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(Sequencer, "_commit", lambda *_: (_ for _ in ()).throw(Crash()))
        kept.fold()
    assert kept.dropped == []
    kept.sequencer = kept.another()
    assert kept.fold() == 1
    assert kept.dropped == [0]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_somebody_else_drops_is_found(kept: Kept, index: int) -> None:
    kept.write(4 * TILE_WIDTH)
    if index:  # retention has dropped the first one before
        kept.now = BEGAN + KEEP + timedelta(minutes=TILE_WIDTH + 1)
        kept.fold()
        assert kept.dropped == [0]
    (kept.directory / bundle_path(index)).unlink()
    first = index * TILE_WIDTH
    assert dropped_up_to(kept.tiles, kept.size) == (TILE_WIDTH if index else 0)
    (sentence,) = kept.verdict()
    assert str(first) in sentence


def test_an_entry_that_only_looks_like_the_one_of_retention_is_not_believed(kept: Kept) -> None:
    genuine = {"request_id": "fold", "target": "0-511"}
    for forged in (
        {**genuine, "request_id": "0123456789abcdef"},
        {**genuine, "client_id": "mallory"},
        {**genuine, "target": "0-99999"},
        {**genuine, "target": "x"},
    ):
        line = AuditEntry(v=1, time=timestamp(kept.now), operation=DROPPED, outcome="success", source="", **forged)  # type: ignore[arg-type]
        with kept.vault.change() as change:
            change.record(line.line().decode())
    kept.write(3 * TILE_WIDTH)
    (kept.directory / bundle_path(0)).unlink()
    (kept.directory / bundle_path(1)).unlink()
    assert dropped_up_to(kept.tiles, kept.size) == 0
    assert kept.verdict()


@pytest.mark.parametrize("tiles", [False, True])
def test_entries_that_were_made_older_are_not_dropped(kept: Kept, tiles: bool) -> None:
    """Otherwise the log itself would say that the service has dropped what was altered."""
    kept.write(5 * TILE_WIDTH + 10)
    for index in range(5):
        path = kept.directory / bundle_path(index)
        path.write_bytes(path.read_bytes().replace(b'"time":"2026', b'"time":"2020'))
        if tiles:
            lines, _ = entries_of(path.read_bytes())
            (kept.directory / tile_path(0, index)).write_bytes(b"".join(leaf_hashes(lines)))
    with capture_logs() as logs:
        for _ in range(2):
            assert kept.fold() == 0
    assert len([each for each in logs if each["log_level"] == "critical"]) == 1
    kept.now += 2 * KEEP
    kept.sequencer = kept.another()
    assert kept.fold() == 0
    assert kept.dropped == []
    assert kept.verdict()


def test_what_somebody_else_dropped_is_not_said_to_be_dropped_later(kept: Kept) -> None:
    kept.write(5 * TILE_WIDTH)
    kept.now = BEGAN + KEEP + timedelta(minutes=TILE_WIDTH + 1)
    assert kept.fold() == 1
    (kept.directory / bundle_path(1)).unlink()
    kept.now += KEEP
    for _ in range(2):
        assert kept.fold() == 0
        assert dropped_up_to(kept.tiles, kept.size) == TILE_WIDTH
        (sentence,) = kept.verdict()
        assert str(TILE_WIDTH) in sentence
        kept.sequencer = kept.another()
    assert kept.dropped == [0, 1]


def test_nodes_drop_in_turns(kept: Kept) -> None:
    kept.write(5 * TILE_WIDTH)
    nodes = [kept.sequencer, kept.another()]
    for number in range(1, 5):
        kept.now = BEGAN + KEEP + timedelta(minutes=number * TILE_WIDTH + 1)
        kept.sequencer = nodes[number % 2]
        assert kept.fold() == 1
        assert kept.dropped == [*range(number)]
        assert dropped_up_to(kept.tiles, kept.size) == number * TILE_WIDTH
    assert kept.verdict() == []


def test_bundles_that_were_put_back_do_not_stop_it(kept: Kept) -> None:
    kept.write(5 * TILE_WIDTH)
    dropped = {index: (kept.directory / bundle_path(index)).read_bytes() for index in range(2)}
    kept.now = BEGAN + KEEP + timedelta(minutes=2 * TILE_WIDTH + 1)
    assert kept.fold() == 1
    for index, content in dropped.items():
        (kept.directory / bundle_path(index)).write_bytes(content)
    kept.sequencer = kept.another()
    assert kept.fold() == 0
    kept.now += timedelta(minutes=TILE_WIDTH)
    assert kept.fold() == 1
    assert kept.dropped == [0, 1, 2]
    assert kept.verdict() == []


def test_a_malformed_bundle_is_kept_to_be_seen(kept: Kept) -> None:
    kept.write(2 * TILE_WIDTH)
    path = kept.directory / bundle_path(0)
    path.write_bytes(path.read_bytes()[:-1])
    kept.now += 2 * KEEP
    assert kept.fold() == 0
    assert path.exists()


@pytest.mark.parametrize(("given", "days"), [("P400D", 400), ("P7Y", 2557), ("P1Y", 366)])
def test_how_long_entries_are_kept(given: str, days: int) -> None:
    assert load({}, {"KMS_AUDIT_KEEP": given}).audit_keep == timedelta(days=days)
    assert load({}, {}).audit_keep is None


@pytest.mark.parametrize("given", ["PT1H", "P0D", "-P7D", "P101Y", "P999Y", "seven years", "P1Y6M"])
def test_a_period_that_is_too_short_or_none_stops_the_start(given: str) -> None:
    with pytest.raises(StartError, match=r"audit_keep"):
        load({}, {"KMS_AUDIT_KEEP": given})
