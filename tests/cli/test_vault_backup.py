"""`vault backup`, `check-backup` and `restore` as an operator gives them, on the service's host."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from helpers.backups import another_host, backup_of, chunks
from helpers.support import SteeredClock, Template, World, make_key, settings_for
from kms.cli import vault_backup
from kms.cli.vault import vault
from kms.clock import utc_now
from kms.config import Settings
from kms.crypto.registry import key_type
from kms.vault import tables
from kms.vault.database import connect
from kms.vault.opening import open_vault

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_nicer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_backup, "_NICENESS", 0)


@pytest.fixture(scope="module")
def folder(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a vault with several thousand rows, which nobody has open.

    SQLite must not be open twice in one process and in another one besides: closing a file drops the locks that the
    process has on it.
    """
    made = tmp_path_factory.mktemp("running") / "data"
    world = World.of(template.open(settings_for(made), SteeredClock()))
    world.user("alice")
    kind = key_type("xaes-256-gcm")
    with world.service.vault.change() as change:
        for number in range(1500):
            make_key(change, f"k{number}", "alice", kind, kind.generate(), utc_now())
    world.service.close()
    return made


@pytest.fixture
def data(folder: Path) -> str:
    return str(folder)


@pytest.fixture(scope="module")
def backup(folder: Path) -> bytes:
    vault = open_vault(settings_for(folder), create=False)
    made = backup_of(vault)
    vault.close()
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(vault, [str(each) for each in arguments])


