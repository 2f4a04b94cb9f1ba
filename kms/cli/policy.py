"""`policy`: why something is allowed or not, and what a change of grants would change."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click

from kms.cli import remote, show
from kms.cli.pairs import pair
from kms.encryption_context import associated_data_of

_PATH = ("api", "v1", "policy")


@click.group()
def policy() -> None:
    """Ask why something is allowed or not, and try a change of grants before you make it."""


@policy.command()
@click.argument("key_id")
@click.argument("permission")
@click.option("--client", "client_id", help="Who asks.  [default: you]")
@click.option("--source", help="From which address.  [default: yours]")
@click.option("--action", help="The AWS action, for keys with an AWS key policy, such as GenerateDataKey.")
@click.option("--context", multiple=True, help="NAME=VALUE of the message's encryption context; may be repeated.")
@click.option("--second-factor-age", type=int, help="Seconds since a person gave a code.  [default: as you]")
def explain(
    key_id: str,
    permission: str,
    client_id: str | None,
    source: str | None,
    action: str | None,
    context: tuple[str, ...],
    second_factor_age: int | None,
) -> None:
    """Show whether PERMISSION (such as keys:encrypt) on a key is allowed, and every rule that was evaluated.

    \b
    For example:
      kms policy explain orders keys:decrypt --client shop --source 10.0.0.7
    """
    given: dict[str, Any] = {
        "client_id": client_id,
        "source": source,
        "action": action,
        "second_factor_age": second_factor_age,
        "associated_data": _associated_data(context),
    }
    body = {"key_id": key_id, "permission": permission}
    body |= {name: value for name, value in given.items() if value is not None}
    answer = remote.call("POST", *_PATH, "explain", body=body)
    if show.as_json():
        show.document(answer)
        return
    show.table(answer["because"], "rule", "effect", "matches", "why")
    click.echo("allowed" if answer["allowed"] else "denied")


@policy.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--since", default="P30D", show_default=True, help="How far to look back, as an ISO 8601 duration.")
def simulate(file: Path, since: str) -> None:
    """Show which past requests would be decided otherwise if the grants in FILE were added and removed.

    FILE is JSON: {"add": [grant …], "remove": [id …]}.

    \b
    For example:
      kms policy simulate change.json --since P30D
    """
    try:
        change = json.loads(file.read_text())
    except (OSError, ValueError):
        raise click.ClickException(f"{file} is not JSON that can be read.") from None
    if not isinstance(change, dict):
        raise click.ClickException(f'{file} must be {{"add": [grant …], "remove": [id …]}}.')
    answer = remote.call("POST", *_PATH, "simulate", body={**change, "since": since})
    if show.as_json():
        show.document(answer)
        return
    columns = ("client_id", "permission", "key_id", "before", "after", "uses")
    show.table(answer["changed"], *columns)
    click.echo(f"{len(answer['changed'])} changes, among {answer['entries']} entries of the audit log of this node.")
    if answer["unseen"]:
        click.echo(f"Used elsewhere, and not looked at: {', '.join(answer['unseen'])}")
    if answer["undecided"]:
        click.echo(f"Not decided, because the log does not show the callers' addresses: {answer['undecided']} uses.")


def _associated_data(context: tuple[str, ...]) -> str | None:
    if not context:
        return None
    members = dict(pair(each, "--context") for each in context)
    return base64.b64encode(associated_data_of(members)).decode()
