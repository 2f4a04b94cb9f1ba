"""`revocations`: the signed list of revoked keys, which can also be checked offline."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from kms.cli import remote, show
from kms.cli.failing import REVOKED, Failure
from kms.cli.revocation_proof import Receipts
from kms.client.errors import KmsError
from kms.client.revocations import Revocation, RevocationList, Undecided
from kms.errors import StartError
from kms.files import write_private

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_ALIASES = "A list knows key ids only: it does not follow aliases."
_PATH = click.Path(path_type=Path, exists=True)


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """The time that an option names (RFC 3339, with its offset)."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None:
        raise click.BadParameter(f"{value} is not a time like 2026-11-24T12:00:00Z.", context, parameter)
    return moment


@click.group()
def revocations() -> None:
    """Show which keys are revoked, after checking the signature of the service on the list."""


@revocations.command("list")
def list_() -> None:
    """List every revocation that is in force.

    \b
    For example:
      kms revocations list
    """
    found = msgspec.to_builtins(remote.client().revocation_list().revoked_keys)
    show.table(found, "serial", "key_id", "up_to_version", "reason", "revoked_at")


@revocations.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def fetch(folder: Path) -> None:
    """Save the list and the service's public keys in FOLDER, for checking keys without network.

    \b
    For example:
      kms revocations fetch lists
    """
    client = remote.client()
    document = client.call_raw("revocation_list", {})
    jwks = client.connection.public("/.well-known/jwks.json")
    kept = RevocationList.checked(document, jwks)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_private(folder / "revocations.json", document)
        write_private(folder / "jwks.json", jwks)
    except StartError as error:
        raise Failure(str(error)) from None
    click.echo(
        f"{len(kept.revoked_keys)} revocations; there is a newer list after {kept.next_update:%Y-%m-%dT%H:%MZ}. "
        f"Signed by the key with the thumbprint {kept.signed_by}."
    )


@revocations.command()
@click.argument("key_id")
@click.option("--version", type=int, help="The version of the key.  [default: any]")
@click.option("--offline", type=_FILE, metavar="FILE", help="A list that `fetch` kept.")
@click.option("--jwks", type=_FILE, metavar="FILE", help="The service's public keys.  [default: beside the list]")
@click.option("--allow-old", is_flag=True, help="Believe a list also when there must be a newer one.")
@click.option("--at", callback=_moment, metavar="TIME", help="What was at that time (RFC 3339).  [default: now]")
@click.option("--receipts", type=_PATH, metavar="PATH", help="Proofs of `kms audit receipt`: a file, or a folder.")
@click.option("--log-key", metavar="KEY|FILE", help="The audit log's verifier key, for --receipts.")
@click.option("--checkpoint", type=_FILE, metavar="FILE", help="The checkpoint to which the proof must lead.")
@click.option("--witness", multiple=True, metavar="KEY|FILE", help="A witness that must have cosigned.")
def check(
    key_id: str,
    version: int | None,
    offline: Path | None,
    jwks: Path | None,
    at: datetime | None,
    receipts: Path | None,
    log_key: str | None,
    checkpoint: Path | None,
    witness: tuple[str, ...],
    *,
    allow_old: bool,
) -> None:
    """Say whether KEY_ID is revoked, or was --at a time. The exit code is 9 if so.

    The list names keys by their ids, and a key that has given its name free by both. Aliases and ARNs are refused
    where they can be told from an id; without the service an alias that looks like an id cannot.

    With --offline the service is not called, and the list in FILE must have a valid signature of the service. If a
    key is not in it, it was not revoked at the time when the list was made. Public keys from beside the list prove
    nothing to somebody who does not trust where both come from: give --jwks.

    For a time in the past the list must have been made later, and have all entries up to its newest. The exit code is
    7 if it does not tell, or KEY_ID is no id of a key. With --receipts the revocation must also be in the audit log,
    or the exit code is 8.

    \b
    For example:
      kms revocations check orders --version 3
      kms revocations check orders --offline lists/revocations.json
      kms revocations check orders --offline lists/revocations.json --at 2026-11-24T12:00:00Z \\
        --receipts receipt.txt --log-key kms.key
    """
    proofs = _receipts(receipts, log_key, witness, checkpoint)
    found = _list_of(offline, jwks)
    try:
        entry = found.revocation_of(key_id, version) if at is None else found.revocation_at(key_id, at, version)
    except Undecided as undecided:
        asked = f"{key_id} is revoked" if at is None else f"{key_id} was revoked then"
        raise Failure(f"Whether {show.plain(asked)} cannot be told. {show.plain(str(undecided))}", 7) from None
    if entry is not None:
        if proofs is not None:
            proofs.tell(entry)
        raise Failure(_revoked(key_id, entry, at), REVOKED)
    for spelling in {each.key_id for each in found.revoked_keys if each.key_id.lower() == key_id.lower()} - {key_id}:
        click.echo(f"{spelling} is revoked, which is another key: upper and lower case differ.", err=True)
    if offline is None:
        _require_no_alias(key_id)
    if proofs is not None:
        click.echo("The receipts were not looked at: they prove what is in the audit log, not what is not.", err=True)
    if at is not None:
        newest = max((each.serial for each in (*found.revoked_keys, *(found.no_longer_in_force or ()))), default=0)
        click.echo(
            f"The key id {key_id} was not revoked at {_shown(at)}, by the list of {_shown(found.issued_at)}, which "
            f"has every entry up to number {newest}. {_ALIASES}"
        )
        return
    if not (allow_old or found.is_current(datetime.now(UTC))):
        since = f"{found.next_update:%Y-%m-%dT%H:%MZ}"
        raise Failure(
            f"The key id {key_id} is not in this list, but there is a newer one since {since}; see --allow-old.", 7
        )
    click.echo(f"The key id {key_id} is not revoked, as of {_shown(found.issued_at)}. {_ALIASES}")


