"""`audit`: who did what."""

from __future__ import annotations

import time

import click

from kms.cli import remote, show
from kms.cli.audit_anew import begin_anew
from kms.cli.audit_export import export, key, receipt
from kms.cli.audit_search import novelties, search, users_of
from kms.cli.audit_verify import verify

_COLUMNS = ("time", "client_id", "operation", "key_id", "version", "target", "outcome", "source")
_POLL_SECONDS = 1.0


@click.group()
def audit() -> None:
    """Look at the audit log, and prove that it is whole; for administrators and auditors."""


for _command in (verify, export, receipt, key, search, users_of, novelties, begin_anew):
    audit.add_command(_command)


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Keep running, and show new entries as they come.")
def tail(*, lines: int, follow: bool) -> None:
    """Show the newest entries, those of every node.

    What another node answered in the last second or so may still be missing: it is on its way into the log.

    \b
    For example:
      kms audit tail --follow
    """
    entries = remote.call("GET", "api", "v1", "audit", "entries", limit=lines)["items"]
    show.table(entries, *_COLUMNS)
    while follow:
        last = entries[-1]["time"] if entries else None
        time.sleep(_POLL_SECONDS)
        new = remote.call("GET", "api", "v1", "audit", "entries", after=last, limit=10_000)["items"]
        if new := [entry for entry in new if entry["operation"] != "audit_entries"]:  # this command's own traces
            show.table(new, *_COLUMNS)
            entries = new
