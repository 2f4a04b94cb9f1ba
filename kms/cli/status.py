"""`status`: how the service is."""

from __future__ import annotations

import click

from kms.cli import show
from kms.client import kept_login
from kms.client.connection import Connection
from kms.client.errors import KmsError


@click.command()
def status() -> None:
    """Show whether the service is ready, and as whom you are logged in. The exit code is 7 if it is not ready.

    \b
    For example:
      kms status
    """
    kept = kept_login.current()
    found = {"url": kept.url, "ca_cert": kept.ca_cert or "(the system's)", "client_id": kept.client_id}
    if kept.expires_at is not None:
        found["session_ends"] = f"{kept.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    broken: KmsError | None = None
    try:
        lines = Connection(kept.url, ca=kept.ca_cert, patience=0).public("/readyz?verbose").decode().splitlines()
        found["service"] = "ready"
        found |= dict(line.split(": ", 1) for line in lines if ": " in line)
    except KmsError as error:
        broken, found["service"] = error, str(error)
    show.document(found)
    if broken is not None:
        raise broken
