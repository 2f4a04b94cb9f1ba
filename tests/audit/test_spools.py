"""Whoever can write the files of spools forges no entry, doubles none, and keeps none of later from the log."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audit.test_sequencer import NOW, Log

from kms.audit import keys, reading, sequencer, spool_reading
from kms.audit import spool as spools
from kms.audit.entry import SUCCESS, AuditEntry, timestamp
from kms.audit.spool import Spool
from kms.audit.spool_files import spools_in, tidy
from kms.audit.spool_lines import Codes
from kms.audit.spool_reading import waiting
from kms.audit.tree import leaf_hash
from kms.config import Settings
from kms.errors import Unavailable
from kms.vault import sentences
from kms.vault.checking import wrong_tables
from kms.vault.folded import folded_spools
from kms.vault.opening import open_vault

_FORGED = AuditEntry(1, timestamp(NOW), "0" * 16, "export_key", SUCCESS, "local", client_id="alice").line()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    settings = Settings(data_dir=tmp_path / "data")
    vault = open_vault(settings)
    with vault.change() as change:
        keys.ensure_keys(change, NOW)
    log = Log(vault, settings)
    yield log
    assert wrong_tables(log.vault) == []
    vault.close()


def _begun(log: Log) -> Log:
    log.change()
    assert log.sequencer.fold() == 1
    return log


def _fold(log: Log) -> None:
    for _ in range(50):
        if not log.sequencer.fold():
            break
    assert log.sequencer.fold() == 0


def _files(log: Log) -> list[Path]:
    return [path for _, path in spools_in(log.settings.spool_dir)]


def _told(log: Log) -> list[bytes]:
    return [line for line in log.entries if b'"audit_spool_damaged"' in line]


def _counts(log: Log, written: list[bytes]) -> list[int]:
    found = log.entries
    return [found.count(line) for line in written]


def _move_on(spool: Spool) -> None:
    spool._moves_on_at = 0
    spool.require()


def _plant(log: Log, name: str, content: bytes) -> Path:
    log.settings.spool_dir.mkdir(exist_ok=True)
    path = log.settings.spool_dir / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("node_id", ["", "f" * 32])
def test_a_spool_without_codes_forges_nothing(log: Log, node_id: str) -> None:
    _begun(log)
    log.vault.host.node_id = node_id or log.vault.host.node_id  # another, as after a start with a copy of its file
    path = _plant(log, "spool-00000000000000000001-1.jsonl", _FORGED + b"\n")
    _fold(log)
    assert _FORGED not in log.entries
    assert len(_told(log)) == 1
    assert path.with_name(f"damaged-{path.name}").read_bytes() == _FORGED + b"\n"
    assert not path.exists()


def test_spools_of_an_older_release_are_taken_as_the_log_begins(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "_MOST_SPOOL_BYTES", 2000)
    older = Spool(log.settings.spool_dir, fsync=False)
    written = [log.use(older) for _ in range(50)]
    (path,) = _files(log)
    older.close()
    alive = Spool(log.settings.spool_dir, fsync=False)
    log.use(alive)
    assert 0 < log.sequencer.fold() < 50
    with path.open("ab") as file:
        file.write(_FORGED + b"\n")
    _fold(log)
    assert _counts(log, written) == [1] * 50
    assert _FORGED not in log.entries
    told = _told(log)
    assert len(told) == 2  # of what was appended, and of the one whose process could go on in it
    assert not path.exists()


def test_a_spool_that_was_folded_is_not_folded_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = log.spool(), log.spool()
    written = [log.use(one), log.use(two), log.use(one)]
    log.sequencer.fold()
    written += [log.use(one)]
    _move_on(one)
    written += [log.use(one)]
    kept = {path: path.read_bytes() for path in _files(log)}
    assert len(kept) == 3
    one.close()
    two.close()
    _fold(log)
    assert _files(log) == []
    monkeypatch.setattr(spools.time, "time_ns", lambda: 1)  # the clock has gone back
    later = log.spool()
    written += [log.use(later), log.change()]
    for node_id in ("e" * 32, "f" * 32):
        log.vault.host.node_id = node_id
        for path, content in kept.items():
            path.write_bytes(content)
        log = Log(log.vault, log.settings, log.number)  # another process
        _fold(log)
    assert _counts(log, written) == [1] * len(written)
    assert _told(log) == []
    assert len(_files(log)) == 1
    later.close()


def test_a_spool_that_is_put_back_while_others_are_read_is_not_folded_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = log.spool(), log.spool()
    written = [log.use(one), log.use(two)]
    path = _files(log)[0]
    kept = path.read_bytes()
    one.close()
    _fold(log)
    assert not path.exists()

    def asked_for(*given: Any) -> dict[str, int]:
        path.write_bytes(kept)
        return folded_spools(*given)

    monkeypatch.setattr(sequencer, "folded_spools", asked_for)
    written += [log.use(two)]
    _fold(log)
    assert _counts(log, written) == [1] * 3
    two.close()


def test_what_is_wrong_keeps_nothing_else_waiting(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "_MOST_SPOOL_BYTES", 1 << 18)
    name = b"spool-00000000000000000001-1"
    path = _plant(log, f"{name.decode()}.jsonl", b'{"spool":"%s"}\n' % name + b"x\n" * (1 << 19))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        spool = log.spool()
        written = [log.use(spool)]
        _fold(log)
        assert _counts(log, written) == [1]
        assert len(_told(log)) == 1
    _fold(log)
    assert len(_files(log)) == 1
    spool.close()


def test_what_a_process_writes_is_folded_in_its_order(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "_MOST_SPOOL_BYTES", 1000)
    spool = log.spool()
    written = []
    for _ in range(12):  # so that the positions in their names differ in length
        written += [log.use(spool) for _ in range(5)]
        _move_on(spool)
    assert log.sequencer.fold() < 10
    _fold(log)
    assert log.entries == written
    spool.close()
    assert _files(log) == []


def _another(path: Path, genuine: bytes) -> None:
    path.with_name("spool-00000000000000000001-1.jsonl").write_bytes(genuine + b"x" * (1 << 20) + b"\n")


def _of_the_same_process(path: Path, genuine: bytes) -> None:
    path.with_name(f"{path.stem}-{len(genuine)}.jsonl").write_bytes(genuine + b"x" * (1 << 20) + b"\n")


def _behind(path: Path, genuine: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(len(genuine))
        file.write(b"x" * 10_000 + b"\n")


def _far_behind(path: Path, genuine: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(17 << 20)
        file.write(b"x\n")


def _without_end(path: Path, genuine: bytes) -> None:
    os.truncate(path, 1 << 40)


def _replaced(path: Path, genuine: bytes) -> None:
    path.unlink()
    path.write_bytes(genuine + b"x" * (1 << 20) + b"\n")


@pytest.mark.parametrize("attack", [_another, _of_the_same_process, _behind, _far_behind, _without_end, _replaced])
def test_nothing_of_later_is_lost_by_what_is_written_around_a_spool(
    log: Log, attack: Callable[[Path, bytes], None]
) -> None:
    spool = log.spool()
    written = [log.use(spool) for _ in range(2)]
    (path,) = _files(log)
    attack(path, path.read_bytes().rstrip(b"\0"))
    for _ in range(2):
        log.sequencer.fold()
    assert len(_told(log)) == 1
    spool._look_at = 0.0
    written += [log.use(spool) for _ in range(50)]
    _fold(log)
    _move_on(spool)
    written += [log.use(spool)]
    spool.close()
    _fold(log)
    _fold(log)
    assert _counts(log, written) == [1] * len(written)
    assert len(_told(log)) <= 2
    tidy(log.settings.spool_dir)
    assert _files(log) == []


def _strange_files(directory: Path) -> Iterator[Path]:
    for name, content in {
        "spool-00000000000000000001-1.jsonl": b'{"spool":"\xff"}\n',
        "spool-00000000000000000002-1.jsonl": b'{"spool":"\\u0000"}\n{"v":1}\t"AAAAAAAAAAAA"\n',
        "spool-00000000000000000003-1.jsonl": b"x" * 300_000,
        "spool-00000000000000000004-1-00.jsonl": b'{"spool":"spool-00000000000000000004-1-00"}\n{}\n',
        "spool-\n\u2028.jsonl": b"{}\n",
        f"spool-{'1' * 230}-1.jsonl": b"{}\n",
        "spool-.jsonl": b"{}\n",
    }.items():
        path = directory / name
        path.write_bytes(content)
        yield path
    other = os.fsencode(directory) + b"/spool-\xff.jsonl"
    with open(other, "wb") as file:
        file.write(b"{}\n")
    yield Path(os.fsdecode(other))
    for number, make in enumerate((Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), _bind)):
        path = directory / f"spool-0000000000000000001{number}-1.jsonl"
        make(path)  # type: ignore[operator]
        yield path


def _bind(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def test_what_is_no_spool_stops_nothing_and_is_told_once(log: Log) -> None:
    _begun(log)
    spool = log.spool()
    strange = list(_strange_files(log.settings.spool_dir))
    written = [log.use(spool)]
    tidy(log.settings.spool_dir)  # as a start does
    strange = [path for path in strange if os.path.lexists(path)]  # what has no line was removed
    assert reading.read(log.vault, log.sequencer.directory, log.settings.spool_dir).waiting == written
    _fold(log)
    _fold(log)
    assert _counts(log, written) == [1]
    assert len(_told(log)) == len(strange) == 11
    (alive,) = _files(log)
    assert alive.stem.startswith("spool-0")
    assert len(list(log.settings.spool_dir.glob("damaged-*"))) == len(strange)
    spool.close()


def test_a_line_at_the_end_of_the_room_has_room_for_its_code(tmp_path: Path) -> None:
    key = b"k" * 32
    for missing in (1, 2, 14, 15, 16, 17, 18, 40):
        spool = Spool(tmp_path / str(missing), key, fsync=False)
        written = [b"{}"]
        spool.append(written[0], leaf_hash(written[0]))
        while (room := spool._room - spool._at) > 20_000:
            written.append(b"{" + b" " * 5000 + b"}")
            spool.append(written[-1], leaf_hash(written[-1]))
        written.append(b"{" + b" " * (room - missing - 2) + b"}")
        spool.append(written[-1], leaf_hash(written[-1]))
        assert waiting(tmp_path / str(missing), {}, key) == written
        spool.close()
        shutil.rmtree(tmp_path / str(missing))


def test_lines_that_wait_are_shown_if_their_codes_are_right(log: Log) -> None:
    _begun(log)
    spool = log.spool()
    written = [log.use(spool)]
    name = "spool-00000000000000000001-1"
    wrong = Codes(b"k" * 32, name).coded(_FORGED, leaf_hash(_FORGED), 0)
    _plant(log, f"{name}.jsonl", b'{"spool":"%s"}\n%s\n' % (name.encode(), wrong))
    _plant(log, "spool-00000000000000000002-1.jsonl", _FORGED + b"\n")
    assert reading.read(log.vault, log.sequencer.directory, log.settings.spool_dir).waiting == written
    spool.close()


@pytest.mark.parametrize("how", ["moved", "moved beside", "removed", "replaced", "cut", "cut and removed"])
def test_a_spool_that_is_taken_from_its_process_is_written_again(log: Log, how: str) -> None:
    spool = log.spool()
    written = [log.use(spool), log.use(spool)]
    log.sequencer.fold()
    written += [log.use(spool), log.use(spool)]
    (path,) = _files(log)
    if how.startswith("cut"):
        os.truncate(path, path.read_bytes().index(written[3]))
        del written[3]
    if how.startswith("moved"):
        path.rename(log.settings.data_dir / "elsewhere" if how == "moved" else path.with_name("spool-1-1.jsonl"))
    elif "removed" in how:
        path.unlink()
    elif how == "replaced":
        path.unlink()
        path.write_bytes(b"")
    log.sequencer.fold()
    spool._look_at = 0.0
    written += [log.use(spool), log.use(spool)]
    _fold(log)
    spool.close()
    _fold(log)
    assert _counts(log, written) == [1] * len(written)
    assert _files(log) == []
    assert bool(_told(log)) == (how == "moved beside" or how.startswith("cut"))


def test_a_spool_between_two_others_of_its_process_is_missed(log: Log) -> None:
    spool = log.spool()
    written = []
    for _ in range(3):
        written.append(log.use(spool))
        _move_on(spool)
    written.append(log.use(spool))
    _files(log)[1].unlink()
    _fold(log)
    assert log.entries[:3] == [written[0], written[2], written[3]]
    (told,) = _told(log)
    assert b"bytes that its process wrote before it are missing" in told
    spool.close()


def test_a_name_that_somebody_took_before_is_taken_back(log: Log) -> None:
    spool = log.spool()
    written = [log.use(spool)]
    (path,) = _files(log)
    taken = path.with_name(f"{path.stem}-{len(path.read_bytes().rstrip(bytes(1)))}.jsonl")
    taken.write_bytes(b"mine")
    _move_on(spool)
    written.append(log.use(spool))
    _fold(log)
    assert log.entries == written
    assert path.with_name(f"damaged-{taken.name}").read_bytes() == b"mine"
    spool.close()


def test_the_name_of_a_spool_is_on_disk_before_an_entry_is(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(spools, "sync_directory", synced.append)
    spool = Spool(log.settings.spool_dir, log.spool_key(), fsync=True)
    assert synced == [log.settings.spool_dir]
    log.use(spool)
    _move_on(spool)
    assert synced == [log.settings.spool_dir] * 2
    log.use(spool)
    _files(log)[-1].unlink()
    spool.require()
    assert synced == [log.settings.spool_dir] * 3
    spool.close()
    _fold(log)


def test_what_a_database_forgot_is_folded_once_however_much_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    vault = open_vault(settings)
    with vault.change() as change:
        keys.ensure_keys(change, NOW)
    log = _begun(Log(vault, settings))
    spool = log.spool()
    written = [log.use(spool)]
    _fold(log)
    vault.checkpoint()
    vault.close()
    copy = (settings.data_dir / "kms.db").read_bytes()
    log = Log(open_vault(settings), settings, log.number)
    for _ in range(2):
        written += [log.use(spool) for _ in range(40)]
        _fold(log)
        _move_on(spool)  # so that what the database forgets is in a file that is removed
    written += [log.use(spool) for _ in range(40)]
    _fold(log)
    log.vault.checkpoint()
    log.vault.close()
    (settings.data_dir / "kms.db").write_bytes(copy)
    for newest in settings.data_dir.glob("newest-*"):
        newest.unlink()
    log = Log(open_vault(settings), settings, log.number)
    written += [log.use(spool) for _ in range(40)]
    monkeypatch.setattr(sequencer, "_MOST_SPOOL_BYTES", 2000)
    _fold(log)
    assert _counts(log, written) == [1] * len(written)
    assert _told(log) == []
    assert sum(b"audit_log_continued" in line for line in log.entries) == 1
    assert wrong_tables(log.vault) == []
    log.vault.close()


@pytest.mark.parametrize(("refusal", "stays"), [(sentences.BUSY, False), (sentences.UNKNOWN, True)])
def test_what_was_staged_stays_only_if_it_may_have_been_committed(
    log: Log, monkeypatch: pytest.MonkeyPatch, refusal: str, stays: bool
) -> None:
    def refused(*_: Any) -> None:
        raise Unavailable(refusal)

    _begun(log)
    log.use(log.spool())
    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr(sequencer.Sequencer, "_commit", refused)
        log.sequencer.fold()
    assert bool(list((log.sequencer.directory / "staging").glob("*-*"))) is stays
    assert log.sequencer.fold() == 1
    assert not list((log.sequencer.directory / "staging").glob("*-*"))


def test_a_spool_that_may_not_be_read_keeps_no_other_waiting(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    _begun(log)
    path = _plant(log, "spool-00000000000000000001-1.jsonl", b"")
    real = spool_reading.opened

    def opened(each: Path) -> Any:
        if each == path:
            raise PermissionError(13, "Permission denied")
        return real(each)

    monkeypatch.setattr(spool_reading, "opened", opened)
    written = [log.use(log.spool())]
    _fold(log)
    assert _counts(log, written) == [1]
    assert len(_told(log)) == 1
    assert not path.exists()
