"""`audit verify`: whether a log, or one entry of it, is as the log's key has signed."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from kms.audit.cosignature import CosignatureKey
from kms.audit.note import Ed25519Key, Verifier
from kms.audit.proof import TlogProof
from kms.audit.tree import HASH_BYTES, Unverified, leaf_hash
from kms.audit.verify import Cosigned, Finding, Verdict, verify_log
from kms.cli import show
from kms.cli.audit_source import Source, of_a_log, source_of
from kms.cli.failing import NOT_AUTHENTIC, Failure
from kms.cli.progress import progress
from kms.cli.verifier_keys import log_key_in, log_key_of, witness_key_in
from kms.files import fault_of

_MOST_SHOWN = 20
_EXPORTED = b'{"number":'
_LINE = re.compile(rb'\{"number":(0|[1-9][0-9]{0,18}),"entry":(\{.*\})\}')
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--key", "key_text", metavar="KEY|FILE", help="The log's verifier key, kept elsewhere.")
@click.option(
    "--checkpoint", "older", type=_file, multiple=True, help="An older checkpoint, which the log must continue."
)
@click.option(
    "--witness",
    multiple=True,
    metavar="KEY|FILE",
    help="The verifier key of a witness that must have cosigned.",
)
@click.option(
    "--dropped-before",
    type=click.IntRange(min=0),
    help="Entries before that may be missing, whoever dropped them; by default those of which the log says so.",
)
@click.option("--receipt", type=_file, help="Check this proof of one entry, and nothing else.")
@click.option("--entry", metavar="LINE|@FILE|LEAF", help="The entry that the receipt is about, or its leaf hash.")
@of_a_log
def verify(
    *,
    url: str | None,
    directory: Path | None,
    key_text: str | None,
    older: tuple[Path, ...],
    witness: tuple[str, ...],
    dropped_before: int | None,
    receipt: Path | None,
    entry: str | None,
    **flags: Any,
) -> None:
    """Check that no entry of the audit log was changed, dropped, inserted or moved.

    It reads the service at URL as you are logged in there, a copy of the files with --from, or else the log on this
    host with the settings of the service. Everything is computed again, down to the root that the log's key has
    signed, and the first wrong entry is named; where an entry was changed together with its hashes, the 256 entries
    or more among which it is. The exit code is 8 if something is wrong. On the host the index
    that the service searches is compared with the log, too.

    A key from the same place as the log proves nothing to somebody who trusts nobody there: keep the key and a
    checkpoint elsewhere, and give both.

    \b
    For example:
      kms audit verify --from ./copy --key kms.key --checkpoint last-month
      kms audit verify https://kms.example.com
      kms audit verify --receipt receipt.txt --entry LEAF --key kms.key
    """
    witnesses = [witness_key_in(each) for each in witness]
    if receipt is not None:
        _verify_receipt(receipt, entry, _receipt_key(key_text, url, directory), witnesses)
        return
    if entry is not None:
        raise click.UsageError("--entry goes with --receipt.")
    source = source_of(url, directory, flags, with_vault=True)
    key = _key(key_text, source)
    try:
        checkpoints = [path.read_bytes() for path in older]
        verdict = _verdict(source, key, witnesses, checkpoints, dropped_before)
    except OSError as error:
        raise click.ClickException(f"The log cannot be read: {fault_of(error)}.") from None
    _tell(verdict, source, witnesses, len(checkpoints))
    if verdict.checkpoint is not None and (wrong := source.index(verdict.checkpoint.size)) is not None:
        raise Failure(f"The log is right, but not its index: searches may miss entries. {wrong}", NOT_AUTHENTIC)


def _verdict(
    source: Source, key: Verifier, witnesses: Sequence[Verifier], older: Sequence[bytes], bundles_from: int | None
) -> Verdict:
    with ExitStack() as shown:
        done = 0
        advance: Callable[[int], None] | None = None

        def note(now: int, size: int) -> None:
            nonlocal done, advance
            if advance is None:
                advance = shown.enter_context(progress("entries", size, in_bytes=False))
            advance(now - done)
            done = now

        return verify_log(
            source.tiles,
            key,
            witnesses=witnesses,
            older=[*older, *source.older],
            bundles_from=bundles_from,
            progress=note,
        )


def _tell(verdict: Verdict, source: Source, witnesses: Sequence[CosignatureKey], older: int) -> None:
    """Print what was found. Raises Failure if something is wrong."""
    for finding in verdict.findings[:_MOST_SHOWN]:
        click.echo(_line(finding))
    if len(verdict.findings) > _MOST_SHOWN:
        click.echo(f"… and {len(verdict.findings) - _MOST_SHOWN} more.")
    now = verdict.checkpoint
    if not verdict.holds or now is None:
        first = next((each for each in verdict.findings if each.first is not None), None)
        named = f" The first wrong entry: {first.first}." if first is not None and first.is_exact else ""
        raise Failure(f"The audit log in {source.name} is not as its key has signed.{named}", NOT_AUTHENTIC)
    origin = show.plain(now.origin)
    click.echo(f"{now.size} entries of {origin} are as its checkpoint says (root {b64encode(now.root).decode()}).")
    if verdict.without_entries:
        click.echo(f"Of {verdict.without_entries} of them only the hashes are kept.")
    if verdict.unannounced:
        begin, last = verdict.unannounced[0], verdict.unannounced[-1]
        click.echo(
            f"Up to entry {last} entries are missing that --dropped-before lets pass. The log says of none from "
            f"{begin} on that retention drops it: who dropped them is not known, and this is no proof that it was "
            "retention."
        )
    if older:
        click.echo(f"It continues {'the older checkpoint' if older == 1 else f'the {older} older checkpoints'}.")
    _tell_witnesses(verdict.cosigned, witnesses)
    covered = max((each.size for each in verdict.cosigned.values()), default=now.size)
    if after := now.size - covered:
        came = "entry has" if after == 1 else "entries have"
        click.echo(f"The log continues what was cosigned. After that {after} {came} only its own signature yet.")


def _line(finding: Finding) -> str:
    glimpse = finding.glimpse
    parts = [glimpse.time, glimpse.operation, glimpse.client] if glimpse is not None else []
    says = show.plain(", ".join(filter(None, parts)))
    return show.plain(finding.sentence) + (f" There stands now: {says}." if says else "")


def _tell_witnesses(cosigned: Mapping[Verifier, Cosigned], needed: Sequence[CosignatureKey]) -> None:
    """Print who has cosigned, and when. Raises Failure if one that is needed has not."""
    for witness, (seconds, size) in cosigned.items():
        when = datetime.fromtimestamp(seconds, UTC) if seconds < 1 << 37 else None
        at = f" at {when:%Y-%m-%dT%H:%M:%SZ}" if when else ""
        click.echo(f"Cosigned by {show.plain(witness.name)}{at}, as of {size} entries.")
    missing = [each.name for each in needed if each not in cosigned]
    if missing:
        raise Failure(f"The checkpoint is not cosigned by {', '.join(map(show.plain, missing))}.", NOT_AUTHENTIC)


def _verify_receipt(path: Path, entry: str | None, key: Verifier, witnesses: Sequence[CosignatureKey]) -> None:
    if entry is None:
        raise click.UsageError("Say with --entry what the receipt is about: the entry, or its leaf hash.")
    try:
        proof = TlogProof.parse(path.read_bytes())
        leaf, number = _leaf(entry)
        opened = proof.check(leaf, key, witnesses)
    except Unverified as unverified:
        raise Failure(show.plain(str(unverified)), NOT_AUTHENTIC) from None
    if number not in {None, proof.index}:
        raise Failure(f"The receipt is about entry {proof.index}, and the line says {number}.", NOT_AUTHENTIC)
    now = opened.checkpoint
    click.echo(f"The entry is number {proof.index} of {show.plain(now.origin)}, as of its {now.size} entries.")
    cosigned = {each: Cosigned(time, now.size) for each, time in opened.cosigned.items()}
    _tell_witnesses(cosigned, witnesses)


def _receipt_key(given: str | None, url: str | None, directory: Path | None) -> Ed25519Key:
    if given is not None:
        return log_key_in(given)
    if url is None and directory is None:
        raise click.UsageError("Give --key, the log's verifier key, or a URL or --from with a log that has one.")
    return _key(None, source_of(url, directory, {}))


def _key(given: str | None, source: Source) -> Ed25519Key:
    if given is not None:
        return log_key_in(given)
    try:
        key = log_key_of(source.key())
    except FileNotFoundError:
        raise click.UsageError(f"{source.name} has no key of the log: give --key.") from None
    except Unverified as unverified:
        raise click.ClickException(show.plain(str(unverified))) from None
    click.echo(
        f"Key: {key}\nIt comes from the same place as the log, which proves nothing to somebody who trusts nobody "
        "there. Keep the key elsewhere, and give --key.",
        err=True,
    )
    return key


def _leaf(entry: str) -> tuple[bytes, int | None]:
    """The leaf hash that --entry names, of an entry or as it is, and the number where it stands with one.

    Raises click.ClickException.
    """
    if entry.startswith("@"):
        try:
            line = Path(entry[1:]).read_bytes().rstrip(b"\r\n")
        except OSError as error:
            raise click.ClickException(f"Cannot read {entry[1:]}: {fault_of(error)}.") from None
    else:
        line = entry.encode()
    number = None
    if line.startswith(_EXPORTED):
        found = _LINE.fullmatch(line)
        if found is None:  # nobody should take for proven what stands around the entry
            raise click.BadParameter("that is no line as `kms audit export` prints it: a number, and the entry.")
        number, line = int(found[1]), found[2]
    return leaf_hash(line) if line.startswith(b"{") else leaf_in(line.decode(errors="replace")), number


def leaf_in(text: str) -> bytes:
    """A leaf hash in base64 or base64url. Raises click.ClickException."""
    try:
        leaf = b64decode(text.strip().rstrip("=").translate(str.maketrans("-_", "+/")) + "=", validate=True)
    except (NotBase64, ValueError):
        leaf = b""
    if len(leaf) != HASH_BYTES:
        raise click.BadParameter("a leaf hash is 32 bytes in base64, as the header Audit-Leaf has it.")
    return leaf
