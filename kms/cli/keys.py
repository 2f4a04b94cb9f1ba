"""`key`: keys and their life."""

from __future__ import annotations

import click

from kms.cli import remote, show
from kms.keys.model import RevocationReason

_PATH = ("api", "v1", "keys")


@click.group()
def key() -> None:
    """Make keys, see them, rotate and revoke them."""


@key.command("list")
@click.option("--owner", help="Only keys of this client.")
def list_(owner: str | None) -> None:
    """List the keys that you may see."""
    items: list[dict[str, object]] = []
    cursor = None
    while True:
        page = remote.call("GET", *_PATH, owner=owner, cursor=cursor)
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    show.table(items, "key_id", "type", "state", "latest_version", "expires_at")


@key.command("show")
@click.argument("key_id")
def show_(key_id: str) -> None:
    """Show a key and its versions."""
    show.document(remote.call("GET", *_PATH, key_id))


@key.command()
@click.argument("kind", type=click.Choice(["symmetric", "rsa", "ecc", "dh"]))
@click.option("--client-id", help="For another client than yourself.")
def generate(kind: str, client_id: str | None) -> None:
    """Make the next version of {client_id}_{kind}."""
    body = {"client_id": client_id} if client_id else {}
    show.document(remote.call("POST", f"generate_{kind}_key", body=body))


@key.command()
@click.argument("key_id")
def rotate(key_id: str) -> None:
    """Make the next version of a key."""
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
    """Revoke a key, on every worker and node, before this returns."""
    show.document(remote.call("POST", "revoke_key", body={"key_id": key_id, "reason": reason}))


@key.command()
@click.argument("key_id")
def suspend(key_id: str) -> None:
    """Put a key on hold."""
    show.document(remote.call("POST", *_PATH, key_id, "suspend"))


@key.command()
@click.argument("key_id")
def resume(key_id: str) -> None:
    """Lift the hold on a key."""
    show.document(remote.call("POST", *_PATH, key_id, "resume"))
