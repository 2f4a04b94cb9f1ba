"""`group`: clients that grants name together."""

from __future__ import annotations

import click

from kms.cli import remote, show

_PATH = ("api", "v1", "groups")


@click.group()
def group() -> None:
    """Manage groups of clients; for administrators. In a grant the subject `group:NAME` stands for all members."""


@group.command()
@click.argument("name")
@click.option("--member", "members", multiple=True, help="A member of the group.  [default: as they are]")
@click.option("--nobody", is_flag=True, help="Remove all members.")
@click.option("--description", help="What it is for.")
def put(name: str, *, members: tuple[str, ...], nobody: bool, description: str | None) -> None:
    """Make a group, or replace its members by those that --member names.

    \b
    For example:
      kms group put billing --member alice --description 'who sends invoices'
    """
    if members and nobody:
        raise click.UsageError("--member and --nobody do not go together.")
    given = {"members": list(members) if members or nobody else None, "description": description}
    body = {name: value for name, value in given.items() if value is not None}
    show.document(remote.call("PUT", *_PATH, name, body=body))


@group.command("list")
def list_() -> None:
    """List groups and who is in them.

    \b
    For example:
      kms group list
    """
    show.table(remote.pages(*_PATH), "group", "members", "description", "created_at")


@group.command("show")
@click.argument("name")
def show_(name: str) -> None:
    """Show who is in a group.

    \b
    For example:
      kms group show billing
    """
    show.document(remote.call("GET", *_PATH, name))


@group.command()
@click.argument("name")
@click.confirmation_option(prompt="Remove this group and every grant to it?")
def delete(name: str) -> None:
    """Remove a group with the grants to it; its members stay clients.

    \b
    For example:
      kms group delete billing
    """
    show.document(remote.call("DELETE", *_PATH, name))


@group.command()
@click.argument("name")
@click.argument("client_id")
def add(name: str, client_id: str) -> None:
    """Add a client to a group.

    \b
    For example:
      kms group add billing alice
    """
    show.document(remote.call("PUT", *_PATH, name, "members", client_id))


@group.command()
@click.argument("name")
@click.argument("client_id")
def remove(name: str, client_id: str) -> None:
    """Remove a client from a group, on every worker and node, before this returns.

    \b
    For example:
      kms group remove billing alice
    """
    show.document(remote.call("DELETE", *_PATH, name, "members", client_id))
