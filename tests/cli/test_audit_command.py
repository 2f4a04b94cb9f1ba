"""`kms audit`: a log is verified, exported and proven, over HTTP, from a copy, and on the host."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from helpers.support import World
from helpers.tlog import WrittenLog, entry
from kms.audit.checkpoint import Checkpoint
from kms.audit.cosignature import Cosigner
from kms.audit.entry import AuditEntry
from kms.audit.note import Ed25519Key, Ed25519Signer, Note, NoteMalformed, signed
from kms.audit.proof import proof_of
from kms.audit.tiles import bundle_path
from kms.audit.tree import leaf_hash
from kms.audit.verify import reading
from kms.cli import main, show
from kms.cli.failing import failure_of
from kms.client import errors, kept_login

Kms = Callable[..., list[Any]]
ROOT = Path(__file__).parents[2]
SIZE = 700


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    written = WrittenLog(tmp_path / "log")
    written.grow([entry(number) for number in range(SIZE)])
    return written


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command `kms audit` with these arguments, without any login."""
    monkeypatch.setenv("KMS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def invoked(*arguments: object, code: int = 0) -> Any:
        done = CliRunner().invoke(main, ["audit", *map(str, arguments)])
        assert done.exit_code == code, done.output
        return done

    return invoked


def test_a_copy_is_verified(log: WrittenLog, run: Callable[..., Any]) -> None:
    done = run("verify", "--from", log.directory, "--key", log.key)
    assert f"{SIZE} entries of {log.key.name}" in done.stdout
    assert "same place" not in done.stderr


def test_a_copy_without_its_key_asks_for_one(log: WrittenLog, run: Callable[..., Any]) -> None:
    assert "give --key" in run("verify", "--from", log.directory, code=2).stderr
    log.write("audit-key", f"{log.key}\n".encode())
    assert "proves nothing" in run("verify", "--from", log.directory).stderr


def test_the_key_may_be_in_a_file(log: WrittenLog, run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "kms.key").write_text(f"{log.key}\n")
    run("verify", "--from", log.directory, "--key", "kms.key")
    assert "key cannot be read" in run("verify", "--from", log.directory, "--key", "no.key", code=1).stderr
    other = Ed25519Signer(log.key.name, Ed25519PrivateKey.generate()).key
    assert "not to be trusted" in run("verify", "--from", log.directory, "--key", other, code=8).output


def test_a_copy_cannot_bring_the_key_that_is_given(
    log: WrittenLog, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What has the form of a key is never the name of a file, also where a copy has a file of that name."""
    honest = Ed25519Signer(log.key.name, Ed25519PrivateKey.generate()).key
    witness = Cosigner("witness.example/audit", Ed25519PrivateKey.generate(), lambda: 1)
    theirs = Cosigner(witness.name, Ed25519PrivateKey.generate(), lambda: 1)
    log.grow([entry(SIZE)], theirs)
    damaged = f"{str(honest)[:-2]}A="
    for text, key in ((str(honest), log.key), (damaged, log.key), (str(witness.key), theirs.key)):
        log.write(text, f"{key}\n".encode())
    monkeypatch.chdir(log.directory)
    assert "not to be trusted" in run("verify", "--from", ".", "--key", honest, code=8).output
    assert "key cannot be read" in run("verify", "--from", ".", "--key", damaged, code=1).output
    arguments = ("verify", "--from", ".", "--key", log.key, "--witness", witness.key)
    assert "not cosigned" in run(*arguments, code=8).output
    log.write("audit-key", str(tmp_path / "kms.key").encode())
    (tmp_path / "kms.key").write_text(f"{log.key}\n")
    assert "key cannot be read" in run("verify", "--from", ".", code=1).output


def test_the_first_wrong_entry_is_named(log: WrittenLog, run: Callable[..., Any]) -> None:
    path = log.directory / bundle_path(1)
    path.write_bytes(path.read_bytes().replace(b"r300", b"r3o0").replace(b"r302", b"r3o2"))
    done = run("verify", "--from", log.directory, "--key", log.key, code=8)
    assert "Entry 300" in done.stdout
    assert "2026-11-24T12:05:00.000000Z, encrypt, alice" in done.stdout
    assert "The first wrong entry: 300." in done.stderr


def test_what_is_printed_does_not_steer_a_terminal(log: WrittenLog, run: Callable[..., Any]) -> None:
    path = log.directory / bundle_path(1)
    path.write_bytes(path.read_bytes().replace(b"r300", b"r3o0", 1).replace(b'"alice"', b'"\\u001b["', 50))
    assert "\x1b" not in run("verify", "--from", log.directory, "--key", log.key, code=8).output


def test_an_export_has_a_line_for_each_entry_and_no_other(log: WrittenLog, run: Callable[..., Any]) -> None:
    forged = b'{"v":1,"operation":"export_key"}'
    wrong = [
        b'x\x1b]0;owned\x07\n{"number":7,"entry":' + forged,
        b'{"v":1,\n"x":"y"}',
        b'{"v":1}},"x":{"y":1}',
        b"{" + b'"x":[' * 9000 + b"]" * 9000 + b"}",
        b"",
    ]
    log.grow(wrong)
    done = run("export", "--from", log.directory, "--first", SIZE - 1, code=8)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["number"] for line in lines] == list(range(SIZE - 1, SIZE + len(wrong)))
    assert [b64decode(line["not_an_entry"]) for line in lines[1:]] == wrong
    assert "5 entries are no line of JSON" in done.stderr


def test_what_others_wrote_does_not_steer_a_terminal(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = WrittenLog(tmp_path / "log")
    written = '{"v":1,"time":"\x9b31m","operation":"\x7f"}'.encode()
    log.grow([written])
    exported = b'{"number":0,"entry":%s}\n' % written
    assert run("export", "--from", log.directory).stdout_bytes == exported  # byte by byte for programs
    monkeypatch.setattr(show, "is_terminal", lambda: True)
    told = run("export", "--from", log.directory).stdout
    assert told == exported.decode().replace("\x9b", "�").replace("\x7f", "�")
    for name in ("kms\x9b31mRED/audit", "kms\x7f/audit"):
        with pytest.raises(NoteMalformed, match="name of a key"):
            str(Ed25519Key(name, bytes(32)))
    told = "no\x1b[2J\nkms: all is well\x9b"
    refused = errors.Refused(told, problem="x", status=400, retry_after=None, request_id="")
    assert failure_of(refused).message == "no�[2J�kms: all is well�"


def test_an_older_checkpoint_is_continued_or_not(log: WrittenLog, run: Callable[..., Any], tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes((log.directory / "checkpoint").read_bytes())
    log.grow([entry(SIZE)])
    done = run("verify", "--from", log.directory, "--key", log.key, "--checkpoint", old)
    assert "continues the older checkpoint" in done.stdout
    fork = WrittenLog(tmp_path / "fork", log.signer)
    fork.grow([entry(number + 1) for number in range(SIZE + 1)])
    done = run("verify", "--from", fork.directory, "--key", log.key, "--checkpoint", old, code=8)
    assert "does not continue the older checkpoint" in done.stdout
    cut = WrittenLog(tmp_path / "cut", log.signer)
    cut.grow([entry(number) for number in range(10)])
    assert "cut to 10" in run("verify", "--from", cut.directory, "--key", log.key, "--checkpoint", old, code=8).stdout


def test_a_witness_must_have_cosigned(log: WrittenLog, run: Callable[..., Any]) -> None:
    witness = Cosigner("witness.example", Ed25519PrivateKey.generate(), lambda: 1_700_000_000)
    arguments = ("verify", "--from", log.directory, "--key", log.key, "--witness", witness.key)
    assert "not cosigned by witness.example" in run(*arguments, code=8).stderr
    log.grow([entry(SIZE)], witness)
    assert "Cosigned by witness.example at 2023-11-14T22:13:20Z, as of 701 entries." in run(*arguments).stdout


def test_a_witness_is_behind_a_log_that_is_busy(log: WrittenLog, run: Callable[..., Any], tmp_path: Path) -> None:
    """What a witness has cosigned last is kept apart: it counts where the log continues it, and nowhere else."""
    witness = Cosigner("witness.example", Ed25519PrivateKey.generate(), lambda: 1_700_000_000)
    arguments = ("--from", log.directory, "--key", log.key, "--witness", witness.key)
    cosigned = log.grow([], witness)
    log.write("checkpoint-cosigned", cosigned)
    newest = log.grow([entry(SIZE), entry(SIZE + 1)])  # not cosigned yet
    told = run("verify", *arguments).stdout
    assert "702 entries" in told
    assert f"at 2023-11-14T22:13:20Z, as of {SIZE} entries." in told
    assert "After that 2 entries have" in told
    log.write("checkpoint", cosigned)  # as a copy that was begun a moment earlier has it
    log.write("checkpoint-cosigned", newest)
    assert "702 entries" in run("verify", *arguments).stdout
    fork = WrittenLog(tmp_path / "fork", log.signer)
    fork.grow([entry(number + 1) for number in range(SIZE + 1)])
    fork.write("checkpoint-cosigned", cosigned)
    forked = ("verify", "--from", fork.directory, *arguments[2:])
    assert "two histories are signed" in run(*forked, code=8).stdout
    cut = WrittenLog(tmp_path / "cut", log.signer)
    cut.grow([entry(number) for number in range(3)])
    cut.write("checkpoint-cosigned", cosigned)
    assert "The log is cut" in run("verify", "--from", cut.directory, *arguments[2:], code=8).stdout


def test_the_checkpoint_that_is_kept_apart_is_verified(log: WrittenLog, run: Callable[..., Any]) -> None:
    arguments = ("verify", "--from", log.directory, "--key", log.key)
    other = Ed25519Signer(log.key.name, Ed25519PrivateKey.generate())
    wrong = Checkpoint(log.key.name, SIZE, bytes(32)).text
    told = {
        bytes(signed(wrong, log.signer)): "two histories",
        bytes(signed(wrong, other)): "not to be trusted",
        b"": "not to be",
    }
    for content, sentence in told.items():
        log.write("checkpoint-cosigned", content)
        assert sentence in run(*arguments, code=8).stdout


@pytest.mark.parametrize("size", [1 << 61, 1 << 22])
def test_a_checkpoint_may_speak_of_any_number_of_entries(
    log: WrittenLog, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reading, "MOST_MISSING", 16)
    log.write("checkpoint", bytes(signed(Checkpoint(log.key.name, size, bytes(32)).text, log.signer)))
    told = run("verify", "--from", log.directory, "--key", log.key, code=8).stdout
    assert "those from 512 on have no hashes" in told
    done = run("export", "--from", log.directory, "--first", 512, code=1)
    assert "missing from the log" in done.stderr


@pytest.mark.parametrize("path", ["checkpoint", "checkpoint-cosigned", "audit-key", bundle_path(0)])
def test_nobody_waits_for_what_is_no_file(log: WrittenLog, run: Callable[..., Any], path: str) -> None:
    log.write("audit-key", f"{log.key}\n".encode())
    (log.directory / path).unlink(missing_ok=True)
    os.mkfifo(log.directory / path)
    done = run("verify", "--from", log.directory, code=1 if path == "audit-key" else 8)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if path == "audit-key":
        (log.directory / path).unlink()
        log.write(path, b"\xff")
        assert "key cannot be read" in run("verify", "--from", log.directory, code=1).stderr


def test_an_export_has_the_bytes_of_the_entries(log: WrittenLog, run: Callable[..., Any]) -> None:
    lines = run("export", "--from", log.directory, "--first", 250, "--last", 600).stdout.splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(250, 601))
    assert lines[50] == f'{{"number":300,"entry":{entry(300).decode()}}}'
    found = run("export", "--from", log.directory, "--after", "2026-11-24T12:05", "--before", "2026-11-24T12:06")
    assert [json.loads(line)["number"] for line in found.stdout.splitlines()] == list(range(300, 360))
    (log.directory / bundle_path(0)).unlink()
    done = run("export", "--from", log.directory)
    assert json.loads(done.stdout.splitlines()[0])["number"] == 256
    assert "256 entries are not kept" in done.stderr


def test_dropped_bundles_are_allowed_where_that_is_said(log: WrittenLog, run: Callable[..., Any]) -> None:
    (log.directory / bundle_path(0)).unlink()
    arguments = ("verify", "--from", log.directory, "--key", log.key)
    run(*arguments, code=8)
    told = run(*arguments, "--dropped-before", 256).stdout
    assert "only the hashes" in told
    assert "Up to entry 255 entries are missing" in told
    said = AuditEntry(
        1, "2026-11-24T12:00:00.000000Z", "fold", "audit_entries_dropped", "success", "local", target="0-255"
    )
    log.grow([said.line()])
    assert "are missing" not in run(*arguments).stdout
    assert "are missing" not in run(*arguments, "--dropped-before", 600).stdout
    (log.directory / bundle_path(1)).unlink()  # by somebody else
    run(*arguments, code=8)
    told = run(*arguments, "--dropped-before", 600).stdout
    assert "Up to entry 511 entries are missing that --dropped-before lets pass" in told
    assert "says of none from 256 on" in told


def test_a_receipt_is_for_the_line_that_is_given(log: WrittenLog, run: Callable[..., Any], tmp_path: Path) -> None:
    note = Note.parse((log.directory / "checkpoint").read_bytes())
    (tmp_path / "receipt").write_bytes(bytes(proof_of(1, log.tiles.at(SIZE), note)))
    arguments = ("verify", "--receipt", "receipt", "--key", log.key, "--entry")
    line = f'{{"number":1,"entry":{entry(1).decode()}}}'
    assert "number 1 of" in run(*arguments, line).stdout
    (tmp_path / "line").write_text(f"{line}\n")
    run(*arguments, "@line")
    assert "entry 1, and the line says 7" in run(*arguments, line.replace(":1,", ":7,", 1), code=8).stderr
    for start in ('{"number":1,"client_id":"mallory","entry":', '{"number":"1","entry":', '{"number":01,"entry":'):
        assert "no line as" in run(*arguments, line.replace('{"number":1,"entry":', start), code=2).stderr
    run(*arguments, line[:-1] + ',"client_id":{}}', code=8)


def test_bad_arguments_get_a_sentence(log: WrittenLog, run: Callable[..., Any], tmp_path: Path) -> None:
    run("verify", "https://localhost:1", "--from", log.directory, code=2)
    assert "kms login" in run("verify", "https://localhost:1", code=3).stderr
    assert "no audit log" in run("verify", "--data-dir", tmp_path / "none", code=1).stderr
    assert "--receipt" in run("verify", "--entry", "x", code=2).stderr
    (tmp_path / "receipt").write_bytes(b"\xff")
    assert "--entry" in run("verify", "--receipt", "receipt", "--key", log.key, code=2).stderr
    assert "--key" in run("verify", "--receipt", "receipt", "--entry", "x", code=2).stderr
    leaf = b64encode(bytes(32)).decode()
    run("verify", "--receipt", "receipt", "--entry", leaf, "--key", log.key, code=8)
    assert "32 bytes" in run("receipt", "abc", code=2).stderr


@pytest.fixture
def folded(kms: Kms, shared_world: World) -> bytes:
    """The leaf hash of a use, which is in the log."""
    answer = shared_world.login("alice").get("/api/v1/keys")
    shared_world.service.folder.fold()
    return b64decode(answer.headers["Audit-Leaf"])


def test_a_service_is_verified_and_gives_receipts(kms: Kms, folded: bytes, tmp_path: Path) -> None:
    kms("status", by="admin")
    url = kept_login.current().url
    assert "are as its checkpoint says" in kms("audit", "verify", url)[0]
    assert "You are logged in at" in kms("audit", "verify", "https://kms.example", code=2)[0]
    leaf = b64encode(folded).decode()
    (found,) = [line for line in kms("audit", "export", url) if leaf_hash(_line(line)) == folded]
    assert (found["entry"]["operation"], found["entry"]["client_id"]) == ("list_keys", "alice")
    (key,) = kms("audit", "key")
    (receipt,) = kms("audit", "receipt", leaf, by="bob")
    (tmp_path / "receipt").write_text(receipt)
    (tmp_path / "kms.key").write_text(key)
    (tmp_path / "entry").write_bytes(_line(found))
    for about in (leaf, "@entry", _line(found).decode(), leaf.replace("+", "-").replace("/", "_")):
        (told,) = kms("audit", "verify", "--receipt", "receipt", "--entry", about, "--key", "kms.key")
        assert f"The entry is number {found['number']} of localhost:8443/audit" in told
    other = b64encode(bytes(32)).decode()
    kms("audit", "verify", "--receipt", "receipt", "--entry", other, "--key", "kms.key", code=8)
    assert "no entry" in kms("audit", "receipt", other, code=5)[0].lower()


def test_the_log_of_the_host_is_compared_with_the_database(
    kms: Kms, folded: bytes, shared_world: World, tmp_path: Path
) -> None:
    data = shared_world.service.settings.data_dir
    copytree(data, tmp_path / "data", ignore=lambda *_: ["run"])
    (told,) = kms("audit", "verify", "--data-dir", str(tmp_path / "data"))
    assert "are as its checkpoint says" in told
    assert (
        '"number":0,"entry":{"v":1'
        in CliRunner().invoke(main, ["audit", "export", "--data-dir", str(tmp_path / "data"), "--last", "0"]).stdout
    )


def test_an_index_without_some_rows_is_found_on_the_host(
    kms: Kms, folded: bytes, shared_world: World, tmp_path: Path
) -> None:
    copytree(shared_world.service.settings.data_dir, tmp_path / "data", ignore=lambda *_: ["run"])
    given = ["audit", "verify", "--data-dir", str(tmp_path / "data")]
    kms(*given)
    with sqlite3.connect(tmp_path / "data" / "audit-index.db") as index:
        index.execute("DELETE FROM postings")
    index.close()
    (told,) = kms(*given, code=8)
    assert "not its index" in told and "of the entries 0 to 255" in told and "audit-index.db" in told
    (tmp_path / "data" / "audit-index.db").unlink()
    assert "are as its checkpoint says" in kms(*given)[0]


def test_it_needs_no_packages_of_the_service(log: WrittenLog) -> None:
    """As on a machine that has the client's packages and a copy of the log, and nothing else."""
    code = (
        "import sys\n"
        "for name in ('sqlalchemy', 'flask', 'alembic', 'structlog', 'gunicorn', 'redis', 'psycopg'):\n"
        "    sys.modules[name] = None\n"
        "from kms.cli import main\n"
        f"main(['audit', 'verify', '--from', {str(log.directory)!r}, '--key', {str(log.key)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{SIZE} entries" in done.stdout


def _line(exported: dict[str, Any]) -> bytes:
    return json.dumps(exported["entry"], separators=(",", ":")).encode()
