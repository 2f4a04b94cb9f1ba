"""`vault backup`, `check-backup` and `restore`: the whole vault in one file, on the host."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import structlog

from kms.cli.failing import NOT_AUTHENTIC, Failure
from kms.cli.on_host import local_entry, of_the_service, require_own_database, settings_of
from kms.cli.progress import progress
from kms.cli.vault_recovery import Recovery, takes_recovery_key
from kms.clock import utc_now
from kms.errors import StartError
from kms.files import appearing, fault_of, private_directory

if TYPE_CHECKING:
    from kms.vault.backup.restore import Loaded
    from kms.vault.backup.write import Made

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True, allow_dash=True)
_NICENESS = 5


@click.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--to", type=click.Choice(["-"]), help="Write to stdout, for a pipe.")
@of_the_service
def backup(file: Path | None, to: str | None, **flags: Any) -> None:
    """Write the whole vault into FILE, encrypted, while the service runs.

    Run it with the settings of the service. FILE must not exist yet; it appears when it is complete, with mode 0600.
    It can be restored into SQLite and into PostgreSQL, and only with what unseals this vault, which is not in it.

    \b
    For example:
      kms vault backup kms-2026-11-24.backup
      kms vault backup --to - | ssh vault-copies 'cat > kms-2026-11-24.backup'
    """
    if (file is None) == (to is None):
        raise click.UsageError("Give a FILE, or --to - for stdout.")
    if to is not None and sys.stdout.isatty():
        raise click.UsageError("A backup is not for the terminal. Pipe it into something, or give a FILE.")
    from kms.vault.opening import open_vault

    with _failing():
        settings = settings_of(flags)
        require_own_database(settings, on_stderr=to is not None)
        vault = open_vault(settings, create=False)
        os.nice(_NICENESS)  # who uses keys goes before
        try:
            made = _to_stdout(vault) if file is None else _to_file(vault, file)
        finally:
            vault.close()
    click.echo(
        f"{file or 'The backup'}: {made.size} bytes, {made.rows} rows, made at {made.header.made_at} at change "
        f"{made.header.counter} of vault {made.header.vault_id}.",
        err=file is None,
    )


@click.command("check-backup")
@click.argument("file", type=_EXISTING)
@takes_recovery_key
@of_the_service
def check_backup(file: Path, by: Recovery, **flags: Any) -> None:
    """Read a backup to its end and check every row, without restoring it. The exit code is 8 if it is not authentic.

    It needs what unseals the vault, or the recovery key that it had when the backup was made, and no database. Do it
    for each backup, with the copy that you keep.

    \b
    For example:
      kms vault check-backup kms-2026-11-24.backup
    """
    from kms.vault.backup.restore import read_backup

    with _failing(), _reading(file) as (source, advance):
        loaded = read_backup(settings_of(flags), source, advance, by.unseal)
    header = loaded.header
    click.echo(
        f"Whole and authentic: vault {header.vault_id}, made at {header.made_at} at change {header.counter}, "
        f"{loaded.rows} rows, schema {header.schema}."
    )
    if loaded.seen:
        lost = loaded.seen - header.counter
        click.echo(
            f"This data directory has seen {lost} changes after it."
            if lost > 0
            else "This data directory has seen nothing newer."
        )


@click.command()
@click.argument("file", type=_EXISTING)
@click.option("--accept-rollback", is_flag=True, help="Restore it although something newer is known.")
@click.option("--revocations", type=_FILE, help="The newest revocation list that the service published.")
@click.option("--newer-database", metavar="URL|PATH", help="The database from after the backup, perhaps damaged.")
@takes_recovery_key
@of_the_service
def restore(
    file: Path,
    revocations: Path | None,
    newer_database: str | None,
    by: Recovery,
    *,
    accept_rollback: bool,
    **flags: Any,
) -> None:
    """Restore the backup in FILE (- is stdin) into an empty database, while no service runs on the data directory.

    All of it is checked before any of it becomes visible. If this data directory, the revocation list or the newer
    database shows that the vault has changed since the backup, that is a rollback: it is named, and needs
    --accept-rollback. What was revoked since then, as far as they prove it, is then revoked again.

    Where the seal of the vault is gone, its recovery key opens the backup (--recovery); then the restored vault needs
    a new seal: `kms vault reseal --to SEAL --recovery`.

    \b
    For example:
      kms vault restore kms-2026-11-24.backup
      kms vault restore kms-2026-11-24.backup --database-url postgresql://kms@db/kms
      kms vault restore kms-2026-11-24.backup --accept-rollback --revocations lists/revocations.json
    """
    from kms.revocation.evidence import of_database, of_signed_list
    from kms.revocation.rollback import Judge, Source
    from kms.vault import served
    from kms.vault.backup.restore import restore as restore_backup
    from kms.vault.database import shown

    sources: list[Source] = []
    if revocations is not None:
        sources.append(partial(of_signed_list, document=_content(revocations)))
    if newer_database is not None:
        sources.append(lambda change: of_database(change.derived_keys, settings, newer_database, by.unseal))
    judge = Judge(utc_now(), accept_rollback, sources)
    with _failing():
        settings = settings_of(flags)
        click.echo(f"Database: {shown(settings.database)}")
        private_directory(settings.data_dir)
        lock = served.hold(settings.run_dir)
        try:
            served.say(lock, settings.database)
            with _reading(file) as (source, advance):
                loaded = restore_backup(settings, source, judge, advance, by.unseal)
        finally:
            os.close(lock)
    _say_what_was_restored(loaded, judge.report, [f"Revoked again: {each}" for each in judge.shown_again()], by)
    if judge.is_rollback:
        structlog.get_logger().critical(
            "an operator restored an older state of the vault",
            backup_made_at=loaded.header.made_at,
            change=loaded.header.counter,
            revoked_again=len(judge.applied),
        )


def _say_what_was_restored(loaded: Loaded, report: list[str], again: list[str], by: Recovery) -> None:
    for sentence in [*report, *again]:
        click.echo(sentence)
    reseal = "Give the vault a seal (`kms vault reseal --to SEAL --recovery`), then start" if by.is_used else "Start"
    click.echo(f"Restored {loaded.rows} rows. {reseal} the service.")


def _to_file(vault: Any, file: Path) -> Made:
    from kms.vault.backup.container import BackupRefused
    from kms.vault.backup.restore import records_in

    try:
        with appearing(file, replace=False) as out, progress(f"Writing {file.name}", None) as advance:
            made = _back_up(vault, out, advance, str(file))
        if file.is_file():
            with file.open("rb") as source:
                if records_in(source, vault.derived_keys) != made.rows:
                    raise BackupRefused(f"{file} does not read back as it was written. Is the disk in order?")
    except FileExistsError:
        raise StartError(f"{file} is there already. A backup is never written over another file.") from None
    except OSError as error:
        raise StartError(f"Cannot write {file}: {fault_of(error)}. There is no backup.") from error
    return made


def _to_stdout(vault: Any) -> Made:
    try:
        with progress("Writing to stdout", None) as advance:
            made = _back_up(vault, sys.stdout.buffer, advance, "stdout")
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it ends
        raise StartError("Nobody reads the pipe any more. There is no backup.") from None
    except OSError as error:
        raise StartError(f"Cannot write to stdout: {fault_of(error)}. There is no backup.") from error
    return made


def _back_up(vault: Any, out: BinaryIO, advance: Any, target: str) -> Made:
    from kms.vault.backup.write import back_up

    now = utc_now()
    named = os.fsencode(target).decode("utf-8", "replace")

    def write(content: bytes) -> None:
        out.write(content)
        advance(len(content))

    return back_up(vault, write, local_entry("backup_vault", named), now)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"Cannot read {path}: {fault_of(error)}.") from None


@contextmanager
def _reading(file: Path) -> Iterator[tuple[BinaryIO, Any]]:
    """The backup in `file`, and whom to tell how much of it was read."""
    is_stdin = str(file) == "-"
    total = None if is_stdin else file.stat().st_size
    with (
        nullcontext(sys.stdin.buffer) if is_stdin else file.open("rb") as source,
        progress(f"Reading {file.name}", total) as advance,
    ):
        yield source, advance


@contextmanager
def _failing() -> Iterator[None]:
    """What is not authentic has an exit code of its own."""
    from kms.vault.backup.container import BackupRefused

    try:
        yield
    except BackupRefused as error:
        raise Failure(str(error), NOT_AUTHENTIC) from None
