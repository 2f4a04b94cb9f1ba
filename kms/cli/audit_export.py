"""`audit export`, `audit receipt` and `audit key`: entries, proofs and the key, to keep elsewhere."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from kms.audit.checkpoint import Checkpoint
from kms.audit.entry import time_of
from kms.audit.log_files import CHECKPOINT
from kms.audit.note import Note
from kms.audit.proof import MAX_PROOF_BYTES
from kms.audit.tiles import ENTRIES, TILE_WIDTH, TileMissing, Tiles, width_in
from kms.audit.tree import Unverified
from kms.cli import remote, show
from kms.cli.audit_source import of_a_log, source_of
from kms.cli.audit_verify import leaf_in
from kms.cli.failing import NOT_AUTHENTIC, Failure
from kms.cli.status import login_or_named
from kms.cli.verifier_keys import log_key_of
from kms.client.connection import Connection


@click.command()
@click.option("--first", type=click.IntRange(min=0), default=0, help="Begin with the entry of this number.")
@click.option("--last", type=click.IntRange(min=0), help="End with the entry of this number.")
@click.option("--after", default="", metavar="TIME", help="Only later entries: 2026-11-28T10:00:00Z or its begin.")
@click.option("--before", default="", metavar="TIME", help="Only earlier entries.")
@of_a_log
def export(
    *,
    url: str | None,
    directory: Path | None,
    first: int,
    last: int | None,
    after: str,
    before: str,
    **flags: Any,
) -> None:
    """Print entries of the audit log with their numbers, a JSON object on each line, in the order of the log.

    The log is that at URL, a copy (--from), or the one on this host. An entry stands in `entry` byte by byte as the
    log has it, so that a receipt can be checked for it. What is no entry stands in `not_an_entry`, in base64, and the
    exit code is 8. Nothing is verified here: `kms audit verify` does that.

    \b
    For example:
      kms audit export https://kms.example.com --after 2026-11-01 > november.jsonl
    """
    source = source_of(url, directory, flags)
    malformed = 0
    try:
        size = Checkpoint.parse(Note.parse(source.tiles.fetch(CHECKPOINT)).text).size
        for number, entry in _entries(source.tiles, first, size if last is None else min(size, last + 1), size):
            if not (after or before) or _is_between(entry, after, before):
                member = b'"entry":%s' % entry
                if not _is_one_line(entry):
                    malformed += 1
                    member = b'"not_an_entry":"%s"' % b64encode(entry)
                show.content(b'{"number":%d,%s}\n' % (number, member))
    except FileNotFoundError:
        raise Failure("The log has no checkpoint: nothing was folded yet.") from None
    except Unverified as unverified:
        raise Failure(f"{show.plain(str(unverified))} `kms audit verify` says more.") from None
    if malformed:
        raise Failure(f"{malformed} entries are no line of JSON; they stand in base64.", NOT_AUTHENTIC)


def _is_one_line(entry: bytes) -> bool:
    """Whether it can stand inside of a line of JSON, and be nothing else there."""
    if not (entry.startswith(b"{") and entry.endswith(b"}")) or min(entry) < 0x20:
        return False
    try:
        msgspec.json.decode(entry)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _entries(tiles: Tiles, first: int, end: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The entries from `first` up to `end`; those that retention dropped are left out, which is said."""
    dropped = 0
    for index in range(first // TILE_WIDTH, -(-end // TILE_WIDTH)):
        begin = index * TILE_WIDTH
        try:
            entries = tiles.bundle(index, size)
        except TileMissing:
            if index == (size - 1) // TILE_WIDTH:
                raise
            tiles.content(0, index, size)  # its hashes are kept for ever: without them there is no such log
            dropped += width_in(ENTRIES, index, size)
            continue
        for number, entry in enumerate(entries, begin):
            if first <= number < end:
                yield number, entry
    if dropped:
        click.echo(f"{dropped} entries are not kept any more.", err=True)


def _is_between(entry: bytes, after: str, before: str) -> bool:
    time = time_of(entry)
    if not time:
        return True  # whoever looks for something wrong must see it
    return time > after and (not before or time < before)


@click.command()
@click.argument("leaf")
def receipt(*, leaf: str) -> None:
    """Print the proof that an entry is in the audit log, for the leaf hash that its answer had (`Audit-Leaf`).

    It waits until the entry is in the log, about a second. Keep the proof with what it is about: it needs neither
    the service nor the log to be checked (`kms audit verify --receipt`).

    \b
    For example:
      kms audit receipt LEAF > receipt.txt
    """
    path = f"/audit/proof/{urlsafe_b64encode(leaf_in(leaf)).decode().rstrip('=')}"
    show.content(remote.client().connection.send("GET", path, repeatable=True, most=MAX_PROOF_BYTES))


@click.command()
@click.option("--url", envvar="KMS_URL", help="The service.  [default: that of the login]")
@click.option(
    "--ca-cert", envvar="KMS_CA_CERT", type=click.Path(exists=True, path_type=Path), help="Trust this certificate."
)
def key(*, url: str | None, ca_cert: Path | None) -> None:
    """Print the verifier key of the audit log. Keep it where nobody of the service can change it.

    \b
    For example:
      kms audit key > kms.key
    """
    kept = login_or_named(url, ca_cert)
    found = Connection(kept.url, ca=kept.ca_cert).public("/.well-known/audit-key")
    click.echo(str(log_key_of(found.decode(errors="replace"))))
