"""Every entry is folded into the tree once, whatever happens in between; what others did to it is found."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
from sqlalchemy import text

from helpers.support import new_database
from kms.audit import keys, sequencer, spool_reading
from kms.audit.beginning import begin_anew
from kms.audit.checkpoint import open_checkpoint
from kms.audit.log_files import CHECKPOINT
from kms.audit.note import Ed25519Signer
from kms.audit.sequencer import Sequencer, WrongDirectory
from kms.audit.spool import Spool
from kms.audit.spool_files import spools_in
from kms.audit.spool_reading import SpoolRead
from kms.audit.tiles import Tiles, bundle_of, bundle_path, entries_of, tile_path
from kms.audit.tree import complete_root, leaf_hash, leaf_hashes
from kms.config import Settings
from kms.errors import Conflict, IntegrityFailure, StartError, TooLarge, Unavailable
from kms.vault import schema
from kms.vault.accepting import accept
from kms.vault.checking import wrong_tables
from kms.vault.folded import audit_log
from kms.vault.opening import open_vault
from kms.vault.store import Vault

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Log:
    """A vault with its audit log, as one process has it."""

    vault: Vault
    settings: Settings
    number: int = 0

    def __post_init__(self) -> None:
        self.sequencer = Sequencer(
            self.vault, self.settings.data_dir / "log", self.settings.spool_dir, "kms.test/audit", lambda: NOW
        )

    def spool_key(self) -> bytes | None:
        with self.vault.read() as snapshot:
            return keys.spool_key(snapshot)

    def spool(self) -> Spool:
        return Spool(self.settings.spool_dir, self.spool_key(), fsync=False)

    def line(self) -> bytes:
        self.number += 1
        return b'{"v":1,"time":"2026-01-01T00:00:00.000000Z","request_id":"%016d","operation":"x"}' % self.number

    def change(self) -> bytes:
        line = self.line()
        with self.vault.change() as change:
            change.record(line.decode())
        return line

    def use(self, spool: Spool) -> bytes:
        line = self.line()
        spool.append(line, leaf_hash(line))
        return line

    @property
    def entries(self) -> list[bytes]:
        """What is in the tree, once its checkpoint and root were found to be right."""
        directory = self.sequencer.directory
        with self.vault.read() as snapshot:
            log, key = audit_log(snapshot), keys.log_key(snapshot)
        there = open_checkpoint((directory / CHECKPOINT).read_bytes(), Ed25519Signer(log.origin, key).key).checkpoint
        tiles = Tiles.in_directory(directory)
        assert (there.size, there.root) == (log.size, log.root)
        assert tiles.root(there.size) == there.root
        return list(tiles.entries(0, there.size, there.size))


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    url = new_database(request.getfixturevalue("postgres")) if request.param == "postgresql" else None
    settings = Settings(data_dir=tmp_path / "data", database_url=url)
    vault = open_vault(settings)
    with vault.change() as change:
        keys.ensure_keys(change, NOW)
    yield Log(vault, settings)
    vault.close()


def test_changes_and_uses_are_folded_once(log: Log) -> None:
    spool = log.spool()
    written = []
    for _ in range(3):
        written += [log.change(), log.use(spool), log.use(spool)]
        assert log.sequencer.fold() == 3
        assert log.sequencer.fold() == 0
    assert sorted(log.entries) == sorted(written)
    with log.vault.read() as snapshot:
        assert snapshot.connection.execute(text("SELECT count(*) FROM audit_outbox")).scalar_one() == 0
    assert wrong_tables(log.vault) == []
    spool.close()
    log.sequencer.fold()
    assert list(log.settings.spool_dir.iterdir()) == []
    log.sequencer.fold()
    with log.vault.read() as snapshot:
        assert snapshot.connection.execute(text("SELECT count(*) FROM audit_spools")).scalar_one() == 1


def test_releases_that_know_of_no_log_are_kept_out_once_it_has_begun(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "migrations"
    copytree(schema._MIGRATIONS, older)
    for revision in ("0013_audit_log", "0014_approvals"):
        (older / "versions" / f"{revision}.py").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_MIGRATIONS", older)
        open_vault(log.settings).close()
    log.change()
    assert log.sequencer.fold() == 1
    open_vault(log.settings).close()
    monkeypatch.setattr(schema, "_MIGRATIONS", older)
    with pytest.raises(StartError, match="made by a newer release"):
        open_vault(log.settings)


def test_many_entries_fill_many_tiles(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "_MOST_SPOOL_BYTES", 20_000)
    spool = log.spool()
    written = [log.use(spool) for _ in range(1500)]
    folds = 0
    while log.sequencer.fold():
        folds += 1
    assert folds > 5
    assert log.entries == written
    assert not list((log.sequencer.directory / "staging").glob("*-*"))


class Crash(BaseException):
    """The process ends here."""


_STEPS = ["before staging", "staged", "committed", "tiles", "a part of the tiles", "checkpoint", "spool removed"]


def _crash_at(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Crash

    def after(function: Callable[..., object]) -> Callable[..., None]:
        def run(*args: object, **given: object) -> None:
            function(*args, **given)
            raise Crash

        return run

    match step:
        case "before staging":
            monkeypatch.setattr(Sequencer, "_staged", die)
        case "staged":
            monkeypatch.setattr(Sequencer, "_staged", after(Sequencer._staged))
        case "committed":
            monkeypatch.setattr(Sequencer, "_commit", after(Sequencer._commit))
        case "tiles":
            monkeypatch.setattr(Sequencer, "_write_tiles", after(Sequencer._write_tiles))
        case "a part of the tiles":
            monkeypatch.setattr(Sequencer, "_write", after(Sequencer._write))
        case "checkpoint":
            monkeypatch.setattr(Sequencer, "_publish", after(Sequencer._publish))
        case "spool removed":
            monkeypatch.setattr(SpoolRead, "settle", after(SpoolRead.settle))


@pytest.mark.parametrize("step", _STEPS)
def test_a_crash_loses_nothing_and_doubles_nothing(log: Log, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    spool = log.spool()
    written = [log.change(), log.use(spool)]
    log.sequencer.fold()
    written += [log.change(), log.use(spool), log.use(spool)]
    spool.close()
    with monkeypatch.context() as patched, pytest.raises(Crash):
        _crash_at(step, patched)
        log.sequencer.fold()
    for _ in range(2):
        log = Log(log.vault, log.settings, log.number)  # another process
        while log.sequencer.fold():
            pass
    assert sorted(log.entries) == sorted(written)
    written.append(log.change())
    assert log.sequencer.fold() == 1
    assert sorted(log.entries) == sorted(written)
    assert list(log.settings.spool_dir.iterdir()) == []


@pytest.mark.parametrize("dies", [False, True])
def test_two_that_fold_at_once_do_not_take_each_others_files(
    log: Log, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """As on a file system whose locks do not reach other hosts."""
    written = [log.change()]
    log.sequencer.fold()
    other = Log(log.vault, log.settings)
    written.append(log.change())
    monkeypatch.setattr(sequencer, "exclusive", lambda *_, **__: nullcontext(True))
    commit = Sequencer._commit

    def behind_the_other(self: Sequencer, *given: Any) -> None:
        if self is log.sequencer:
            with suppress(Crash):
                other.sequencer.fold()
        commit(self, *given)
        if self is other.sequencer and dies:
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Sequencer, "_commit", behind_the_other)
        assert log.sequencer.fold() == 0
    written.append(log.change())
    for each in (log, Log(log.vault, log.settings, log.number)):
        each.sequencer.fold()
    assert log.entries == written
    assert not list((log.sequencer.directory / "staging").glob("*-*"))


def test_what_a_process_staged_that_died_before_its_commit_is_removed(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [log.change()]
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(Crash):
            _crash_at("staged", patched)
            log.sequencer.fold()
    staging = log.sequencer.directory / "staging"
    assert len(list(staging.glob("*-*"))) == 2
    log.sequencer.fold()
    assert log.entries == written
    assert not list(staging.glob("*-*"))


@pytest.mark.parametrize("log", ["postgresql"], indirect=True)
def test_nothing_stays_staged_for_a_database_that_takes_no_changes(log: Log) -> None:
    written = [log.change()]
    log.sequencer.fold()
    written.append(log.change())
    name = log.vault.engine.url.database
    for value in ("on", "off"):
        _sql(log, f"SET TRANSACTION READ WRITE; ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        log.vault.engine.dispose()
        for _ in range(2):
            with nullcontext() if value == "off" else pytest.raises(Unavailable, match="read-only"):
                log.sequencer.fold()
            assert not list((log.sequencer.directory / "staging").glob("*-*"))
    assert log.entries == written


@pytest.mark.parametrize("how", ["edited", "dropped", "inserted", "swapped", "from another"])
def test_a_spool_that_was_altered_is_named_and_kept(log: Log, how: str) -> None:
    spool, other = log.spool(), log.spool()
    mine = [log.use(spool) for _ in range(4)]
    log.use(other)
    (path, elsewhere) = sorted(log.settings.spool_dir.iterdir())
    lines = path.read_bytes().rstrip(b"\0").split(b"\n")[:-1]
    match how:
        case "edited":
            lines[3] = lines[3].replace(b'"operation":"x"', b'"operation":"y"')
        case "dropped":
            del lines[3]
        case "inserted":
            lines.insert(3, lines[2])
        case "swapped":
            lines[3], lines[4] = lines[4], lines[3]
        case "from another":
            lines[3] = elsewhere.read_bytes().split(b"\n")[1]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    log.sequencer.fold()
    found = log.entries
    told = [line.decode() for line in found if b"audit_spool_damaged" in line]
    stays = mine[:2] + (
        mine[3:] if how in {"edited", "from another"} else []
    )  # where the others stand did not change
    assert [line for line in found if line in mine] == stays
    assert b"audit_spool_damaged" in found[-1]
    assert path.stem in told[0]
    assert len(told) == 1
    assert log.sequencer.fold() == 0
    assert path.with_name(f"damaged-{path.name}").exists()
    assert log.entries == found


def test_a_line_that_is_written_while_it_is_read_is_whole(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = log.spool()
    written = [log.use(spool), log.use(spool)]
    (path,) = log.settings.spool_dir.iterdir()
    whole = path.read_bytes()
    end = whole.rindex(b"\n")
    begin = whole.rindex(b"\n", 0, end) + 1
    reads = []

    class ReadMeanwhile(io.FileIO):
        """Reads the newline of the last line, and of the line before it what was there before that was written."""

        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            reads.append(content)
            if len(reads) > 2:
                return content
            return content.replace(whole[begin:end], bytes(end - begin))

    monkeypatch.setattr(os, "fdopen", lambda file, *_: ReadMeanwhile(file))
    key = log.spool_key()
    assert key is not None
    found = spool_reading.read(spools_in(path.parent), {}, key, 1 << 20)
    assert (found[0].entries, found[0].damage) == (written, [])


def test_a_host_that_was_restarted_folds_nothing_twice(log: Log) -> None:
    spool = log.spool()
    written = [log.use(spool), log.use(spool)]
    log.sequencer.fold()
    written.append(log.use(spool))
    log.vault.host.node_id = "f" * 32  # as after each boot
    log.sequencer.fold()
    assert log.entries == written
    spool.close()
    for _ in range(3):
        log.sequencer.fold()
    assert log.entries == written
    with log.vault.read() as snapshot:
        assert snapshot.connection.execute(text("SELECT count(*) FROM audit_spools")).scalar_one() == 1
    assert wrong_tables(log.vault) == []


@pytest.mark.parametrize("log", ["sqlite"], indirect=True)
def test_directories_are_on_disk_before_anything_rests_on_them(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()
    fsync, publish = os.fsync, Sequencer._publish

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    def when_published(self: Sequencer, *given: Any) -> None:
        made = [path for path in self.directory.rglob("*") if path.is_dir()]
        assert {path.parent for path in (self.directory, *made)} <= synced
        assert len(made) > 4
        publish(self, *given)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Sequencer, "_publish", when_published)
    log.change()
    assert log.sequencer.fold() == 1


def test_an_entry_that_is_too_long_does_not_stop_the_others(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [log.change()]
    monkeypatch.setattr("kms.vault.change.MOST_ENTRY_BYTES", 1 << 20)
    too_long = b'{"v":1,"request_id":"0123456789abcdef","names":"' + 70_000 * b"x" + b'"}'
    with log.vault.change() as change:
        change.record(too_long.decode())
    written.append(log.change())
    assert log.sequencer.fold() == 3
    first, cut, last = log.entries
    assert [first, last] == written
    assert b"audit_entry_cut" in cut
    assert b"0123456789abcdef" in cut
    assert sha256(too_long).hexdigest().encode() in cut
    assert wrong_tables(log.vault) == []
    assert log.sequencer.fold() == 0


def test_a_change_whose_entry_is_too_long_is_refused(log: Log) -> None:
    for length in (65_536, 32_768):
        entry = ("x" if length > 65_535 else "é") * length
        with pytest.raises(TooLarge), log.vault.change() as change:
            change.record(entry)
    longest = "x" * 65_535
    with log.vault.change() as change:
        change.record(longest)
    assert log.sequencer.fold() == 1
    assert log.entries == [longest.encode()]


def test_a_directory_of_another_log_is_refused(log: Log) -> None:
    log.change()
    log.sequencer.fold()
    log = Log(log.vault, log.settings, log.number)
    copytree(log.sequencer.directory, log.settings.data_dir / "kept")
    tile = log.sequencer.directory / "tile/0/000.p/1"
    tile.write_bytes(bytes(32))
    log.change()
    with pytest.raises(WrongDirectory):
        log.sequencer.fold()
    rmtree(log.sequencer.directory)
    with pytest.raises(WrongDirectory):
        log.sequencer.fold()
    rmtree(log.sequencer.directory, ignore_errors=True)
    copytree(log.settings.data_dir / "kept", log.sequencer.directory)
    assert log.sequencer.fold() == 1


def _rewrite(log: Log, size: int, number: int, *, tiles: bool) -> None:
    """Alter an entry of the first bundle as somebody does who has no key, and its hashes. `before` is kept."""
    before = log.sequencer.directory.with_name("before")
    copytree(log.sequencer.directory, before)
    width = min(size, 256)
    path = log.sequencer.directory / bundle_path(0, width)
    lines, _ = entries_of(path.read_bytes())
    lines[number] = lines[number].replace(b'"operation":"x"', b'"operation":"y"')
    path.write_bytes(bundle_of(lines))
    row = b"".join(leaf_hashes(lines))
    if tiles:
        (log.sequencer.directory / tile_path(0, 0, width)).write_bytes(row)
    if size > width:
        above = log.sequencer.directory / tile_path(1, 0, size // 256)
        above.write_bytes(complete_root(row) + above.read_bytes()[32:])


@pytest.mark.parametrize(("size", "number", "tiles"), [(600, 10, True), (2, 0, True), (2, 0, False)])
def test_nothing_is_signed_on_top_of_an_altered_history(log: Log, size: int, number: int, tiles: bool) -> None:
    """Also by a process that has seen the tree when it was right."""
    spool = log.spool()
    written = [log.use(spool) for _ in range(size)]
    log.sequencer.fold()
    _rewrite(log, size, number, tiles=tiles)
    checkpoint = (log.sequencer.directory / CHECKPOINT).read_bytes()
    written.append(log.use(spool))
    for each in (log, Log(log.vault, log.settings, log.number)):
        with pytest.raises(WrongDirectory):
            each.sequencer.fold()
    assert (log.sequencer.directory / CHECKPOINT).read_bytes() == checkpoint
    rmtree(log.sequencer.directory)
    copytree(log.sequencer.directory.with_name("before"), log.sequencer.directory)
    assert log.sequencer.fold() == 1
    assert log.entries == written


def test_a_staged_file_that_was_altered_is_not_folded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [log.change()]
    log.sequencer.fold()
    written.append(log.change())
    with monkeypatch.context() as patched, pytest.raises(Crash):
        _crash_at("committed", patched)
        log.sequencer.fold()
    (staged,) = (log.sequencer.directory / "staging").glob("*-*")
    genuine = staged.read_bytes()
    staged.write_bytes(genuine.replace(b'"operation":"x"', b'"operation":"y"'))
    log = Log(log.vault, log.settings, log.number)
    with pytest.raises(WrongDirectory, match="staging"):
        log.sequencer.fold()
    staged.write_bytes(genuine)
    log.sequencer.fold()
    assert log.entries == written


def _sql(log: Log, statement: str) -> None:
    """As somebody does who can write to the database and has no key."""
    with log.vault.engine.execution_options(kms_writes=True).connect() as connection, connection.begin():
        connection.execute(text(statement))


def _is_found(log: Log) -> None:
    with pytest.raises(IntegrityFailure, match="before they were in the audit log"):
        log.sequencer.fold()
    assert wrong_tables(log.vault) == ["audit_outbox"]


NEWEST = "WHERE sequence = (SELECT max(sequence) FROM audit_outbox)"
ACCEPTED = b'{"v":1,"operation":"accepted"}'


def _accept(log: Log) -> bytes:
    accept(log.vault, ACCEPTED.decode())
    assert wrong_tables(log.vault) == []
    return ACCEPTED


@pytest.mark.parametrize("how", ["another in its place", "removed", "removed, and others come"])
def test_the_entry_of_a_change_cannot_be_taken_out_before_it_is_folded(log: Log, how: str) -> None:
    written = [log.change()]
    _sql(log, f"CREATE TABLE kept AS SELECT * FROM audit_outbox {NEWEST}")
    log.sequencer.fold()
    log.change()
    _sql(log, f"CREATE TABLE taken AS SELECT * FROM audit_outbox {NEWEST}")
    _sql(log, f"DELETE FROM audit_outbox {NEWEST}")
    if how == "another in its place":
        _sql(log, "INSERT INTO audit_outbox SELECT * FROM kept")
    elif how == "removed, and others come":
        written += [log.change(), log.change()]
    _is_found(log)
    written += [_accept(log), log.change()]
    assert log.sequencer.fold() == len(written) - 1
    assert log.entries == written
    _sql(log, "INSERT INTO audit_outbox SELECT * FROM taken UNION SELECT * FROM kept")
    written.append(log.change())
    assert log.sequencer.fold() == 1
    assert log.entries == written
    assert wrong_tables(log.vault) == []


@pytest.mark.parametrize("log", ["sqlite"], indirect=True)
def test_a_trigger_that_hides_the_entries_of_somebody_is_found(log: Log) -> None:
    log.change()
    _sql(log, "CREATE TABLE kept AS SELECT * FROM audit_outbox")
    log.sequencer.fold()
    _sql(
        log,
        "CREATE TRIGGER hide AFTER INSERT ON audit_outbox WHEN new.entry LIKE '%0000003%' BEGIN "
        "DELETE FROM audit_outbox WHERE sequence = new.sequence; "
        "INSERT OR IGNORE INTO audit_outbox SELECT * FROM kept; END",
    )
    _sql(
        log,
        "CREATE TRIGGER tidy AFTER UPDATE ON audit_log BEGIN "
        "DELETE FROM audit_outbox WHERE sequence = (SELECT sequence FROM kept); END",
    )
    log.change()
    assert log.sequencer.fold() == 1
    log.change()
    _is_found(log)


def test_an_entry_that_was_lost_does_not_stand_in_for_another(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "MOST_AT_ONCE", 2)
    written = [log.change() for _ in range(7)]
    _sql(log, "CREATE TABLE lost AS SELECT * FROM audit_outbox WHERE entry LIKE '%0000002%'")
    _sql(log, "DELETE FROM audit_outbox WHERE entry LIKE '%0000002%'")
    del written[1]
    written += [_accept(log), log.change(), log.change()]
    while log.sequencer.fold():
        pass
    assert log.entries == written
    assert wrong_tables(log.vault) == []
    log.change()
    _sql(log, f"DELETE FROM audit_outbox {NEWEST}")
    _sql(log, "INSERT INTO audit_outbox SELECT * FROM lost")
    _is_found(log)


def test_a_number_is_never_given_to_another_entry(log: Log) -> None:
    """Not where its entry was lost and the database accepted: its row has a code that is good for that number."""
    log.change()
    _sql(log, f"CREATE TABLE lost AS SELECT * FROM audit_outbox {NEWEST}")
    _sql(log, f"DELETE FROM audit_outbox {NEWEST}")
    _accept(log)
    for _ in range(3):
        log.change()
    _sql(log, "DELETE FROM audit_outbox WHERE sequence IN (SELECT sequence FROM lost)")
    assert wrong_tables(log.vault) == []
    assert log.sequencer.fold() == 4


def test_a_log_goes_on_where_it_is_when_its_database_was_put_back(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    vault = open_vault(settings)
    with vault.change() as change:
        keys.ensure_keys(change, NOW)
    log = Log(vault, settings)
    log.change()
    log.sequencer.fold()
    both = log.change()
    vault.checkpoint()
    vault.close()
    copy = (settings.data_dir / "kms.db").read_bytes()
    log = Log(open_vault(settings), settings, log.number)
    lost = log.change()
    assert log.sequencer.fold() == 2
    before = log.entries
    log.vault.checkpoint()
    log.vault.close()
    (settings.data_dir / "kms.db").write_bytes(copy)
    for newest in settings.data_dir.glob("newest-*"):
        newest.unlink()
    log = Log(open_vault(settings), settings, log.number)
    assert log.sequencer.fold() == 1
    found = log.entries
    assert found[: len(before)] == before
    assert found.count(both) == found.count(lost) == 1
    assert b"audit_log_continued" in found[-1]
    assert wrong_tables(log.vault) == []
    log.change()
    assert log.sequencer.fold() == 1
    log.vault.close()


def test_a_lost_log_is_followed_by_one_of_another_name(log: Log) -> None:
    with pytest.raises(Conflict, match="has not begun"):
        begin_anew(log.vault, log.sequencer.directory, "{}")
    spool = log.spool()
    log.use(spool)
    log.change()
    log.sequencer.fold()
    waiting = log.use(spool)
    with pytest.raises(Conflict, match="Move it away"):
        begin_anew(log.vault, log.sequencer.directory, "{}")
    rmtree(log.sequencer.directory)
    assert begin_anew(log.vault, log.sequencer.directory, '{"v":1}').size == 2
    log = Log(log.vault, log.settings, log.number)
    assert log.sequencer.fold() == 2
    assert log.entries == [b'{"v":1}', waiting]
    with log.vault.read() as snapshot:
        assert audit_log(snapshot).origin == "kms.test/audit/2"
    assert wrong_tables(log.vault) == []


def test_a_process_that_was_suspended_is_not_told_to_stop() -> None:
    """A frozen host, a debugger: for longer than the process waits for signals."""
    program = (
        "import signal; from kms.audit import folding\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, folding._STOP_SIGNALS)\n"
        "while not folding._is_told_to_stop(): print('waits', flush=True)\n"
        "print('stops', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        process.send_signal(signal.SIGCONT)
        for _ in range(2):
            assert process.stdout.readline() == "waits\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read().endswith("stops\n")
