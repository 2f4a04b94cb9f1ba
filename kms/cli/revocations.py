"""`revocations`: the signed list of revoked keys, which can also be checked offline."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from kms.cli import remote, show
from kms.cli.failing import REVOKED, Failure
from kms.client.revocations import RevocationList
from kms.errors import StartError
from kms.files import write_private

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


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
        f"{len(kept.revoked_keys)} revocations; there is a newer list after {kept.next_update:%Y-%m-%dT%H:%MZ}."
    )


@revocations.command()
@click.argument("key_id")
@click.option("--version", type=int, help="The version of the key.  [default: any]")
@click.option("--offline", type=_FILE, metavar="FILE", help="A list that `fetch` kept.")
@click.option("--jwks", type=_FILE, metavar="FILE", help="The service's public keys.  [default: beside the list]")
@click.option("--allow-old", is_flag=True, help="Believe a list also when there must be a newer one.")
def check(key_id: str, version: int | None, offline: Path | None, jwks: Path | None, *, allow_old: bool) -> None:
    """Say whether KEY_ID is revoked. The exit code is 9 if it is.

    With --offline the service is not called, and the list in FILE must have a valid signature of the service. If a
    key is not in it, it was not revoked at the time when the list was made.

    \b
    For example:
      kms revocations check orders --version 3
      kms revocations check orders --offline lists/revocations.json
    """
    if offline is None:
        found = remote.client().revocation_list()
    else:
        beside = jwks or offline.with_name("jwks.json")
        if not beside.exists():
            raise Failure(f"{beside} is not there; name the file of the service's public keys with --jwks.", 5)
        found = RevocationList.checked(offline.read_bytes(), beside.read_bytes())
    entry = found.revocation_of(key_id, version)
    if entry is None:
        if not (allow_old or found.is_current(datetime.now(UTC))):
            since = f"{found.next_update:%Y-%m-%dT%H:%MZ}"
            raise Failure(
                f"{key_id} is not in this list, but there is a newer one since {since}; see --allow-old.", 7
            )
        click.echo(f"{key_id} is not revoked, as of {found.issued_at:%Y-%m-%dT%H:%M:%SZ}.")
        return
    lasting = "; it still decrypts and verifies" if entry.may_still_process else ""
    raise Failure(
        f"{key_id} is revoked up to version {entry.up_to_version} since {entry.revoked_at:%Y-%m-%dT%H:%M:%SZ}, "
        f"{entry.reason}{lasting}.",
        REVOKED,
    )
