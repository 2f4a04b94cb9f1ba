"""`key`: keys and their life."""

from __future__ import annotations

import json

import click

from kms.cli import key_files, remote, show
from kms.keys.model import RevocationReason

_PATH = ("api", "v1", "keys")


@click.group()
def key() -> None:
    """Make keys, see them, rotate and revoke them."""


@key.command("list")
@click.option("--owner", help="Only keys of this client.")
@click.option(
    "--unused-since", help="Only keys that nobody has used from this time on, such as 2030-01-31T00:00:00Z."
)
def list_(*, owner: str | None, unused_since: str | None) -> None:
    """List the keys that you may see.

    \b
    For example:
      kms key list --owner shop
    """
    items = remote.pages(*_PATH, owner=owner, unused_since=unused_since)
    show.table(items, "key_id", "type", "state", "latest_version", "expires_at")


@key.command("show")
@click.argument("key_id")
def show_(key_id: str) -> None:
    """Show a key and its versions.

    \b
    For example:
      kms key show orders
    """
    show.document(remote.call("GET", *_PATH, key_id))


@key.command()
@click.argument("key_id")
@click.option("--type", "type_", default="xaes-256-gcm", show_default=True, help="See docs/reference/key-types.md.")
@click.option("--owner", help="The client that will own it.  [default: you]")
@click.option("--usage", "usages", multiple=True, help="A usage.  [default: all of the type's first purpose]")
@click.option("--exportable", is_flag=True, help="Allow exporting it, wrapped. Cannot be changed later.")
@click.option("--rotation-period", help="Make the next version after each such period, such as P90D.")
def create(
    key_id: str, type_: str, owner: str | None, usages: tuple[str, ...], exportable: bool, rotation_period: str | None
) -> None:
    """Make a key of any type.

    \b
    For example:
      kms key create orders --rotation-period P90D
      kms key create releases --type ml-dsa-65
    """
    body = {"key_id": key_id, "type": type_, "exportable": exportable}
    optional = {"owner": owner, "usages": list(usages) or None, "rotation_period": rotation_period}
    body |= {name: value for name, value in optional.items() if value is not None}
    show.document(remote.call("POST", *_PATH, body=body))


@key.command("public")
@click.argument("key_id")
@click.option("--format", "form", type=click.Choice(["pem", "jwk", "ssh"]), default="pem", show_default=True)
def public_(key_id: str, form: str) -> None:
    """Print the public half of a key.

    \b
    For example:
      kms key public releases --format jwk
    """
    answer = remote.call("GET", *_PATH, key_id, "public-key", format=form)
    click.echo(answer["public_key"].rstrip() if "public_key" in answer else json.dumps(answer["jwk"]))


@key.command()
@click.argument("key_id")
@click.option("--waiting-period", default="P30D", show_default=True, help="How long it can be cancelled.")
@click.confirmation_option(prompt="Refuse this key every use now, and delete it after the waiting period?")
def delete(key_id: str, waiting_period: str) -> None:
    """Delete a key with all its versions, after a waiting period.

    \b
    For example:
      kms key delete orders --waiting-period P7D
    """
    show.document(remote.call("DELETE", *_PATH, key_id, body={"waiting_period": waiting_period}))


@key.command("cancel-deletion")
@click.argument("key_id")
def cancel_deletion(key_id: str) -> None:
    """Cancel the deletion of a key.

    \b
    For example:
      kms key cancel-deletion orders
    """
    show.document(remote.call("POST", *_PATH, key_id, "cancel-deletion"))


@key.command()
@click.argument("kind", type=click.Choice(["symmetric", "rsa", "ecc", "dh"]))
@click.option("--client-id", help="The client that it is for.  [default: you]")
def generate(kind: str, client_id: str | None) -> None:
    """Make the next version of the key {client_id}_{kind}, or the key itself if there is none yet.

    \b
    For example:
      kms key generate rsa
    """
    body = {"client_id": client_id} if client_id else {}
    show.document(remote.call("POST", f"generate_{kind}_key", body=body))


@key.command()
@click.argument("key_id")
def rotate(key_id: str) -> None:
    """Make the next version of a key.

    \b
    For example:
      kms key rotate orders
    """
    show.document(remote.call("POST", "rotate_key", body={"key_id": key_id}))


@key.command()
@click.argument("key_id")
@click.option(
    "--reason",
    type=click.Choice([str(reason) for reason in RevocationReason]),
    default=str(RevocationReason.KEY_COMPROMISE),
    show_default=True,
)
@click.confirmation_option(prompt="No version of this key will protect anything again. Revoke it?")
def revoke(key_id: str, reason: str) -> None:
    """Revoke a key, on every worker and node, before this returns.

    \b
    For example:
      kms key revoke orders --reason superseded
    """
    show.document(remote.call("POST", "revoke_key", body={"key_id": key_id, "reason": reason}))


@key.command()
@click.argument("key_id")
def suspend(key_id: str) -> None:
    """Suspend a key: refuse every use of it until it is resumed.

    \b
    For example:
      kms key suspend orders
    """
    show.document(remote.call("POST", *_PATH, key_id, "suspend"))


@key.command()
@click.argument("key_id")
def resume(key_id: str) -> None:
    """Resume a suspended key.

    \b
    For example:
      kms key resume orders
    """
    show.document(remote.call("POST", *_PATH, key_id, "resume"))


@key.command("blast-radius")
@click.argument("key_id")
@click.option("--version", type=int, help="Only this version, and uses whose version is not recorded.")
@click.option("--since", help="Only what was done from this time, such as 2030-01-31T00:00:00Z.")
def blast_radius(key_id: str, *, version: int | None, since: str | None) -> None:
    """Show who used which version of a key since when, and who has its material; for administrators and auditors.

    \b
    For example:
      kms key blast-radius orders --version 3
    """
    show.document(remote.call("GET", *_PATH, key_id, "blast-radius", version=version, since=since))


for command in (key_files.import_, key_files.export, key_files.backup, key_files.restore):
    key.add_command(command)
