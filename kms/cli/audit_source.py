"""Where `kms audit` reads a log: the service at a URL, a copy of its files, or its directory on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from kms.audit.log_files import KEY
from kms.audit.tiles import MAX_FILE_BYTES, Tiles
from kms.audit.tree import Unverified
from kms.cli import remote
from kms.cli.on_host import of_the_service, opened, require_own_database, settings_of
from kms.client.errors import NotFound
from kms.config import Settings
from kms.errors import StartError

_KEY_PATH = "/.well-known/audit-key"


@dataclass(frozen=True)
class Source:
    """A log that can be read: its `tiles`, what to call it, its own idea of its key, and older states of it.

    `key` gives a verifier key as text, and raises KmsError, click.ClickException, FileNotFoundError or Unverified.
    `index` says what is wrong with the service's index of the log with that many entries, where it can be read.
    """

    tiles: Tiles
    name: str
    key: Callable[[], str]
    older: list[bytes] = field(default_factory=list)
    index: Callable[[int], str | None] = lambda _: None


def of_a_log(command: Callable[..., None]) -> Callable[..., None]:
    """Let `command` say which log: `url`, `directory` (both may be None), and the flags of the service's vault."""
    decorated = of_the_service(command)
    kind = click.Path(exists=True, file_okay=False, path_type=Path)
    about = "A copy of the log's files: what KMS_AUDIT_DIR holds."
    decorated = click.option("--from", "directory", type=kind, help=about)(decorated)
    return click.argument("url", required=False)(decorated)


def source_of(url: str | None, directory: Path | None, flags: dict[str, Any], *, with_vault: bool = False) -> Source:
    """The log that the arguments of `of_a_log` name.

    On the host the vault is opened only `with_vault`; then the state that the database has of the log is in `older`.
    Raises StartError, KmsError, click.ClickException.
    """
    if url is not None and directory is not None:
        raise click.UsageError("Give a URL or --from, not both.")
    if url is not None:
        return _served(url)
    if directory is not None:
        return _files(directory, str(directory))
    return _on_the_host(flags, with_vault=with_vault)


def _served(url: str) -> Source:
    connection = remote.client().connection
    if url.rstrip("/") != connection.url:
        raise click.UsageError(f"You are logged in at {connection.url}. Log in there: kms login --url {url}")

    def fetch(path: str) -> bytes:
        try:
            return connection.send("GET", f"/audit/{path}", repeatable=True, most=MAX_FILE_BYTES)
        except NotFound:
            raise FileNotFoundError(path) from None

    return Source(Tiles(fetch), connection.url, lambda: connection.public(_KEY_PATH).decode(errors="replace"))


def _files(directory: Path, name: str) -> Source:
    tiles = Tiles.in_directory(directory)
    return Source(tiles, name, lambda: tiles.fetch(KEY).decode(errors="replace"))


def _on_the_host(flags: dict[str, Any], *, with_vault: bool) -> Source:
    settings = settings_of(flags)
    if not settings.audit_log_dir.is_dir():
        raise StartError(
            f"There is no audit log in {settings.audit_log_dir}. Name the service's URL, a copy (--from), or the "
            "settings of the service (--data-dir, KMS_AUDIT_DIR)."
        )
    files = _files(settings.audit_log_dir, str(settings.audit_log_dir))
    if not with_vault:
        require_own_database(settings, on_stderr=True)
        return files
    from kms.audit.log_state import key_and_state  # here: the other ways do without a database

    key, state = key_and_state(opened(flags), settings.audit_log_dir, settings.audit_origin)
    return Source(files.tiles, files.name, lambda: str(key), state, partial(_wrong_in_index, settings))


def _wrong_in_index(settings: Settings, size: int) -> str | None:
    from kms.audit.index import Index  # here: the other ways do without what it needs
    from kms.audit.index_check import check
    from kms.audit.index_file import IndexUnusable

    try:
        wrong = check(Index(settings.audit_log_dir, settings.audit_index), size)
    except (IndexUnusable, Unverified) as unusable:
        click.echo(f"The index was not checked. {unusable}", err=True)
        return None
    return None if wrong is None else f"{wrong} Remove {settings.audit_index}: the service makes it anew."