def command(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "kms", "vault", *map(str, arguments)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        line, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_it_is_private_and_whole_and_says_what_it_is(data: str, tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    made = run("backup", file, "--data-dir", data)
    assert made.exit_code == 0, made.output
    assert f"{file}: {file.stat().st_size} bytes, " in made.output
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]
    checked = run("check-backup", file, "--data-dir", data)
    assert checked.exit_code == 0, checked.output
    assert "Whole and authentic" in checked.output and "has seen nothing newer" in checked.output


def test_no_file_is_written_over(data: str, tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    file.write_text("yesterday's")
    refused = run("backup", file, "--data-dir", data)
    assert refused.exit_code == 1
    assert "is there already" in refused.output
    assert file.read_text() == "yesterday's"


@pytest.mark.parametrize("file", ["/dev/full", "/nowhere/one.backup"])
def test_where_it_cannot_be_written_a_sentence_says_so(data: str, file: str) -> None:
    refused = run("backup", file, "--data-dir", data)
    assert refused.exit_code == 1
    assert f"Cannot write {file}: " in refused.output
    assert "There is no backup." in refused.output
    assert not refused.exception or isinstance(refused.exception, SystemExit)


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(data: str, tmp_path: Path) -> None:
    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = command("backup", tmp_path / "one.backup", "--data-dir", data, preexec_fn=small)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Cannot write" in said and b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_pipe_gets_the_backup_and_nothing_else(data: str, tmp_path: Path) -> None:
    assert run("backup", "--data-dir", data).exit_code == 2
    assert run("backup", "x", "--to", "-", "--data-dir", data).exit_code == 2
    piped = command("backup", "--to", "-", "--data-dir", data)
    content, said = piped.communicate(timeout=60)
    assert piped.returncode == 0, said
    assert f"{len(content)} bytes".encode() in said
    file = tmp_path / "piped.backup"
    file.write_bytes(content)
    assert run("check-backup", file, "--data-dir", data).exit_code == 0


@pytest.mark.slow
def test_where_nobody_reads_the_pipe_it_says_so(data: str) -> None:
    piped = command("backup", "--to", "-", "--data-dir", data)
    assert piped.stdout is not None and piped.stderr is not None
    piped.stdout.read(100)
    piped.stdout.close()
    said = piped.stderr.read()
    assert piped.wait(timeout=60) == 1
    assert b"Nobody reads the pipe" in said and b"Traceback" not in said


def test_what_is_not_authentic_ends_with_its_own_code(data: str, tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    run("backup", file, "--data-dir", data)
    file.write_bytes(file.read_bytes()[:-1])
    assert run("check-backup", file, "--data-dir", data).exit_code == 8
    host = another_host(Path(data), tmp_path / "host")
    assert run("restore", file, "--data-dir", host.data_dir).exit_code == 8


def test_it_is_not_restored_under_a_running_service(folder: Path, backup: bytes, tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    file.write_bytes(backup)
    host = another_host(folder, tmp_path / "host")
    (host.data_dir / "run").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
         "print('held', flush=True); input()", host.data_dir / "run" / "lock"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        refused = run("restore", file, "--data-dir", host.data_dir)
        assert refused.exit_code == 1
        assert "Another service is running" in refused.output
    finally:
        holder.communicate(b"\n", timeout=10)
    done = run("restore", file, "--data-dir", host.data_dir)
    assert done.exit_code == 0, done.output
    with (host.data_dir / "run" / "lock").open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more


def test_on_the_same_host_a_rollback_needs_to_be_accepted(data: str, tmp_path: Path) -> None:
    file = tmp_path / "one.backup"
    assert run("backup", file, "--data-dir", data).exit_code == 0
    vault_of_the_service = open_vault(settings_for(Path(data)), create=False)
    with vault_of_the_service.change() as change:
        change.record("{}")
    vault_of_the_service.close()
    checked = run("check-backup", file, "--data-dir", data)
    assert "has seen 1 changes after it" in checked.output
    elsewhere = f"sqlite:///{tmp_path / 'new.db'}"
    host = another_host(Path(data), tmp_path / "host")
    for shared in Path(data).glob("newest-*"):
        (host.data_dir / shared.name).write_bytes(shared.read_bytes())
    refused = run("restore", file, "--data-dir", host.data_dir, "--database-url", elsewhere)
    assert refused.exit_code == 1
    assert "ROLLBACK" in refused.output and "--accept-rollback" in refused.output
    done = run("restore", file, "--data-dir", host.data_dir, "--database-url", elsewhere, "--accept-rollback")
    assert done.exit_code == 0, done.output
    assert "ROLLBACK" in done.output and "Nothing was given" in done.output


def tables_of(settings: Settings) -> list[str]:
    engine = connect(settings.database, pool_size=1)
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT name FROM sqlite_master").scalars().all()
    engine.dispose()
    return list(found)


@pytest.mark.slow
def test_killed_in_the_middle_it_leaves_an_empty_database(folder: Path, backup: bytes, tmp_path: Path) -> None:
    host = another_host(folder, tmp_path / "host")
    parts = chunks(backup)
    assert len(parts) > 15
    restoring = command("restore", "-", "--data-dir", host.data_dir, stdin=subprocess.PIPE)
    assert restoring.stdin is not None
    restoring.stdin.write(b"".join(parts[:-2]))
    restoring.stdin.flush()
    deadline = time.monotonic() + 60
    while int.from_bytes(fcntl.ioctl(restoring.stdin, termios.FIONREAD, bytes(4)), sys.byteorder):
        assert time.monotonic() < deadline and restoring.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)  # it has taken all that there is so far, and puts it into the database
    restoring.kill()
    restoring.communicate(timeout=30)
    assert tables_of(host) == []
    again = command("restore", "-", "--data-dir", host.data_dir, stdin=subprocess.PIPE)
    out, said = again.communicate(backup, timeout=60)
    assert again.returncode == 0, said
    assert b"Start the service" in out
    opened = open_vault(host, create=False)
    with opened.read() as snapshot:
        assert len(snapshot.connection.execute(select(tables.keys.c.uid)).all()) == 1500
    opened.close()


@pytest.mark.slow
def test_a_full_disk_in_the_middle_leaves_an_empty_database(folder: Path, backup: bytes, tmp_path: Path) -> None:
    host = another_host(folder, tmp_path / "host")
    file = tmp_path / "one.backup"
    file.write_bytes(backup)

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = command("restore", file, "--data-dir", host.data_dir, preexec_fn=small)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Nothing was restored" in said and b"Traceback" not in said
    assert tables_of(host) == []
