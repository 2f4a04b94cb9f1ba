"""`encrypt`, `decrypt`, `rewrap` and `inspect`: files of any size, encrypted here under data keys of the service."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from kms.cli import remote, show
from kms.cli.failing import Failure, failure_of
from kms.cli.pairs import pair
from kms.cli.progress import progress
from kms.client import files, streams
from kms.client.envelope_format import read_header
from kms.client.files import SUFFIX, Outcome, Pair

_STDIO = Path("-")
_PATH = click.Path(path_type=Path, allow_dash=True)


@click.command()
@click.argument("file", type=_PATH)
@click.option("-k", "--key", "key_id", required=True, help="The key that encrypts the file's data key.")
@click.option("-o", "--output", type=_PATH, help=f"Where it goes; - for stdout.  [default: FILE{SUFFIX}]")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Bind it to this; written unencrypted into it.")
@click.option("-r", "--recursive", is_flag=True, help="Encrypt every file in the directory FILE, into directory -o.")
@click.option("-f", "--force", is_flag=True, help="Replace what is there.")
def encrypt(
    file: Path, key_id: str, output: Path | None, context: tuple[str, ...], *, recursive: bool, force: bool
) -> None:
    """Encrypt FILE (- for stdin), of any size. It is encrypted here; only its data key comes from the service.

    \b
    For example:
      kms encrypt -k backups --context host=db1 dump.sql
      kms encrypt -k backups -r reports -o reports.encrypted
    """
    client, bound = remote.client(), dict(pair(each, "--context") for each in context)
    if _STDIO in (file, output):
        output = _beside(file, output, encrypting=True)
        with _piped(file, output, replace=force) as (source, target), progress("encrypting", None) as advance:
            streams.encrypt_stream(client, key_id, source, target, context=bound, progress=advance)
        return
    todo = _pairs(file, output, recursive=recursive, encrypting=True)
    with progress("encrypting", _bytes_of(todo)) as advance:
        done = files.encrypt_files(client, key_id, todo, context=bound, replace=force, progress=advance)
        _report(done, is_one=not recursive)


@click.command()
@click.argument("file", type=_PATH)
@click.option("-o", "--output", type=_PATH, help=f"Where it goes; - for stdout.  [default: FILE without {SUFFIX}]")
@click.option("-k", "--key", "key_id", help="Refuse it unless it was encrypted under this key.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="Refuse it unless it was bound to this.")
@click.option("-r", "--recursive", is_flag=True, help=f"FILE is a directory: every {SUFFIX} file in it, into -o.")
@click.option("-f", "--force", is_flag=True, help="Replace what is there.")
def decrypt(
    file: Path, output: Path | None, key_id: str | None, context: tuple[str, ...], *, recursive: bool, force: bool
) -> None:
    """Decrypt FILE (- for stdin). Its header names the key: with -k you say which one it must be.

    Without -k the file is by anybody who may encrypt under some key that you may use.

    An output file appears only after all of it was verified. Output to stdout is verified piece by piece: it is
    complete only if the exit code is 0.

    \b
    For example:
      kms decrypt dump.sql.kms
      kms decrypt -k backups -o - dump.sql.kms | psql
    """
    client, bound = remote.client(), dict(pair(each, "--context") for each in context)
    if _STDIO in (file, output):
        output = _beside(file, output, encrypting=False)
        with _piped(file, output, replace=force) as (source, target), progress("decrypting", None) as advance:
            streams.decrypt_stream(client, source, target, key_id=key_id, context=bound, progress=advance)
        return
    todo = _pairs(file, output, recursive=recursive, encrypting=False)
    with progress("decrypting", _bytes_of(todo)) as advance:
        done = files.decrypt_files(client, todo, key_id=key_id, context=bound, replace=force, progress=advance)
        _report(done, is_one=not recursive)


@click.command()
@click.argument("file", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-r", "--recursive", is_flag=True, help=f"Of a directory: every {SUFFIX} file in it.")
def rewrap(file: tuple[Path, ...], *, recursive: bool) -> None:
    """Encrypt the data key of each FILE again with the latest version of its key. Only its header changes.

    \b
    For example:
      kms rewrap dump.sql.kms
      kms rewrap -r reports.encrypted
    """
    found = (_in(each, recursive=recursive) for each in file)
    _report(files.rewrap_files(remote.client(), (path for some in found for path in some)), is_one=False)


@click.command()
@click.argument("file", type=_PATH)
def inspect(file: Path) -> None:
    """Show what the header of FILE says: key, version and context. Nothing is verified; the service is not called.

    \b
    For example:
      kms inspect dump.sql.kms
    """
    with _input(file) as source:
        header = read_header(source.read)
    show.document({"key_id": header.key_id, "version": header.version, "context": header.context_pairs})


def _beside(file: Path, output: Path | None, *, encrypting: bool) -> Path:
    """The path of the output file for `file`: `output`, or `file` with the suffix added or removed."""
    if output is not None:
        return output
    if file == _STDIO:
        return _STDIO
    if encrypting:
        return file.with_name(file.name + SUFFIX)
    if file.suffix != SUFFIX:
        raise click.UsageError(f"{file} does not end in {SUFFIX}: say with -o where it goes.")
    return file.with_suffix("")


def _pairs(file: Path, output: Path | None, *, recursive: bool, encrypting: bool) -> list[Pair]:
    if not recursive:
        if file.is_dir():
            raise click.UsageError(f"{file} is a directory; -r takes all that is in it.")
        return [(file, _beside(file, output, encrypting=encrypting))]
    if output is None or not file.is_dir():
        raise click.UsageError("-r takes a directory, and -o says into which directory what comes of it goes.")
    if output.resolve().is_relative_to(file.resolve()):
        raise click.UsageError(f"{output} is within {file}; name a directory outside of it.")
    return list(files.in_tree(file, output, encrypting=encrypting))


def _in(path: Path, *, recursive: bool) -> Iterable[Path]:
    if not recursive:
        return [path]
    return [each for each, _ in files.in_tree(path, path, encrypting=False)]


def _bytes_of(pairs: Iterable[Pair]) -> int:
    return sum(path.stat().st_size for path, _ in pairs if path.exists())


@contextmanager
def _input(file: Path) -> Iterator[BinaryIO]:
    if file == _STDIO:
        yield sys.stdin.buffer
        return
    try:
        with file.open("rb") as source:
            yield source
    except FileNotFoundError:
        raise Failure(f"{file} is not there.", 5) from None


@contextmanager
def _piped(file: Path, output: Path, *, replace: bool) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Source and target, of which one at least is a pipe."""
    with _input(file) as source:
        if output != _STDIO:
            with files.appearing(output, replace=replace) as target:
                yield source, target
            return
        if sys.stdout.isatty() and not replace:
            raise click.UsageError("This would go to the terminal: use -o, a pipe, or --force.")
        yield source, sys.stdout.buffer
        sys.stdout.buffer.flush()


def _report(outcomes: Iterator[Outcome], *, is_one: bool) -> None:
    """Print the outcome for each file. Raises Failure if a file failed."""
    failed, code = 0, 1
    for each in outcomes:
        if each.error is None:
            click.echo(f"{each.source} → {each.target}" if each.source != each.target else f"{each.source}", err=True)
            continue
        if is_one:
            raise each.error
        failure = failure_of(each.error)
        failed, code = failed + 1, failure.exit_code
        click.echo(f"{each.source}: {failure.message}", err=True)
    if failed:
        raise Failure(f"{failed} of the files were left as they were.", code)