def _require_no_alias(name: str) -> None:
    """Raise Failure where the service says that this is another name of a key."""
    with suppress(KmsError):  # it does not show the key to everybody who may read the list
        key_id = remote.client().key(name).key_id
        if key_id != name:
            raise Failure(f"{name} is not the id of a key, but another name of {key_id}. Ask for that.", 7)


def _receipts(
    path: Path | None, log_key: str | None, witnesses: tuple[str, ...], checkpoint: Path | None
) -> Receipts | None:
    if path is None:
        if log_key is not None or witnesses or checkpoint is not None:
            raise click.UsageError("--log-key, --checkpoint and --witness go with --receipts.")
        return None
    if log_key is None:
        raise click.UsageError("--receipts needs --log-key, the verifier key of the audit log (`kms audit key`).")
    return Receipts.of(path, log_key, witnesses, checkpoint)


def _list_of(offline: Path | None, jwks: Path | None) -> RevocationList:
    if offline is None:
        return remote.client().revocation_list()
    beside = jwks or offline.with_name("jwks.json")
    if not beside.exists():
        raise Failure(f"{beside} is not there; name the file of the service's public keys with --jwks.", 5)
    found = RevocationList.checked(offline.read_bytes(), beside.read_bytes())
    if jwks is None:
        click.echo(
            "The key that signed the list comes from beside it, which proves nothing to somebody who does not trust "
            "whoever had both. Keep the public keys elsewhere, and give --jwks; or compare the key's thumbprint "
            f"(RFC 7638): {found.signed_by}",
            err=True,
        )
    return found


def _revoked(key_id: str, entry: Revocation, at: datetime | None) -> str:
    lasting = "; it still decrypts and verifies" if entry.may_still_process else ""
    if at is None:
        return (
            f"{key_id} is revoked up to version {entry.up_to_version} since {_shown(entry.revoked_at)}, "
            f"{entry.reason}{lasting}."
        )
    by = f", by audit entry {entry.audit_leaf}" if entry.audit_leaf is not None else ""
    return (
        f"{key_id} was revoked up to version {entry.up_to_version} at {_shown(at)}: since "
        f"{_shown(entry.revoked_at)}, {entry.reason}, entry {entry.serial} of the list{by}."
    )


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
