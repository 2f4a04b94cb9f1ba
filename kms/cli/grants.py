"""`grant`: what others may do with one's keys, and what nobody may."""

from __future__ import annotations

from typing import Any

import click

from kms.cli import remote, show
from kms.cli.pairs import pair

_PATH = ("api", "v1", "grants")


@click.group()
def grant() -> None:
    """Make, list and delete grants, by which others may use your keys."""


@grant.command()
@click.argument("subject")
@click.argument("permissions", nargs=-1, required=True, metavar="PERMISSION...")
@click.option("--key", "key_pattern", required=True, help="A key id, or the beginning of key ids followed by *.")
@click.option("--deny", is_flag=True, help="Forbid it, whatever else allows it; for administrators.")
@click.option("--owner", help="The client whose keys it covers.  [default: you; every client with --deny]")
@click.option("--source", multiple=True, help="Only from this network, such as 10.0.0.0/8.")
@click.option("--not-before", help="In force from this moment on, such as 2030-01-01T00:00:00Z.")
@click.option("--not-after", help="In force until this moment.")
@click.option("--second-factor-within", help="Only within this time after a second factor, such as PT5M.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="What the encryption context must contain.")
@click.option("--context-exact", is_flag=True, help="It must contain no other pairs than those of --context.")
@click.option("--name", help="With a name, repeating the command makes no second grant.")
def create(
    subject: str,
    permissions: tuple[str, ...],
    *,
    key_pattern: str,
    deny: bool,
    owner: str | None,
    source: tuple[str, ...],
    not_before: str | None,
    not_after: str | None,
    second_factor_within: str | None,
    context: tuple[str, ...],
    context_exact: bool,
    name: str | None,
) -> None:
    """Grant SUBJECT (client:NAME, group:NAME or role:NAME) each PERMISSION on the keys that --key names.

    \b
    For example:
      kms grant create group:billing keys:encrypt keys:decrypt --key 'invoices-*'
    """
    if context_exact and not context:
        raise click.UsageError("--context-exact goes with --context.")
    conditions = {
        "source": list(source) or None,
        "not_before": not_before,
        "not_after": not_after,
        "second_factor_within": second_factor_within,
    }
    given = {member: value for member, value in conditions.items() if value is not None}
    members = dict(pair(each, "--context") for each in context) or None
    optional = {
        "effect": "deny" if deny else None,
        "owner": owner,
        "conditions": given or None,
        "context_equals" if context_exact else "context_subset": members,
        "name": name,
    }
    body: dict[str, Any] = {"subject": subject, "permissions": list(permissions), "key_pattern": key_pattern}
    body |= {member: value for member, value in optional.items() if value is not None}
    show.document(remote.call("POST", *_PATH, body=body))


@grant.command("list")
def list_() -> None:
    """List the grants that you gave, hold or may retire; administrators also see all that deny.

    \b
    For example:
      kms grant list
    """
    columns = "grant_id", "effect", "owner", "subject", "permissions", "key_pattern", "conditions"
    show.table(remote.pages(*_PATH), *columns)


@grant.command()
@click.argument("grant_id")
def delete(grant_id: str) -> None:
    """Delete a grant; no worker of any node knows it once this returns.

    \b
    For example:
      kms grant delete $GRANT_ID
    """
    show.document(remote.call("DELETE", *_PATH, grant_id))
