"""`audit`: who did what."""

from __future__ import annotations

import time

import click

from kms.cli import remote, show

_COLUMNS = ("time", "client_id", "operation", "key_id", "version", "target", "outcome", "source")
_POLL_SECONDS = 1.0


@click.group()
def audit() -> None:
    """Look at the audit log; for administrators and auditors."""


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Keep running, and show new entries as they come.")
def tail(*, lines: int, follow: bool) -> None:
    """Show the newest entries: of all changes, and of the uses of keys on the node that answers.

    If there are several nodes, each logs only the uses that it carried out itself; ask all of them.

    \b
    For example:
      kms audit tail --follow
    """
    entries = remote.call("GET", "api", "v1", "audit", "entries", limit=lines)["items"]
    click.echo(
        f"All changes, and the uses of keys on the node behind {remote.client().connection.url} only.", err=True
    )
    show.table(entries, *_COLUMNS)
    while follow:
        last = entries[-1]["time"] if entries else None
        time.sleep(_POLL_SECONDS)
        new = remote.call("GET", "api", "v1", "audit", "entries", after=last, limit=10_000)["items"]
        if new := [entry for entry in new if entry["operation"] != "audit_entries"]:  # this command's own traces
            show.table(new, *_COLUMNS)
            entries = new
