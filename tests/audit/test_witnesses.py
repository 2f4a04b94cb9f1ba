"""Witnesses cosign what is published, nobody waits for them, and one that has seen another log is heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from helpers.running import wait_until
from helpers.tlog import WrittenLog, entry
from helpers.witness import TIME, TestWitness, witnessing
from kms.audit import folding
from kms.audit import witnesses as module
from kms.audit.checkpoint import Checkpoint, open_checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.folding import FoldingProcess
from kms.audit.log_files import COSIGNED
from kms.audit.note import Note, signed
from kms.audit.witness_client import Witness, WitnessRefused
from kms.audit.witnesses import Witnesses, witnesses_of
from kms.config import Settings, load
from kms.errors import StartError
from kms.outgoing import Unreachable


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[TestWitness]:
    with witnessing(tmp_path / "witness") as made:
        yield made


@pytest.fixture
def log(tmp_path: Path, witness: TestWitness) -> WrittenLog:
    written = WrittenLog(tmp_path / "log")
    written.grow([entry(number) for number in range(300)])
    witness.logs[written.key.name] = written.key
    return written


def asker(witness: TestWitness) -> Witness:
    settings = Settings(witness_urls=f"{witness.url}/", witness_keys=str(witness.cosigner.key), witness_ca=witness.ca)
    (made,) = witnesses_of(settings)
    made.seconds = 2.0
    return made


def cosigned(log: WrittenLog, witness: TestWitness, name: str = "checkpoint") -> tuple[int, dict[object, int]]:
    """The size in a checkpoint, and who has cosigned it when."""
    found = open_checkpoint((log.directory / name).read_bytes(), log.key, [witness.cosigner.key])
    return found.checkpoint.size, dict(found.cosigned)


def test_cosignatures_are_added_to_what_is_published(log: WrittenLog, witness: TestWitness) -> None:
    asking, one = Witnesses(log.directory, []), asker(witness)
    done = asking.ask(one)
    assert cosigned(log, witness) == cosigned(log, witness, COSIGNED) == (300, {witness.cosigner.key: TIME})
    assert asking.ask(one, done) == done
    for size in (301, 600, 1200):
        log.grow([entry(number) for number in range(log.size, size)])
        assert cosigned(log, witness) == (size, {})
        assert cosigned(log, witness, COSIGNED)[0] < size
        done = asking.ask(one, done)
        assert cosigned(log, witness) == cosigned(log, witness, COSIGNED) == (size, {witness.cosigner.key: TIME})
    assert witness.asked == [0, 300, 301, 600]


def test_a_new_process_learns_what_the_witness_has_seen(log: WrittenLog, witness: TestWitness) -> None:
    Witnesses(log.directory, []).ask(asker(witness))
    log.grow([entry(number) for number in range(300, 777)])
    Witnesses(log.directory, []).ask(asker(witness))
    assert witness.asked == [0, 0, 300]
    Witnesses(log.directory, []).ask(asker(witness))  # of the size that it has already
    assert witness.asked == [0, 0, 300, 0, 777]
    assert cosigned(log, witness) == (777, {witness.cosigner.key: TIME})


@pytest.mark.parametrize("size", [200, 300, 500])
def test_a_fork_is_refused_and_told(log: WrittenLog, witness: TestWitness, tmp_path: Path, size: int) -> None:
    Witnesses(log.directory, []).ask(asker(witness))
    fork = WrittenLog(tmp_path / "fork", log.signer)
    published = fork.grow([entry(number + 1) for number in range(size)])
    with pytest.raises(WitnessRefused) as refused:
        Witnesses(fork.directory, []).ask(asker(witness))
    assert refused.value.is_alarming
    assert (fork.directory / "checkpoint").read_bytes() == published
    assert not (fork.directory / COSIGNED).exists()
    assert witness.seen[log.key.name].root == log.root


def test_what_another_has_signed_is_not_added(log: WrittenLog, witness: TestWitness) -> None:
    published = (log.directory / "checkpoint").read_bytes()
    one = asker(witness)
    witness.forge = True
    with pytest.raises(WitnessRefused, match="not right"):
        Witnesses(log.directory, []).ask(one)
    witness.forge = False
    witness.cosigner = Cosigner("another", Ed25519PrivateKey.generate(), lambda: TIME)
    with pytest.raises(WitnessRefused, match="KMS_WITNESS_KEYS"):
        Witnesses(log.directory, []).ask(one)
    witness.logs.clear()
    with pytest.raises(WitnessRefused, match="404") as refused:
        Witnesses(log.directory, []).ask(one)
    assert not refused.value.is_alarming
    assert (log.directory / "checkpoint").read_bytes() == published


def test_a_checkpoint_that_was_followed_meanwhile_is_kept_apart(log: WrittenLog, witness: TestWitness) -> None:
    asking, one = Witnesses(log.directory, []), asker(witness)
    witness.held.set()
    asking.witnesses = [one]
    before = Note.parse((log.directory / "checkpoint").read_bytes())
    signatures = []
    witness.released.set()
    signatures = one.cosign(before, log.tiles)
    log.grow([entry(300)])
    asking._add(before, signatures)
    assert cosigned(log, witness) == (301, {})
    assert cosigned(log, witness, COSIGNED) == (300, {witness.cosigner.key: TIME})


def test_a_witness_that_signs_often_shuts_out_no_other(log: WrittenLog, witness: TestWitness) -> None:
    """One signature of each key is kept, the newest: a note may not have many."""
    clock = iter(range(100))
    witness.cosigner = Cosigner("w/1", Ed25519PrivateKey.generate(), lambda: next(clock))
    witness.times = 31
    asking = Witnesses(log.directory, [])
    asking.ask(asker(witness))
    for number in range(6):
        note = Note.parse((log.directory / "checkpoint").read_bytes())
        other = Cosigner(f"another/{number}", Ed25519PrivateKey.generate(), lambda: TIME)
        asking._add(note, [other.sign(note.text)])
    for name in ("checkpoint", COSIGNED):
        assert len(Note.parse((log.directory / name).read_bytes()).signatures) == 1 + 1 + 6
        assert cosigned(log, witness, name) == (300, {witness.cosigner.key: 30})


def test_what_is_kept_apart_is_replaced_where_it_cannot_be_right(log: WrittenLog, witness: TestWitness) -> None:
    larger = bytes(signed(Checkpoint(log.key.name, 1000, bytes(32)).text, log.signer))
    other = bytes(signed(Checkpoint("other.example/audit", 299, bytes(32)).text, log.signer))
    for wrong in (b"", larger, other):
        log.write(COSIGNED, wrong)
        Witnesses(log.directory, []).ask(asker(witness))
        assert cosigned(log, witness, COSIGNED) == (300, {witness.cosigner.key: TIME})


def test_nobody_waits_for_a_witness_that_hangs(
    log: WrittenLog, witness: TestWitness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_SECONDS", 0.01)
    one = asker(witness)
    one.seconds = 0.3
    with pytest.raises(Unreachable):
        witness.held.set()
        Witnesses(log.directory, []).ask(one)
    with capture_logs() as logs:
        asking = Witnesses(log.directory, [one])
        asking.start()
        log.grow([entry(300)])  # while it hangs
        wait_until(lambda: any(each["event"] == "a witness does not cosign" for each in logs))
        witness.held.clear()
        witness.released.set()
        wait_until(lambda: cosigned(log, witness) == (301, {witness.cosigner.key: TIME}))
        wait_until(lambda: any(each["event"] == "the witness cosigns again" for each in logs))
        asking.stop()
    assert len([each for each in logs if each["event"] == "a witness does not cosign"]) == 1


@pytest.mark.parametrize(
    ("urls", "keys", "told"),
    [
        ("http://witness.example", "KEY", "witness_urls"),
        ("https://witness.example", "", "go together"),
        ("", "KEY", "go together"),
        ("https://witness.example", "x+y+z", "witness_keys"),
        ("https://witness.example", "LOG", "not a witness's"),
    ],
)
def test_wrong_settings_get_a_sentence(
    log: WrittenLog, witness: TestWitness, urls: str, keys: str, told: str
) -> None:
    keys = keys.replace("KEY", str(witness.cosigner.key)).replace("LOG", str(log.key))
    with pytest.raises(StartError, match=told):
        witnesses_of(load({}, {"KMS_WITNESS_URLS": urls, "KMS_WITNESS_KEYS": keys}))


def test_a_folding_process_that_ends_at_once_is_not_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(folding, "_BETWEEN_STARTS_SECONDS", 0.4)
    monkeypatch.setattr(folding, "_fold_until_stopped", lambda *_: None)
    start = FoldingProcess.start
    monkeypatch.setattr(FoldingProcess, "start", lambda self: (started.append(1), start(self)))
    process = FoldingProcess(Settings(data_dir=tmp_path), None, lambda: None)
    process.start()
    process._process.join()
    for _ in range(20):
        process.look_after()
    assert len(started) == 1
    wait_until(lambda: process.look_after() or len(started) == 2)
    process.stop()
